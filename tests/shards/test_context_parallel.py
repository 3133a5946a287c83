"""Padded packs divide evenly over ranks of context parallelism: simulated with a small attention.

Context parallelism cuts what it divides into 2 * C chunks of equal length; rank r of C computes chunks r and
2 * C - 1 - r (the "zig-zag" order of Megatron-LM and NeMo), so that causal attention costs every rank about the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

from sftkit.core.rows import Offsets, Ragged, lengths_to_offsets
from sftkit.ordering.best_fit import pack_bfd
from sftkit.shards.arrow_arrays import list_array
from sftkit.shards.pack_padding import PackPadding, add_padding

_VOCABULARY, _WIDTH, _PAD = 50, 8, 49


def some_packs() -> pa.Table:
    """Packs of sequences of 2 to 40 tokens, about half of which carry a loss."""
    chance = np.random.default_rng(4)
    packs = pack_bfd(chance.integers(2, 41, 25), 64)
    starts = lengths_to_offsets(packs.lengths.astype(np.int64))
    ids = chance.integers(0, _PAD, int(starts[-1])).astype(np.int32)
    labels = np.where(chance.random(len(ids)) < 0.5, ids, np.int32(-100))
    labels[starts[:-1]] = -100
    columns = {"input_ids": Ragged(ids, starts[packs.offsets]), "labels": Ragged(labels, starts[packs.offsets])}
    columns["seq_lengths"] = Ragged(packs.lengths, packs.offsets)
    return pa.table({name: list_array(column) for name, column in columns.items()})


def computed(pack: dict[str, Any], places: Offsets) -> tuple[float, int]:
    """What a rank computes of some positions of a pack: the sum of its losses, and its pairs of a query and a key."""
    weights = torch.Generator().manual_seed(0)
    embedding, head = (torch.randn(_VOCABULARY, _WIDTH, generator=weights, dtype=torch.float64) for _ in range(2))
    keys = embedding[torch.tensor(pack["input_ids"])]
    sequence = torch.repeat_interleave(torch.tensor(pack["seq_lengths"]))
    own, every = torch.from_numpy(places), torch.arange(len(keys))
    visible = (every[None] <= own[:, None]) & (sequence[None] == sequence[own][:, None])
    mixed = functional.scaled_dot_product_attention(keys[own], keys, keys, attn_mask=visible)
    labels = torch.tensor([*pack["labels"][1:], -100])[own]
    return float(functional.cross_entropy(mixed @ head.T, labels, reduction="sum")), int(visible.sum())


def zigzag(length: int, rank: int, ranks: int) -> npt.NDArray[np.int64]:
    """The positions that a rank computes."""
    chunks = np.split(np.arange(length), 2 * ranks)  # an error if they are not equal
    return np.concatenate([chunks[rank], chunks[2 * ranks - 1 - rank]])


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_compute_the_same_number_of_tokens_of_a_padded_pack_and_the_loss_of_one(ranks: int) -> None:
    packs = some_packs()
    padded = add_padding(packs, PackPadding(2 * ranks, _PAD)).to_pylist()
    assert any(pack["padding"] for pack in padded)
    for plain, pack in zip(packs.to_pylist(), padded, strict=True):
        length = len(pack["input_ids"])
        places = [zigzag(length, rank, ranks) for rank in range(ranks)]
        assert {len(each) for each in places} == {length // ranks}
        expected, _ = computed(plain, np.arange(len(plain["input_ids"])))
        assert sum(computed(pack, each)[0] for each in places) == pytest.approx(expected, rel=1e-12)
    one = {"input_ids": [1] * 64, "labels": [1] * 64, "seq_lengths": [64]}
    assert len({computed(one, zigzag(64, rank, ranks))[1] for rank in range(ranks)}) == 1  # causal work is even
