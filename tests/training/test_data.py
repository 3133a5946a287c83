from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.errors import DataError, SftkitError, TrainingError
from sftkit.shards.reading import open_shards
from sftkit.training.data import PaddingCollator, RowLimit, load_split

Writer = Callable[..., None]


def test_rows_are_those_of_the_shards_in_order(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "train-00000-of-00002.parquet", [[1, 2, 3], [4, 5]], [[-100, 2, 3], [-100, 5]])
    write_rows(tmp_path / "train-00001-of-00002.parquet", [[6, 7, 8, 9]], [[-100, -100, 8, 9]])
    rows = load_split(open_shards(str(tmp_path)), "train", 10, None)
    assert len(rows) == 3
    assert [rows[i]["input_ids"].tolist() for i in range(3)] == [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    assert [rows[i]["labels"].tolist() for i in range(3)] == [[-100, 2, 3], [-100, 5], [-100, -100, 8, 9]]
    assert rows.input_ids.values.dtype == np.int32
    with pytest.raises(IndexError):
        rows[3]


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.uint16())])
def test_other_tools_integer_lists_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    labels = pa.array([[-100, 2]], pa.list_(pa.int64()))
    pq.write_table(pa.table({"input_ids": pa.array([[1, 2]], kind), "labels": labels}), tmp_path / "x.parquet")
    rows = load_split(open_shards(str(tmp_path / "x.parquet")), "train", 10, None)
    assert rows[0]["input_ids"].tolist() == [1, 2]


def test_a_batch_is_padded_to_a_multiple_of_eight() -> None:
    collate = PaddingCollator(pad_token_id=9)

    def item(ids: list[int], labels: list[int]) -> dict[str, Any]:
        return {"input_ids": np.array(ids, np.int32), "labels": np.array(labels, np.int32)}

    batch = collate([item([1, 2, 3], [-100, 2, 3]), item([4], [4])])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9, 9, 9, 9, 9], [4, 9, 9, 9, 9, 9, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3] + [-100] * 5, [4] + [-100] * 7]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert {str(tensor.dtype) for tensor in batch.values()} == {"torch.int64"}
    assert collate([item(range(9), range(9))])["input_ids"].shape == (1, 16)


def test_rows_without_a_loss_are_left_out_and_counted(
    tmp_path: Path, write_rows: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    # The label of position 0 is predicted from nothing: the second row has nothing to learn either.
    write_rows(tmp_path / "a.parquet", [[1, 2], [3, 4], [5, 6]], [[-100, 2], [3, -100], [-100, -100]])
    rows = load_split(open_shards(str(tmp_path)), "train", 10, None)
    assert [rows[i]["input_ids"].tolist() for i in range(len(rows))] == [[1, 2]]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: 2 of 3 train rows carry no loss and are left out"
    ]


@pytest.mark.parametrize(("overflow", "kept"), [("truncate", [[1, 2, 3], [4, 5, 6]]), ("drop", [[1, 2, 3]])])
def test_longer_rows_are_cut_or_dropped(tmp_path: Path, write_rows: Writer, overflow: str, kept: list[int]) -> None:
    write_rows(tmp_path / "a.parquet", [[1, 2, 3], [4, 5, 6, 7]], [[-100, 2, 3], [-100, 5, 6, 7]])
    rows = load_split(open_shards(str(tmp_path)), "train", 10, RowLimit(3, overflow))
    assert [rows[i]["input_ids"].tolist() for i in range(len(rows))] == kept


def test_longer_rows_are_an_error_when_asked(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "a.parquet", [[1, 2, 3]], [[1, 2, 3]])
    with pytest.raises(DataError, match="1 of 1 rows are longer than max_seq_length=2"):
        load_split(open_shards(str(tmp_path)), "train", 10, RowLimit(2, "error"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["a"]}, "no column input_ids and no column labels (there is: text)"),
        ({"input_ids": [[1]]}, "no column labels (there is: input_ids)"),
        ({"input_ids": [[1, 2], None], "labels": [[1, 2], [1]]}, "a.parquet:2: input_ids is null"),
        ({"input_ids": [[1, 2], [3]], "labels": [[1, 2], [3, 4]]}, "a.parquet:2: 1 input_ids but 2 labels"),
        ({"input_ids": [[1, 2], [3, 12]], "labels": [[1, 2], [3, 1]]},
         "a.parquet:2: token id 12 is not one of the model's 10"),
        ({"input_ids": [[1, -1]], "labels": [[1, 2]]}, "a.parquet:1: token id -1"),
        ({"input_ids": [[1, 2]], "labels": [[-100, 11]]}, "a.parquet:1: token id 11"),
        ({"input_ids": [1], "labels": [[1]]}, "column input_ids must hold lists of token ids, not int64"),
        ({"input_ids": [["a"]], "labels": [[1]]}, "column input_ids must hold lists of token ids"),
        ({"input_ids": [[1, None]], "labels": [[1, 2]]}, "input_ids holds a null"),
        ({"input_ids": [[1, 2]], "labels": [[-100, -100]]}, "no row of the train split has a token that carries a"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, columns: dict[str, object], said: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(SftkitError) as raised:
        load_split(open_shards(str(tmp_path)), "train", 10, None)
    assert said in str(raised.value)
    assert isinstance(raised.value, DataError | TrainingError)


def test_an_empty_or_missing_split_is_refused(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "a.parquet", [], [])
    shards = open_shards(str(tmp_path))
    with pytest.raises(TrainingError, match="the train split has no rows"):
        load_split(shards, "train", 10, None)
    with pytest.raises(TrainingError, match=r"there is no validation split \(there is: train\)"):
        load_split(shards, "validation", 10, None)
