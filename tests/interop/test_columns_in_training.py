"""`sftkit train` and transformers' Trainer on shards with the columns of each trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

import sftkit
from interop.conftest import MODEL
from interop.material import loss_of, sequences
from training.material import logged


def first_loss(model: Any, data: Any, folder: Path, collator: Any, rows: int) -> float:
    arguments = TrainingArguments(
        str(folder), use_cpu=True, report_to=[], per_device_train_batch_size=rows, train_sampling_strategy="sequential"
    )
    trainer = Trainer(model, arguments, train_dataset=data, data_collator=collator)
    model.eval()
    with torch.no_grad():
        return float(trainer.compute_loss(model, next(iter(trainer.get_train_dataloader()))))


@pytest.mark.parametrize("packed", [False, True])
def test_our_loss_is_that_of_each_sequence(shards: Callable[..., Path], model: Any, packed: bool) -> None:
    path = shards("sftkit", packed=packed)
    rows = sftkit.ShardDataset(path)
    batch = sftkit.collator_for(model)([rows[number] for number in range(4)])
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(loss_of(model, sequences(path, range(4))), abs=1e-5)


@pytest.mark.parametrize("columns", ["axolotl", "llamafactory"])
def test_the_first_loss_of_a_run(shards: Callable[..., Path], tmp_path: Path, columns: str) -> None:
    """Packs without `seq_lengths`, in `sftkit train`."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(MODEL))
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(tmp_path / "model")
    sftkit.train(
        model_name_or_path=tmp_path / "model", training_data_path=shards(columns, packed=True), max_steps=1,
        output_dir=tmp_path / "run", per_device_train_batch_size=6, logging_steps=1, use_cpu=True,
    )  # fmt: skip
    expected = loss_of(model.eval(), sequences(shards("sftkit", packed=True)))
    assert logged(tmp_path / "run", "loss")[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("columns", ["sftkit", "axolotl"])
def test_trainer_takes_rows(
    shards: Callable[..., Path], model: Any, tokenizer: Any, tmp_path: Path, columns: str
) -> None:
    data = load_dataset(str(shards(columns, packed=False)), split="train")
    found = first_loss(model, data, tmp_path / "run", DataCollatorForSeq2Seq(tokenizer), 4)
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=False), range(4))), abs=1e-5)


def test_trainer_takes_packs_by_their_positions(shards: Callable[..., Path], model: Any, tmp_path: Path) -> None:
    """Without a mask, transformers tells by `position_ids` where a sequence begins."""
    data = load_dataset(str(shards("axolotl", packed=True)), split="train")
    data = data.select_columns(["input_ids", "labels", "position_ids"])
    found = first_loss(model, data, tmp_path / "run", default_data_collator, 1)
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=True), [0])), abs=1e-5)
