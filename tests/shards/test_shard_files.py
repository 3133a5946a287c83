"""Staged units, the shards that are written from them in any order, and reading shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Ragged, Row
from sftkit.errors import DataError, SourceError
from sftkit.shards.formats.parquet_shards import write_shard
from sftkit.shards.manifest import length_histogram
from sftkit.shards.reading import open_shards
from sftkit.shards.retained_columns import unify_schemas
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.shards.writing.row_gatherer import SequenceSelection
from sftkit.shards.writing.shard_format import ShardPlace
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.shards.writing.shard_writer import ShardTask


def batch(ids: list[list[int]], extras: list[Row]) -> Batch:
    labels = [[-100, *row[1:]] if row else [] for row in ids]
    tokens = {"input_ids": Ragged.from_lists(ids), "labels": Ragged.from_lists(labels)}
    return Batch(extras, np.arange(1, len(ids) + 1), tokens)


def stage(folder: Path, number: int, *batches: Batch, text_column: str | None = None) -> StagedUnit:
    with UnitWriter(folder / f"{number}.arrow") as writer:
        for each in batches:
            writer.write(each, text_column, RowLog())
    return writer.finish(number, RowLog(), {}, {})


def write_and_read(folder: Path, units: list[StagedUnit], order: list[int]) -> list[Row]:
    layout = ShardLayout(
        unit_paths=tuple(unit.path for unit in units),
        unit_rows=tuple(unit.rows for unit in units),
        token_columns=("input_ids", "labels") if units[0].text_column is None else (),
        text_column=units[0].text_column,
        retained=unify_schemas([unit.retained for unit in units]),
    )
    sizes = np.concatenate([unit.sizes for unit in units])[order]
    path = folder / "shard.parquet"
    place = ShardPlace(folder, "train", path.stem)
    info = write_shard(layout, ShardTask(place, SequenceSelection(np.array(order, np.int64), sizes)))
    rows: list[Row] = pq.read_table(path).to_pylist()
    assert (info.rows, info.bytes) == (len(rows), path.stat().st_size)
    if units[0].text_column is None:
        assert info.tokens == sum(len(row["input_ids"]) for row in rows)
        assert info.trained_tokens == sum(label != -100 for row in rows for label in row["labels"])
    return rows


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    units=st.lists(
        st.lists(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=4), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
)
def test_shards_hold_rows_of_all_units_in_any_order_with_repetition(
    tmp_path_factory: pytest.TempPathFactory, units: list[list[list[list[int]]]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("staged")
    rows = [ids for batches in units for ids_of_batch in batches for ids in ids_of_batch]
    staged, at = [], 0
    for number, batches in enumerate(units):
        made = []
        for ids in batches:
            made.append(batch(ids, [{"at": at + i} for i in range(len(ids))]))
            at += len(ids)
        staged.append(stage(folder, number, *made))
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=12))
    expected = [{"input_ids": rows[i], "labels": [-100, *rows[i][1:]] if rows[i] else [], "at": i} for i in order]
    assert write_and_read(folder, staged, order) == expected


def test_retained_columns_are_null_in_units_that_lack_them(tmp_path: Path) -> None:
    units = [
        stage(tmp_path, 0, batch([[1, 2]], [{"a": 1}])),
        stage(tmp_path, 1, batch([[3, 4]], [{"b": [{"c": "x"}]}])),
    ]
    assert [(row["a"], row["b"]) for row in write_and_read(tmp_path, units, [1, 0])] == [
        (None, [{"c": "x"}]),
        (1, None),
    ]


def test_rows_of_text_keep_their_retained_columns(tmp_path: Path) -> None:
    texts = Batch([{"t": "ab", "n": 1}, {"t": "", "n": None}, {"t": "你好", "n": 3}], np.array([1, 2, 3]))
    unit = stage(tmp_path, 0, texts, text_column="t")
    assert unit.sizes.tolist() == [2, 0, 2]
    assert unit.trained.tolist() == [0, 0, 0]
    assert write_and_read(tmp_path, [unit], [2, 1]) == [{"t": "你好", "n": 3}, {"t": "", "n": None}]


def test_row_groups_are_sized_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftkit.shards.writing.shard_writer.ROW_GROUP_BYTES", 8 * 10)  # 10 tokens
    unit = stage(tmp_path, 0, batch([[1] * 4] * 5 + [[1] * 25] + [[1] * 4], [{}] * 7))
    write_and_read(tmp_path, [unit], list(range(7)))
    metadata = pq.ParquetFile(tmp_path / "shard.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 2, 1, 1, 1]


def test_failed_unit_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="retain_columns: column 'a' holds values of different types"):
        stage(tmp_path, 0, batch([[1]], [{}]), batch([[1], [2]], [{"a": "x"}, {"a": 1}]))
    assert list(tmp_path.iterdir()) == []


def test_unit_without_rows_has_no_file(tmp_path: Path) -> None:
    unit = stage(tmp_path, 0)
    assert (unit.rows, unit.path.exists()) == (0, False)


def test_length_histogram_buckets_double_in_size() -> None:
    lengths = np.array([0, 1, 2, 3, 4, 7, 8, 1023, 1024, 5])
    assert length_histogram(lengths) == {"0": 1, "1": 1, "2": 2, "4": 3, "8": 1, "512": 1, "1024": 1}
    assert length_histogram(np.array([], np.int64)) == {}


# --- Reading ------------------------------------------------------------------------------------------


def test_splits_of_any_parquet_directory_follow_from_its_file_names(tmp_path: Path) -> None:
    names = ["train-1.parquet", "train-0.parquet", "data/test/x.parquet", ".hidden/y.parquet", "more.parquet"]
    for value, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"input_ids": [[value]]}), tmp_path / name)
    shards = open_shards(str(tmp_path))
    found = {
        split: [row for _, table in shards.tables(split) for row in table["input_ids"].to_pylist()]
        for split in shards.splits
    }
    assert found == {"train": [[4], [1], [0]], "validation": [[2]]}
    assert shards.column_names("train") == ["input_ids"]
    one = open_shards(str(tmp_path / "more.parquet"))
    assert one.splits == {"train": (tmp_path / "more.parquet",)}


def test_location_without_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such directory or file of shards"):
        open_shards(str(tmp_path / "nothing"))
    with pytest.raises(SourceError, match="no files of shards in this directory"):
        open_shards(str(tmp_path))
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(SourceError, match=r"x\.parquet: cannot be read as Parquet: "):
        list(open_shards(str(tmp_path)).tables("train"))
