"""Rows that come with their tokens: padding, loss masks, and columns that contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.core.rows import Row
from support import dataset, preprocess, write_jsonl, written

IDS = [5, 6, 7, 8, 9]


def source(folder: Path, rows: list[Row], kind: str) -> Path:
    if kind == "jsonl":
        return write_jsonl(folder / "in.jsonl", rows)
    path = folder / "in.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def made(folder: Path, rows: list[Row], kind: str, **options: Any) -> list[Row]:
    preprocess(folder / "out", dataset(source(folder, rows, kind)), **options)
    return written(folder / "out")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("columns", "ids", "labels"),
    [
        ({"labels": IDS, "attention_mask": [0, 0, 1, 1, 1]}, [7, 8, 9], [7, 8, 9]),
        ({"labels": [-100, -100, 7, 8, -100], "attention_mask": [1, 1, 1, 1, 0]}, [5, 6, 7, 8], [-100, -100, 7, 8]),
        ({"labels": IDS, "attention_mask": [1] * 5}, IDS, IDS),
        ({"completion_mask": [0, 0, 0, 1, 1]}, IDS, [-100, -100, -100, 8, 9]),
        ({"assistant_masks": [0, 1, 0, 1, 0]}, IDS, [-100, 6, -100, 8, -100]),
        ({"assistant_mask": [False, True, False, False, True]}, IDS, [-100, 6, -100, -100, 9]),
        ({"completion_mask": [0, 0, 1, 1, 1], "assistant_masks": [0, 1, 1, 0, 1]}, IDS, [-100, -100, 7, -100, 9]),
        ({"completion_mask": [0, 1, 1, 1, 1], "attention_mask": [0, 1, 1, 1, 1]}, [6, 7, 8, 9], [6, 7, 8, 9]),
        ({"completion_mask": [0, 1, 1, 1, 1], "labels": [-100, 6, 7, 8, 9]}, IDS, [-100, 6, 7, 8, 9]),
        ({"completion_mask": [1, 1, 1, 1, 1], "labels": [-100, 6, 7, 8, 9]}, IDS, [-100, 6, 7, 8, 9]),
        ({"completion_mask": [0, 0, 1, 1, 1], "attention_mask": None}, IDS, [-100, -100, 7, 8, 9]),
        ({"loss_mask": [0, 0, 1, 1, 1]}, IDS, [-100, -100, 7, 8, 9]),
        ({"labels": IDS, "loss_mask": [0, 0, 0, 1, 1]}, IDS, [-100, -100, -100, 8, 9]),
        ({"labels": IDS, "position_ids": [0, 1, 2, 3, 4]}, IDS, IDS),
    ],
)
def test_padding_is_removed_and_masks_become_labels(
    tmp_path: Path, kind: str, columns: Row, ids: list[int], labels: list[int]
) -> None:
    assert made(tmp_path, [{"input_ids": IDS, **columns}], kind) == [{"input_ids": ids, "labels": labels}]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_with_and_without_masks_can_be_mixed(tmp_path: Path, kind: str) -> None:
    nothing = {"completion_mask": None, "assistant_masks": None}
    rows = [
        {"input_ids": IDS, **nothing, "completion_mask": [0, 0, 0, 0, 1]},
        {"input_ids": IDS, **nothing, "assistant_masks": [0, 0, 0, 1, 1]},
        {"input_ids": IDS, **nothing, "completion_mask": [0, 0, 1, 1, 1]},
        {"input_ids": IDS, **nothing},
    ]
    preprocess(tmp_path / "out", dataset(source(tmp_path, rows, kind)), max_bad_rows=1)
    assert [row["labels"] for row in written(tmp_path / "out")] == [
        [-100, -100, -100, -100, 9],
        [-100, -100, -100, 8, 9],
        [-100, -100, 7, 8, 9],
    ]


def test_a_row_that_is_padding_only_is_dropped(tmp_path: Path) -> None:
    padding = {"input_ids": IDS, "labels": IDS, "attention_mask": [0] * 5}
    rows = made(tmp_path, [padding, {"input_ids": IDS, "labels": IDS, "attention_mask": [1] * 5}], "jsonl")
    assert rows == [{"input_ids": IDS, "labels": IDS}]


def test_masks_can_be_retained_and_survive_retained_columns(tmp_path: Path) -> None:
    row = {"input_ids": IDS, "completion_mask": [0, 0, 1, 1, 1], "id": 3, "other": 4}
    path = write_jsonl(tmp_path / "in.jsonl", [row])
    preprocess(tmp_path / "out", dataset(path, retain_columns=("id",)))
    assert written(tmp_path / "out") == [{"input_ids": IDS, "labels": [-100, -100, 7, 8, 9], "id": 3}]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"labels": IDS, "attention_mask": [1] * 4}, "input_ids and attention_mask differ in length (5 and 4)"),
        ({"completion_mask": [1] * 6}, "input_ids and completion_mask differ in length (5 and 6)"),
        ({"assistant_masks": [0, 1, 2, 1, 1]}, "column 'assistant_masks' must be a list of zeros and ones"),
        (
            {"labels": IDS, "attention_mask": [1, 1, 2, 2, 0]},
            "column 'attention_mask' must be a list of zeros and ones",
        ),
        (
            {"labels": IDS, "position_ids": [0, 1, 0, 1, 2]},
            "position_ids start again from 0: the row is a pack of several sequences, which cannot be processed again; "
            "use the rows that it was packed from, or give the file to `train`",
        ),
        (
            {"labels": [-100, 7, 8, 9, 10]},
            "its labels are shifted already (each is the next token); the label of a token must be the token itself, "
            "because the loss shifts them",
        ),
        ({"completion_mask": 1}, "column 'completion_mask' must be a list of zeros and ones"),
        (
            {"labels": [-100, -100, 7, 8, 9], "completion_mask": [0, 0, 0, 1, 1]},
            "labels and completion_mask train different tokens; remove the column that is wrong",
        ),
        (
            {"labels": [-100, -100, *IDS[2:]], "completion_mask": [1] * 5, "assistant_masks": [0, 0, 0, 1, 1]},
            "labels and completion_mask and assistant_masks train different tokens; remove the column that is wrong",
        ),
    ],
)
def test_columns_that_contradict_each_other_quarantine_the_row(
    tmp_path: Path, kind: str, columns: Row, reason: str
) -> None:
    path = source(tmp_path, [{"input_ids": IDS, **columns}], kind)
    good = write_jsonl(tmp_path / "good.jsonl", [{"input_ids": IDS, "labels": IDS}])
    preprocess(tmp_path / "out", dataset(good, path), max_bad_rows=1)
    assert written(tmp_path / "out") == [{"input_ids": IDS, "labels": IDS}]
    [entry] = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert (entry["path"], entry["row"], entry["reason"]) == (str(path), 1, reason)
