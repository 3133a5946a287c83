"""TRL's SFTTrainer on our shards: `labels` decide, rows are whole, and packs are separate with `padding_free`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from interop.material import loss_of, sequences, trainer_module

trainer_module("trl")

from trl import SFTConfig, SFTTrainer  # noqa: E402 - after the check that it is there


def first_loss(model: Any, tokenizer: Any, data: Any, folder: Path, **options: Any) -> float:
    """The loss of the first batch: of four rows, unless `options` say otherwise."""
    defaults = {"max_length": None, "per_device_train_batch_size": 4, "train_sampling_strategy": "sequential"}
    arguments = SFTConfig(str(folder), use_cpu=True, bf16=False, report_to=[], **{**defaults, **options})
    trainer = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    model.eval()
    return float(trainer.compute_loss(model, next(iter(trainer.get_train_dataloader()))).detach())


@pytest.mark.parametrize(
    ("columns", "packed", "padding_free"),
    [("sftkit", False, False), ("trl", False, True), ("sftkit", True, True), ("trl", True, True)],
)
def test_loss_is_that_of_each_sequence(
    shards: Callable[..., Path], model: Any, tokenizer: Any, tmp_path: Path, columns: str, packed: bool,
    padding_free: bool,
) -> None:  # fmt: skip
    data = load_dataset(str(shards(columns, packed=packed)), split="train")
    found = first_loss(model, tokenizer, data, tmp_path / "run", padding_free=padding_free)
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=packed), range(4))), abs=1e-5)


def test_masks_say_what_labels_say(shards: Callable[..., Path], model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Releases of TRL before 1.16 drop `labels` where they pack."""
    data = load_dataset(str(shards("trl", packed=False)), split="train").remove_columns("labels")
    expected = loss_of(model, sequences(shards("sftkit", packed=False), range(4)))
    assert first_loss(model, tokenizer, data, tmp_path / "both") == pytest.approx(expected, abs=1e-5)
    one = data.remove_columns("assistant_masks")
    found = first_loss(model, tokenizer, one, tmp_path / "one", completion_only_loss=True)
    assert found == pytest.approx(expected, abs=1e-5)


def test_trl_packs_rows_itself(shards: Callable[..., Path], model: Any, tokenizer: Any, tmp_path: Path) -> None:
    data = load_dataset(str(shards("trl", packed=False)), split="train")
    packing = {"packing": True, "max_length": 300, "per_device_train_batch_size": 16}
    found = first_loss(model, tokenizer, data, tmp_path / "run", **packing)
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=False))), abs=1e-5)


def test_packs_need_padding_free(shards: Callable[..., Path], model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """As the documentation says: without it, TRL computes no positions, and a sequence sees those before it."""
    data = load_dataset(str(shards("trl", packed=True)), split="train")
    found = first_loss(model, tokenizer, data, tmp_path / "run")
    assert abs(found - loss_of(model, sequences(shards("sftkit", packed=True), range(4)))) > 1e-3
