"""Training on Parquet of other tools: padding, numbered packs, loss masks, and shifted labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.core.rows import Row
from sftkit.errors import DataError
from sftkit.shards.reading import open_shards
from sftkit.training.data.rows.open_split import open_split

IDS = [5, 6, 7, 8, 9]
LABELS = [-100, -100, 7, 8, 9]


def sequences(folder: Path, rows: Sequence[Row]) -> list[list[tuple[list[int], list[int]]]]:
    """The sequences of each row as training reads them: ids and labels."""
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "train-00000.parquet")
    split = open_split(open_shards(str(folder)), "train", 50, None, 1000)
    found = []
    for number in range(len(rows)):
        row = split.row(0, number)
        found.append([(row.input_ids[i].tolist(), row.labels[i].tolist()) for i in range(len(row.input_ids))])
    return found


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, [(IDS, LABELS)]),
        ({"attention_mask": [1, 1, 1, 1, 1]}, [(IDS, LABELS)]),
        ({"attention_mask": [0, 0, 1, 1, 1]}, [([7, 8, 9], [7, 8, 9])]),
        ({"attention_mask": [0, 1, 1, 1, 0]}, [([6, 7, 8], [-100, 7, 8])]),
        ({"attention_mask": [1, 1, 2, 2, 0]}, [([7, 8], [7, 8])]),  # the first sequence has no trained token
        ({"attention_mask": [1, 1, 1, 2, 2]}, [([5, 6, 7], [-100, -100, 7]), ([8, 9], [8, 9])]),
        ({"position_ids": [0, 1, 2, 3, 4]}, [(IDS, LABELS)]),
        ({"position_ids": [0, 1, 2, 0, 1]}, [([5, 6, 7], [-100, -100, 7]), ([8, 9], [8, 9])]),
        ({"position_ids": [1, 0, 1, 0, 1], "attention_mask": [0, 1, 1, 1, 1]}, [([6, 7], [-100, 7]), ([8, 9], [8, 9])]),
        ({"loss_mask": [0, 0, 1, 1, 1]}, [(IDS, LABELS)]),
        ({"labels": IDS, "loss_mask": [0, 0, 1, 1, 1]}, [(IDS, LABELS)]),
        ({"labels": IDS, "assistant_masks": [0, 0, 1, 1, 1]}, [(IDS, LABELS)]),
        ({"labels": IDS, "completion_mask": [0, 0, 1, 1, 1], "attention_mask": [1, 1, 1, 1, 0]},
         [([5, 6, 7, 8], [-100, -100, 7, 8])]),
    ],
)  # fmt: skip
def test_columns_about_tokens_are_understood(
    tmp_path: Path, row: Row, expected: list[tuple[list[int], list[int]]]
) -> None:
    assert sequences(tmp_path, [{"input_ids": IDS, "labels": LABELS, **row}]) == [expected]


def test_padding_may_have_ids_that_are_no_tokens(tmp_path: Path) -> None:
    row = {"input_ids": [99, 7, 8], "labels": [99, 7, 8], "attention_mask": [0, 1, 1]}
    assert sequences(tmp_path, [row]) == [[([7, 8], [7, 8])]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"labels": [6, 7, 8, 9, 10]}, "its labels are shifted already (each is the next token)"),
        ({"labels": [-100, 7, 8, 9, -100]}, "its labels are shifted already (each is the next token)"),
        ({"loss_mask": [0, 0, 0, 1, 1]}, "labels and loss_mask train different tokens"),
        ({"assistant_masks": [0, 1, 1, 1, 1]}, "labels and assistant_masks train different tokens"),
        ({"position_ids": [0, 1, 3, 4, 5]}, "position_ids must count from 0 in each sequence, without gaps"),
        ({"position_ids": [0, 1, 0, 1, 2], "attention_mask": [1, 1, 1, 2, 2]},
         "attention_mask and position_ids tell different sequences"),
        ({"attention_mask": [1, 1]}, "5 input_ids and 2 attention_mask; there must be as many of each"),
        ({"attention_mask": [1, 1, -1, 1, 1]}, "attention_mask has a number below 0"),
    ],
)  # fmt: skip
def test_columns_that_contradict_each_other_are_refused(tmp_path: Path, row: Row, reason: str) -> None:
    good = {"input_ids": IDS, "labels": LABELS, **dict.fromkeys(row)}
    good |= {
        name: {"position_ids": [0, 1, 2, 3, 4], "attention_mask": [1] * 5}.get(name, [0, 0, 1, 1, 1]) for name in row
    }
    good["labels"] = LABELS
    with pytest.raises(DataError) as raised:
        sequences(tmp_path, [good, {"input_ids": IDS, "labels": LABELS, **row}])
    assert str(raised.value).startswith(f"{tmp_path / 'train-00000.parquet'}:2: {reason}")
