from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.errors import SourceError
from sftkit.inspection.summary.dataset_summary import ShardSummary
from sftkit.inspection.summary.lengths import LengthCounter
from sftkit.inspection.summary.summarize import summarize
from sftkit.shards.reading import ShardSet, open_shards

from .conftest import Writer, manifest_for


def test_splits_and_shards_are_counted(shard_dir: Path) -> None:
    summary = summarize(open_shards(str(shard_dir)))
    train, validation = summary.splits
    assert (train.name, train.rows, train.tokens, train.trained_tokens, train.trained_share) == (
        "train",
        5,
        50,
        30,
        0.6,
    )
    assert train.shards[1] == ShardSummary("train-00001-of-00002.parquet", 2, 20, 12, None)
    assert (validation.rows, validation.tokens) == (1, 10)
    assert train.lengths is not None
    assert train.lengths.histogram == {"8": 5}
    assert summary.columns == ("input_ids", "labels")
    assert summary.origin is None
    assert summary.notes == ()


def test_length_statistics() -> None:
    counter = LengthCounter()
    counter.add(np.arange(1, 51))
    counter.add(np.arange(51, 101))
    lengths = counter.result()
    assert lengths is not None
    assert (lengths.min, lengths.mean, lengths.median, lengths.p95, lengths.max) == (1, 50.5, 50.5, 95, 100)
    assert lengths.histogram == {"1": 1, "2": 2, "4": 4, "8": 8, "16": 16, "32": 32, "64": 37}


@pytest.mark.parametrize("element", [pa.int64(), pa.uint16(), pa.int32()])
@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
def test_any_list_of_integers_is_read(tmp_path: Path, write: Writer, make: object, element: pa.DataType) -> None:
    path = write(tmp_path / "a.parquet", make(element), 1, input_ids=[[1, 2, 3], [4], []])
    (train,) = summarize(open_shards(str(path))).splits
    assert (train.rows, train.tokens, train.trained_tokens) == (3, 4, None)


def test_fixed_size_lists_and_null_rows_are_read(tmp_path: Path) -> None:
    ids = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))
    pq.write_table(pa.table({"input_ids": ids}), tmp_path / "a.parquet")
    (train,) = summarize(open_shards(str(tmp_path))).splits
    assert (train.rows, train.tokens) == (3, 4)


def test_masks_of_trl_are_used_when_there_are_no_labels(tmp_path: Path, write: Writer) -> None:
    path = write(
        tmp_path / "a.parquet",
        input_ids=[[1, 2, 3, 4]],
        completion_mask=[[0, 0, 1, 1]],
        assistant_masks=[[0, 1, 1, 0]],
    )
    summary = summarize(open_shards(str(path)))
    assert summary.supervision == ("completion_mask", "assistant_masks")
    assert summary.splits[0].trained_tokens == 1


def test_columns_of_fms_hf_tuning_are_read(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[[1, 2, 3]], labels=[[-100, 2, 3]], attention_mask=[[1, 1, 1]])
    assert summarize(open_shards(str(path))).splits[0].trained_tokens == 2


def test_padding_of_packs_by_position_is_left_out_beside_weights(tmp_path: Path, write: Writer) -> None:
    path = write(
        tmp_path / "a.parquet",
        input_ids=[[1, 2, 3, 0, 0]],
        labels=[[-100, 2, 3, -100, -100]],
        loss_weights=[[0.0, 0.5, 1.0, 0.0, 0.0]],
        position_ids=[[0, 1, 0, 0, 0]],
        attention_mask=[[1, 1, 2, 0, 0]],
    )
    (split,) = summarize(open_shards(str(path))).splits
    assert (split.tokens, split.trained_tokens) == (3, 2)


def test_missing_labels_are_noted(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[[1, 2]])
    assert summarize(open_shards(str(path))).notes == ("there are no labels: which tokens carry a loss is unknown",)


def test_wrong_labels_are_counted(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[[1, 2, 3], [4, 5]], labels=[[-100, 9, 3], [4]])
    summary = summarize(open_shards(str(path)))
    assert (summary.splits[0].wrong_labels, summary.splits[0].misfit_rows) == (1, 1)
    assert summary.splits[0].trained_tokens == 3
    assert summary.notes == (
        "train: 1 tokens carry a label that differs from their id",
        "train: in 1 rows labels and input_ids differ in length",
    )


def test_text_is_counted_in_characters(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", text=["héllo", "你好", None])
    summary = summarize(open_shards(str(path)))
    assert summary.text_column == "text"
    assert (summary.splits[0].characters, summary.splits[0].tokens) == (7, None)
    assert summarize(open_shards(str(write(tmp_path / "b.parquet", body=["ab"]))), "body").splits[0].characters == 2


def test_files_without_tokens_or_text_are_an_error_that_names_their_columns(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", prompt=["a"], n=[1])
    message = (
        f"{path}: has no column 'input_ids' and no text column 'text' (set dataset_text_field to use another); "
        "columns there: prompt, n"
    )
    with pytest.raises(SourceError) as error:
        summarize(open_shards(str(path)))
    assert str(error.value) == message


def test_no_rows_is_an_error_that_names_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"input_ids": pa.array([], pa.list_(pa.int32()))}), path)
    with pytest.raises(SourceError, match=r"holds no rows; columns there: input_ids$"):
        summarize(open_shards(str(path)))


@pytest.mark.parametrize("values", [[1, 2], [["a"]], [[1.5]]])
def test_input_ids_of_another_type_are_an_error(tmp_path: Path, values: list[object]) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"input_ids": values}), path)
    with pytest.raises(SourceError, match=r"column 'input_ids' must hold lists of integers, not "):
        summarize(open_shards(str(path)))


def test_numbers_beyond_32_bits_are_an_error(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", pa.list_(pa.int64()), input_ids=[[2**40]])
    with pytest.raises(SourceError, match="column 'input_ids' holds numbers that cannot be token ids"):
        summarize(open_shards(str(path)))


def test_manifest_is_included_and_compared(shard_dir: Path) -> None:
    found = open_shards(str(shard_dir))
    files = {
        "train": [("train-00000-of-00002.parquet", 3, 30, 18), ("train-00001-of-00002.parquet", 2, 20, 13)],
        "validation": [("validation-00000-of-00001.parquet", 1, 10, 6)],
    }
    summary = summarize(ShardSet(found.root, found.splits, manifest_for(files, "x", "y")))
    assert summary.origin is not None
    assert summary.origin.dropped == {"no trained token": 2}
    assert summary.notes == (
        "train-00001-of-00002.parquet does not match the manifest: (rows, tokens, trained tokens) are (2, 20, 12), "
        "the manifest says (2, 20, 13)",
    )
