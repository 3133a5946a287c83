"""Padded packs divide evenly over ranks of context parallelism: simulated with a small attention.

Context parallelism cuts what it divides into 2 * C chunks of equal length; rank r of C computes chunks r and
2 * C - 1 - r (the "zig-zag" order of Megatron-LM and NeMo), so that causal attention costs every rank about the same.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

from sftkit.core.rows import Offsets, Ragged, lengths_to_offsets
from sftkit.ordering.strategies.best_fit import pack_bfd
from sftkit.shards.arrow_arrays import list_array
from sftkit.shards.formats.packed_sequences import PackedSequences
from sftkit.shards.pack_padding import PackPadding, add_padding
from sftkit.shards.writing.row_gatherer import GatheredRows

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
    """What a rank computes of some positions: the sum of its losses, and its pairs of a query and a key.

    Args:
        pack: `input_ids`, the label of the token after each, and the lengths of the sequences.
        places: the positions, which see all tokens before them of their sequence.
    """
    weights = torch.Generator().manual_seed(0)
    embedding, head = (torch.randn(_VOCABULARY, _WIDTH, generator=weights, dtype=torch.float64) for _ in range(2))
    keys = embedding[torch.as_tensor(pack["input_ids"]).long()]
    sequence = torch.repeat_interleave(torch.tensor(pack["seq_lengths"]))
    own, every = torch.from_numpy(places), torch.arange(len(keys))
    visible = (every[None] <= own[:, None]) & (sequence[None] == sequence[own][:, None])
    mixed = functional.scaled_dot_product_attention(keys[own], keys, keys, attn_mask=visible)
    labels = torch.as_tensor(pack["next_labels"])[own].long()
    return float(functional.cross_entropy(mixed @ head.T, labels, reduction="sum")), int(visible.sum())


def shifted(pack: dict[str, Any]) -> dict[str, Any]:
    return {**pack, "next_labels": [*pack["labels"][1:], -100]}


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
        expected, _ = computed(shifted(plain), np.arange(len(plain["input_ids"])))
        assert sum(computed(shifted(pack), each)[0] for each in places) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_compute_the_same_tokens_and_pairs_of_padded_sequences_and_the_loss_of_one(ranks: int) -> None:
    packs = PackedSequences.of(GatheredRows(some_packs(), 0, 0))
    wholes = [sequences_of(each) for each in (packs, packs.padded(2 * ranks, _PAD))]
    for plain, sequence in zip(*wholes, strict=True):
        expected, _ = computed(plain, np.arange(len(plain["input_ids"])))
        length = len(sequence["input_ids"])
        found = [computed(sequence, zigzag(length, rank, ranks)) for rank in range(ranks)]
        assert sum(loss for loss, _ in found) == pytest.approx(expected, rel=1e-12)
        assert len({pairs for _, pairs in found}) == 1  # causal attention costs each the same
        assert length < len(plain["input_ids"]) + 2 * ranks


def sequences_of(packs: PackedSequences) -> list[dict[str, Any]]:
    """The inputs and labels of each sequence, as the readers of Megatron and NeMo shift them."""
    found = []
    for start, stop in pairwise(packs.starts.tolist()):
        labels = np.where(packs.predicts_trained[start : stop - 1], packs.ids[start + 1 : stop], -100)
        found.append({"input_ids": packs.ids[start : stop - 1], "next_labels": labels, "seq_lengths": [len(labels)]})
    return found
