"""`sftkit.ShardDataset` and the collators in training loops that are not sftkit's."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments, set_seed

import sftkit
from sftkit.training.models.sequence_separation import boundary_encoder_for
from sftkit.training.trainer import SftTrainer
from support import write_jsonl


@pytest.fixture(params=["sample_shards", "packed_shards"])
def shards(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def make_model(attention: str = "sdpa") -> PreTrainedModel:
    set_seed(1)
    settings = AutoConfig.from_pretrained(sftkit.sample_path("sample:model"))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(settings, attn_implementation=attention)
    return model


def test_a_loop_of_your_own_learns(shards: Path) -> None:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    dataset = sftkit.ShardDataset(shards)
    loader = DataLoader(dataset, batch_size=2, shuffle=True, collate_fn=sftkit.collator_for(model))
    for batch, _ in zip(loader, range(16), strict=False):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses))
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5


def test_a_plain_trainer_learns_and_evaluates(shards: Path, tmp_path: Path) -> None:
    arguments = TrainingArguments(
        str(tmp_path), max_steps=12, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=3e-3,
        use_cpu=True, logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    model = make_model()
    collator = sftkit.collator_for(model)
    train, validation = sftkit.ShardDataset(shards), sftkit.ShardDataset(shards, "validation")
    trainer = Trainer(model, arguments, train_dataset=train, eval_dataset=validation, data_collator=collator)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(map(math.isfinite, losses))
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5
    assert trainer.evaluate()["eval_loss"] < before


def test_batches_are_those_that_sftkit_train_feeds(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[dict[str, Any]] = []
    real = SftTrainer.training_step

    def record(trainer: SftTrainer, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
        fed.append(dict(inputs))
        return real(trainer, model, inputs, *rest)

    monkeypatch.setattr(SftTrainer, "training_step", record)
    sftkit.train(
        training_data_path=shards, model_name_or_path="sample:model", init_from_config=True, output_dir=tmp_path,
        max_steps=3, per_device_train_batch_size=4, train_sampling_strategy="sequential", attn_implementation="sdpa",
        use_cpu=True,
    )  # fmt: skip
    loader = DataLoader(
        sftkit.ShardDataset(shards), batch_size=4, collate_fn=sftkit.collator_for(make_model(), trim_head=True)
    )
    for expected, batch in zip(fed, loader, strict=False):
        assert expected.keys() == batch.keys()
        for name, value in expected.items():
            assert torch.equal(value, batch[name]) if torch.is_tensor(value) else value == batch[name], name
    assert len(fed) == 3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sequences_of_a_batch_do_not_see_each_other(shards: Path, attention: str) -> None:
    model = make_model(attention).eval()
    dataset = sftkit.ShardDataset(shards)
    batch = sftkit.FlatCollator()([dataset[0], dataset[1]])
    ids, positions = batch["input_ids"][0], batch["position_ids"][0]
    starts = [*torch.nonzero(positions == 0).flatten().tolist(), len(ids)]
    assert len(starts) > 2
    with torch.no_grad():
        together = model(**batch).logits[0]
        alone = [model(ids[None, start:stop]).logits[0] for start, stop in pairwise(starts)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_the_batch_has_boundaries_for_flash_attention(shards: Path) -> None:
    model = make_model()
    model.config._attn_implementation = "flash_attention_2"  # nothing is computed with it
    dataset = sftkit.ShardDataset(shards)
    batch = sftkit.FlatCollator(boundaries=boundary_encoder_for(model))([dataset[0], dataset[1]])
    ends = batch["cu_seq_lens_q"]
    assert (ends.dtype, ends[0].item(), ends[-1].item()) == (torch.int32, 0, batch["input_ids"].shape[1])
    assert batch["max_length_q"] == int(ends.diff().max())
    assert batch["position_ids"][0][ends[:-1].long()].tolist() == [0] * (len(ends) - 1)


def test_a_model_that_mixes_sequences_gets_padded_batches(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = make_model()
    forward = model.forward

    def without_positions(input_ids: torch.Tensor, position_ids: Any = None, **options: Any) -> Any:
        return forward(input_ids, **options)

    model.forward = without_positions
    collator = sftkit.collator_for(model)
    assert isinstance(collator, sftkit.PaddingCollator)
    assert "batches are padded instead" in caplog.text
    dataset = sftkit.ShardDataset(shards)
    batch = collator([dataset[0], dataset[1]])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["labels"].shape
    assert len(batch["input_ids"]) >= 2


def test_items_are_the_rows_of_the_split_in_order(shards: Path) -> None:
    dataset = sftkit.ShardDataset(shards, "validation")
    rows = sftkit.open_shards(shards)["validation"]
    assert len(dataset) == len(rows)
    for number, row in enumerate(rows):
        item = dataset[number]
        assert item.input_ids.values.tolist() == row.input_ids.tolist()
        lengths = [len(row.input_ids)] if row.seq_lengths is None else row.seq_lengths.tolist()
        assert item.input_ids.lengths.tolist() == lengths
    assert dataset[-1].input_ids.values.tolist() == rows[-1].input_ids.tolist()
    with pytest.raises(IndexError):
        dataset[len(rows)]


def test_worker_processes_of_a_loader_give_the_same_batches(shards: Path) -> None:
    dataset = sftkit.ShardDataset(shards, "validation")
    batches = [
        list(DataLoader(dataset, batch_size=4, collate_fn=sftkit.FlatCollator(), num_workers=workers))
        for workers in (0, 2)
    ]
    assert len(batches[0]) == len(batches[1])
    assert all(torch.equal(one["labels"], other["labels"]) for one, other in zip(*batches, strict=True))


def write(path: Path, ids: list[list[int]], labels: list[list[int]]) -> Path:
    pq.write_table(pa.table({"input_ids": ids, "labels": labels}), path, row_group_size=2)
    return path


def test_rows_without_a_loss_are_left_out(tmp_path: Path) -> None:
    ids = [[1, 2], [3, 4], [5, 6, 7], [8, 9], [10, 11]]
    labels = [[-100, -100], [-100, 4], [-100, -100, 7], [-100, -100], [-100, 11]]
    path = write(tmp_path / "a.parquet", ids, labels)
    dataset = sftkit.ShardDataset(path)
    assert [item.input_ids.values.tolist() for item in map(dataset.__getitem__, range(len(dataset)))] == [
        ids[1], ids[2], ids[4],
    ]  # fmt: skip
    cut = sftkit.ShardDataset(path, max_seq_length=2)
    assert [cut[number].input_ids.values.tolist() for number in range(len(cut))] == [ids[1], ids[4]]
    assert len(sftkit.ShardDataset(path, max_seq_length=2, overflow="drop")) == 2
    with pytest.raises(sftkit.DataError, match=":3: 3 tokens, more than max_seq_length=2"):
        sftkit.ShardDataset(path, max_seq_length=2, overflow="error")


def test_packs_without_a_loss_are_left_out_if_the_strategy_may_have_cut_rows(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"input": "word " * 30, "output": "yes"} for _ in range(5)])
    out = tmp_path / "out"
    sftkit.preprocess(
        training_data_path=source, model_name_or_path="sample:model", output_dir=out, packing="wrapped", pack_length=16
    )
    packs = len(sftkit.open_shards(out)["train"])
    trained = len(sftkit.ShardDataset(out))
    assert trained < packs
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["config"]["packing"] = "of_a_package_that_is_not_installed"
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert len(sftkit.ShardDataset(out)) == trained


@pytest.mark.parametrize(
    ("labels", "split", "error", "message"),
    [
        ([[-100, -100]], "train", sftkit.TrainingError, "no row has a token that carries a loss"),
        ([[-100, 2]], "validation", sftkit.TrainingError, "there is no validation split"),
        ([[-100, 2, 3]], "train", sftkit.DataError, "2 input_ids and 3 labels"),
    ],
)
def test_what_cannot_be_trained_on_is_one_clear_error(
    tmp_path: Path, labels: list[list[int]], split: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sftkit.ShardDataset(write(tmp_path / "a.parquet", [[1, 2]], labels), split)


def test_shards_without_labels_cannot_be_trained_on(tmp_path: Path) -> None:
    pq.write_table(pa.table({"input_ids": [[1, 2]]}), tmp_path / "a.parquet")
    with pytest.raises(sftkit.TrainingError, match="no column labels"):
        sftkit.ShardDataset(tmp_path)


def test_a_batch_moves_to_a_device(shards: Path) -> None:
    dataset = sftkit.ShardDataset(shards)
    batch = sftkit.FlatCollator()([dataset[0]])
    moved = batch.to("meta")
    assert moved["input_ids"].device.type == "meta"
    assert moved["use_cache"] is False
    assert moved.counts == batch.counts
