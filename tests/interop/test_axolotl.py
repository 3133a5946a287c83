"""axolotl on our shards: its loader takes them for tokenized rows, and its sampler and collators make the batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import SequentialSampler

from interop.material import empty_modules, loss_of, sequences, trainer_module

trainer_module("axolotl")

with empty_modules("torchaudio"):  # for sounds
    from axolotl.utils.collators import BatchSamplerDataCollatorForSeq2Seq, DataCollatorForSeq2Seq
    from axolotl.utils.data.shared import load_dataset_with_config
    from axolotl.utils.data.wrappers import get_dataset_wrapper
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.samplers import MultipackBatchSampler, get_dataset_lengths
    from axolotl.utils.trainer import process_datasets_for_packing


def loaded(path: Path, tokenizer: Any, **options: Any) -> Any:
    """The rows as axolotl loads them, with `datasets: [{path: PATH, split: train}]`."""
    source, config = DictDefault(path=str(path), split="train"), DictDefault(**options)
    rows = load_dataset_with_config(source, False)
    rows, _ = get_dataset_wrapper(source, tokenizer, config, None, rows)
    if config.sample_packing and not config.skip_prepare_dataset:
        rows, _ = process_datasets_for_packing(config, rows, None)
    return rows


def packed_batches(rows: Any, tokenizer: Any, length: int) -> list[Any]:
    """Batches with `sample_packing: true`, as `AxolotlTrainer` makes them."""
    sampler = MultipackBatchSampler(
        SequentialSampler(rows), batch_size=1, batch_max_len=length, lengths=get_dataset_lengths(rows), bin_size=200,
        num_processes=1,
    )  # fmt: skip
    rows = rows.remove_columns(["length", "attention_mask"])
    collator = BatchSamplerDataCollatorForSeq2Seq(tokenizer)
    return [collator([[rows[number] for number in numbers] for numbers in bins]) for bins in sampler]


def loss_of_batches(model: Any, batches: Any) -> float:
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            trained = int((batch["labels"][:, 1:] != -100).sum())
            total += model(**batch).loss.item() * trained
            count += trained
    return total / count


def test_rows(shards: Callable[..., Path], model: Any, tokenizer: Any) -> None:
    rows = loaded(shards("axolotl", packed=False), tokenizer)
    batch = DataCollatorForSeq2Seq(tokenizer)([rows[number] for number in range(4)])
    expected = loss_of(model, sequences(shards("sftkit", packed=False), range(4)))
    assert loss_of_batches(model, [batch]) == pytest.approx(expected, abs=1e-5)


def test_rows_that_axolotl_packs(shards: Callable[..., Path], model: Any, tokenizer: Any) -> None:
    rows = loaded(shards("axolotl", packed=False), tokenizer, sample_packing=True)
    found = loss_of_batches(model, packed_batches(rows, tokenizer, 2400))
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=False))), abs=1e-5)


def test_packs(shards: Callable[..., Path], model: Any, tokenizer: Any) -> None:
    rows = loaded(shards("axolotl", packed=True), tokenizer, sample_packing=True, skip_prepare_dataset=True)
    found = loss_of_batches(model, packed_batches(rows, tokenizer, 2400))
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=True))), abs=1e-5)
