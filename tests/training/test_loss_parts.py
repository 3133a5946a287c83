"""Losses by source and by kind of token, and weights: the same as in plain torch, however a step is computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from sftkit.api.use_cases import train
from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, DataError
from sftkit.shards.reading import open_shards
from sftkit.training.data.rows.open_split import open_split
from sftkit.training.data.rows.row_limits import RowLimit
from sftkit.training.data.rows.token_details import DETAIL_COLUMNS
from sftkit.training.setup.detail_columns import used_details

from .detailed_shards import SOURCES, columns_of, make_sequences, plain_loss, plain_run, sums, uniform, write_shards
from .material import Launch, events, run_launches

RATE = 0.5
STEPS = 3
ROWS = 12
"""Sequences of a step."""
PLAIN = {
    "optim": "sgd", "lr_scheduler_type": "constant", "learning_rate": RATE, "max_grad_norm": 0, "max_steps": STEPS,
    "train_sampling_strategy": "sequential", "logging_steps": 1, "save_strategy": "no", "use_cpu": True,
    "watchdog": False,
}  # fmt: skip
SEQUENCES = make_sequences(ROWS * STEPS)
VALIDATION = make_sequences(10, seed=1)


def run(model: Path, shards: Path, output: Path, **keys: Any) -> list[dict[str, Any]]:
    """The training lines in the log of a run."""
    train(model_name_or_path=str(model), training_data_path=str(shards), output_dir=str(output), **{**PLAIN, **keys})
    return [event for event in events(output) if "loss" in event]


def assert_as_in_torch(found: list[dict[str, Any]], expected: list[dict[str, float]]) -> None:
    assert len(found) == len(expected)
    for event, wanted in zip(found, expected, strict=True):
        assert {key: event.get(key) for key in wanted} == pytest.approx(wanted, rel=2e-6)
        assert list(sums(event)) == pytest.approx([event["loss"]] * 2, rel=1e-6)
        assert {key for key in event if key.startswith("loss/")} == {key for key in wanted if key.startswith("loss/")}


LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "flat": (1, {"per_device_train_batch_size": ROWS}),
    "flat, accumulated": (1, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}),
    "padded": (1, {"per_device_train_batch_size": ROWS, "padding_free": "false"}),
    "padded, accumulated": (
        1, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "padding_free": "false"},
    ),
    "packed": (3, {"per_device_train_batch_size": 4}),
    "packed, accumulated": (3, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
    "packed, padded": (3, {"per_device_train_batch_size": 4, "padding_free": "false"}),
    "chunks": (1, {"per_device_train_batch_size": ROWS, "loss_chunk_size": 7}),
    "chunks, padded": (1, {"per_device_train_batch_size": ROWS, "loss_chunk_size": 7, "padding_free": "false"}),
    "no chunks": (1, {"per_device_train_batch_size": ROWS, "loss_chunk_size": 0}),
    "smoothed": (1, {"per_device_train_batch_size": ROWS, "label_smoothing_factor": 0.2}),
    "smoothed chunks": (
        1, {"per_device_train_batch_size": ROWS, "label_smoothing_factor": 0.2, "loss_chunk_size": 7},
    ),
    "workers": (1, {"per_device_train_batch_size": ROWS, "dataloader_num_workers": 1}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weighted_losses_and_weights_are_those_of_plain_torch(tmp_path: Path, model_dir: Path, layout: str) -> None:
    pack, keys = LAYOUTS[layout]
    write_shards(tmp_path / "shards", {"train": SEQUENCES}, pack=pack)
    found = run(model_dir, tmp_path / "shards", tmp_path / "out", **keys)
    steps = [SEQUENCES[start : start + ROWS] for start in range(0, len(SEQUENCES), ROWS)]
    expected, weights = plain_run(model_dir, steps, RATE, keys.get("label_smoothing_factor", 0.0))
    assert_as_in_torch(found, expected)
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, values in trained.named_parameters():
        torch.testing.assert_close(values.detach(), weights[name], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("keys", [{}, {"loss_chunk_size": 7}, {"streaming": True}], ids=["flat", "chunks", "streaming"])
def test_without_weights_the_losses_are_means_over_tokens(
    tmp_path: Path, model_dir: Path, keys: dict[str, Any]
) -> None:
    write_shards(tmp_path / "shards", {"train": SEQUENCES}, without=["loss_weights"])
    found = run(model_dir, tmp_path / "shards", tmp_path / "out", per_device_train_batch_size=ROWS, **keys)
    sequences = uniform(SEQUENCES)
    steps = [sequences[start : start + ROWS] for start in range(0, len(SEQUENCES), ROWS)]
    assert_as_in_torch(found, plain_run(model_dir, steps, RATE)[0])


def test_losses_over_several_steps_sum_to_the_logged_loss(tmp_path: Path, model_dir: Path) -> None:
    write_shards(tmp_path / "shards", {"train": SEQUENCES})
    [event] = run(model_dir, tmp_path / "shards", tmp_path / "out", per_device_train_batch_size=ROWS, logging_steps=3)
    assert list(sums(event)) == pytest.approx([event["loss"]] * 2, rel=1e-6)
    trained = sum(label != -100 for each in SEQUENCES for label in each.labels)
    assert sum(event[f"trained_tokens/source/{name}"] for name in SOURCES) == trained


@pytest.mark.parametrize("column", ["source", "token_kinds"])
def test_a_column_can_be_missing(tmp_path: Path, model_dir: Path, column: str) -> None:
    write_shards(tmp_path / "shards", {"train": SEQUENCES}, without=[column, "loss_weights"])
    [event] = run(model_dir, tmp_path / "shards", tmp_path / "out", max_steps=1, per_device_train_batch_size=ROWS)
    names = {key.removeprefix("loss/") for key in event if key.startswith("loss/")}
    kinds = {"content", "reasoning", "tool_call", "stop"}
    assert names == (kinds if column == "source" else {f"source/{name}" for name in SOURCES})


def test_shards_without_the_columns_are_logged_as_ever(tmp_path: Path, model_dir: Path) -> None:
    write_shards(tmp_path / "shards", {"train": SEQUENCES, "validation": VALIDATION}, without=DETAIL_COLUMNS)
    run(
        model_dir, tmp_path / "shards", tmp_path / "out", max_steps=1, per_device_train_batch_size=ROWS,
        eval_strategy="steps",
    )  # fmt: skip
    assert not [key for event in events(tmp_path / "out") for key in event if "/" in key]


@pytest.mark.parametrize("keys", [{"bf16": True}, {"bf16": True, "loss_chunk_size": 7}, {"peft_method": "lora"}])
def test_the_parts_sum_to_the_loss_in_mixed_precision_and_with_adapters(
    tmp_path: Path, model_dir: Path, keys: dict[str, Any]
) -> None:
    write_shards(tmp_path / "shards", {"train": SEQUENCES})
    found = run(model_dir, tmp_path / "shards", tmp_path / "out", per_device_train_batch_size=ROWS, **keys)
    for event in found:
        assert list(sums(event)) == pytest.approx([event["loss"]] * 2, rel=1e-6)
    expected = plain_run(model_dir, [SEQUENCES[:ROWS]], RATE)[0][0]
    assert found[0]["loss"] == pytest.approx(expected["loss"], rel=2e-3 if "bf16" in keys else 2e-6)


@pytest.mark.parametrize("keys", [{}, {"padding_free": "false"}, {"loss_chunk_size": 7}])
def test_evaluations_are_weighted_and_divided_too(tmp_path: Path, model_dir: Path, keys: dict[str, Any]) -> None:
    write_shards(tmp_path / "shards", {"train": SEQUENCES, "validation": VALIDATION})
    write_shards(tmp_path / "other", {"validation": VALIDATION[:4]}, without=["loss_weights"])
    sets = {"main": str(tmp_path / "shards"), "other": str(tmp_path / "other")}
    train(
        model_name_or_path=str(model_dir), output_dir=str(tmp_path / "out"), do_train=False, use_cpu=True,
        eval_data=sets, **keys,
    )  # fmt: skip
    written = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    with torch.no_grad():
        for name, sequences in {"main": VALIDATION, "other": uniform(VALIDATION[:4])}.items():
            loss, entries = plain_loss(model, sequences)
            assert written[f"eval_{name}_loss"] == pytest.approx(float(loss), rel=2e-6)
            assert {key: written[f"eval_{name}_{key}"] for key in entries} == pytest.approx(entries, rel=2e-6)
        loss, entries = plain_loss(model, [*VALIDATION, *uniform(VALIDATION[:4])])
    assert written["eval_loss"] == pytest.approx(float(loss), rel=2e-6)
    assert {key: written[f"eval_{key}"] for key in entries} == pytest.approx(entries, rel=2e-6)
    assert list(sums(written, "eval_")) == pytest.approx([written["eval_loss"]] * 2, rel=1e-6)
    reasoning = torch.tensor(written["eval_loss/reasoning"]).exp().item()
    assert written["eval_perplexity/reasoning"] == pytest.approx(reasoning, rel=1e-5)


def test_a_resumed_run_logs_the_same_parts(tmp_path: Path, model_dir: Path) -> None:
    write_shards(tmp_path / "shards", {"train": SEQUENCES})
    keys: dict[str, Any] = {
        "per_device_train_batch_size": 4, "max_steps": 6, "logging_steps": 3, "save_strategy": "steps", "save_steps": 2,
    }  # fmt: skip
    whole = run(model_dir, tmp_path / "shards", tmp_path / "out", **keys)
    remove_checkpoints(tmp_path / "out", keep=2)
    again = run(model_dir, tmp_path / "shards", tmp_path / "out", **keys)
    rates = ("tokens_per_second", "trained_tokens_per_second")
    for before, after in zip(whole, again, strict=True):
        assert {k: v for k, v in before.items() if k not in rates} == {k: v for k, v in after.items() if k not in rates}


WAYS = {"flat": (), "padded": ("--padding_free=false",), "chunks": ("--loss_chunk_size=5",)}


def remove_checkpoints(output: Path, keep: int) -> None:
    """Leave only one checkpoint that a run can resume from."""
    for path in output.glob("checkpoint-*"):
        if path.name != f"checkpoint-{keep}":
            shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.parametrize("pack", [1, 3], ids=["flat", "packed"])
def test_two_processes_log_the_losses_of_one(tmp_path: Path, model_dir: Path, pack: int) -> None:
    write_shards(tmp_path / "shards", {"train": SEQUENCES, "validation": VALIDATION}, pack=pack)
    common = [f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in PLAIN.items()]
    common += [f"--model_name_or_path={model_dir}", f"--training_data_path={tmp_path / 'shards'}"]
    common += ["--per_device_train_batch_size=2", f"--gradient_accumulation_steps={3 // pack}", "--do_eval=true"]
    run_launches([Launch([*common, f"--output_dir={tmp_path / name}", *argv], 2) for name, argv in WAYS.items()])
    steps = [SEQUENCES[start : start + ROWS] for start in range(0, len(SEQUENCES), ROWS)]
    expected, weights = plain_run(model_dir, steps, RATE)
    for name in WAYS:
        assert_as_in_torch([event for event in events(tmp_path / name) if "loss" in event], expected)
        trained = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        for parameter, values in trained.named_parameters():
            torch.testing.assert_close(values.detach(), weights[parameter], rtol=1e-4, atol=2e-6)
        [evaluation] = [event for event in events(tmp_path / name) if "eval_loss" in event]
        with torch.no_grad():
            loss, entries = plain_loss(trained, VALIDATION)
        assert {key: evaluation[f"eval_{key}"] for key in entries} == pytest.approx(entries, rel=2e-6)
        assert evaluation["eval_loss"] == pytest.approx(float(loss), rel=2e-6)


@pytest.mark.parametrize("overflow", ["truncate", "truncate_left", "drop"])
def test_details_stay_with_their_tokens(tmp_path: Path, overflow: str) -> None:
    write_shards(tmp_path, {"train": SEQUENCES[:9]}, pack=3, files=1)
    rows = open_split(open_shards(str(tmp_path)), "train", 300, RowLimit(9, overflow), 1000, details=DETAIL_COLUMNS)
    known: dict[int, set[float]] = {}
    for each in SEQUENCES[:9]:
        for token, weight in zip(each.ids, each.weights, strict=True):
            known.setdefault(token, set()).add(weight)
    assert rows.weighted
    for group in range(len(rows.locations)):
        for number in range(rows.locations[group].rows):
            row = rows.row(group, number)
            assert row.details.parts is not None
            assert row.details.weights is not None
            assert len(row.details.parts) == len(row.details.weights) == len(row.input_ids.values)
            trained = row.labels.values != -100
            assert (row.details.weights[trained] > 0).all()
            assert not row.details.weights[~trained].any()
            for token, weight in zip(row.input_ids.values.tolist(), row.details.weights.tolist(), strict=True):
                assert weight in known[token]
            copied = row.copy().details
            assert copied.parts is not None
            assert copied.parts.tolist() == row.details.parts.tolist()


def changed(columns: dict[str, pa.Array], **new: pa.Array) -> pa.Table:
    return pa.table({**columns, **new})


BAD: dict[str, tuple[Callable[[], dict[str, pa.Array]], str]] = {
    "short": (lambda: {"loss_weights": pa.array([[1.0], [1.0]])}, r":1: \d+ input_ids and 1 loss_weights"),
    "negative": (lambda: weights_with(-1.0), ":2: loss_weights must be numbers of at least 0"),
    "nan": (lambda: weights_with(float("nan")), ":2: loss_weights must be numbers of at least 0"),
    "null": (lambda: {"loss_weights": pa.array([[1.0], None])}, ":2: loss_weights is null"),
    "text": (lambda: {"loss_weights": pa.array(["a", "b"])}, "column loss_weights must hold lists of numbers, not str"),
    "kind": (lambda: {"token_kinds": kinds_with(9)}, ":2: token_kinds has a number that is no kind of token"),
    "source": (lambda: {"source": pa.array([0, 3])}, ":2: source is not the number of one of the 3 sources"),
    "null source": (lambda: {"source": pa.array([0, None])}, ":2: source is null"),
    "lists": (lambda: {"source": pa.array([[0], [1, 1]])}, ":2: 1 sequences and 2 in source; there must be as many"),
    "words": (lambda: {"source": pa.array(["a", "b"])}, "column source must hold"),
}
TWO = [[each] for each in SEQUENCES[:2]]


def weights_with(value: float) -> dict[str, pa.Array]:
    return {"loss_weights": pa.array([[1.0] * len(TWO[0][0].ids), [value] * len(TWO[1][0].ids)])}


def kinds_with(value: int) -> pa.Array:
    return pa.array([TWO[0][0].kinds, [value, *TWO[1][0].kinds[1:]]])


@pytest.mark.parametrize("case", BAD)
def test_wrong_columns_are_named(tmp_path: Path, case: str) -> None:
    new, message = BAD[case]
    write_shards(tmp_path, {"train": SEQUENCES[:2]}, files=1)
    pq.write_table(changed(columns_of(TWO, packed=False), **new()), tmp_path / "train-00000.parquet")
    rows = open_split(open_shards(str(tmp_path)), "train", 300, None, 1000, details=DETAIL_COLUMNS)
    with pytest.raises(DataError, match=message):
        rows.group(0)


def test_a_file_without_a_column_of_the_first_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": SEQUENCES[:4]})
    path = tmp_path / "train-00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["loss_weights"]), path)
    rows = open_split(open_shards(str(tmp_path)), "train", 300, None, 1000, details=DETAIL_COLUMNS)
    with pytest.raises(DataError, match="no column loss_weights, which the first file"):
        rows.group(1)


def test_a_column_named_source_of_other_data_is_not_read(tmp_path: Path) -> None:
    columns = columns_of(TWO, packed=False)
    pq.write_table(changed(columns, source=pa.array(["web", "book"])), tmp_path / "train.parquet")
    rows = open_split(open_shards(str(tmp_path)), "train", 300, None, 1000, details=DETAIL_COLUMNS)
    assert rows.parts is not None
    assert rows.parts.sources == ()
    assert rows.group(0).details.weights is not None


def test_padding_of_other_tools_is_removed_from_weights_too(tmp_path: Path) -> None:
    columns = columns_of(TWO, packed=False)
    del columns["source"]
    mask = [[0, *[1] * (len(pack[0].ids) - 1)] for pack in TWO]
    pq.write_table(changed(columns, attention_mask=pa.array(mask)), tmp_path / "train.parquet")
    rows = open_split(open_shards(str(tmp_path)), "train", 300, None, 1000, details=DETAIL_COLUMNS)
    assert rows.row(0, 1).details.weights is not None
    assert rows.row(0, 1).details.weights.tolist() == pytest.approx(TWO[1][0].weights[1:])


def test_a_loss_without_a_way_for_weights_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shards(tmp_path / "weighted", {"train": SEQUENCES[:2]})
    write_shards(tmp_path / "plain", {"train": SEQUENCES[:2]}, without=["loss_weights"])
    liger: Any = SimpleNamespace(use_liger_kernel=True)
    weighted, plain = ([(open_shards(str(tmp_path / name)), "train")] for name in ("weighted", "plain"))
    with pytest.raises(ConfigError, match=r"use_liger_kernel: its loss takes no weights, and .*weighted has some"):
        used_details(TrainConfig(output_dir="out"), liger, weighted)
    assert used_details(TrainConfig(output_dir="out", loss_chunk_size=8), liger, weighted) == DETAIL_COLUMNS
    assert used_details(TrainConfig(output_dir="out"), liger, plain) == ()
    assert "is not divided by source and kind" in caplog.text
