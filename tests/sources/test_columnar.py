from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.errors import SourceError
from sftkit.rows import RowLog
from sftkit.sources.finding import find_sources
from sftkit.sources.units import read_unit, scan_files
from support import dataset, read, rows

TOOLS = [
    {"name": "add", "parameters": {"a": {"type": "number"}, "b": {"type": "number"}}},
    {"name": "say", "parameters": {"text": {"type": "string", "enum": ["hi", "ho"]}}},
]


def arrow_file(path: Path, table: pa.Table, rows_in_batch: int) -> Path:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, rows_in_batch)
    return path


def arrow_stream(path: Path, table: pa.Table, rows_in_batch: int) -> Path:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, rows_in_batch)
    return path


def first_batch_tokens(path: Path) -> dict[str, Any]:
    [file] = scan_files(find_sources(dataset(path)), 1)
    return dict(next(iter(read_unit(file.units[0], RowLog()))).tokens)


def test_row_groups_become_units_of_at_least_unit_size_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": list(range(100))}), path, row_group_size=10)
    group = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    [one_each] = scan_files(find_sources(dataset(path)), 1)
    assert [(u.part.start, u.part.stop, u.part.first_number) for u in one_each.units] == [
        (i, i + 1, 10 * i + 1) for i in range(10)
    ]
    [three_each] = scan_files(find_sources(dataset(path)), 2 * group + 1)
    assert [(u.part.start, u.part.stop, u.part.first_number) for u in three_each.units] == [
        (0, 3, 1),
        (3, 6, 31),
        (6, 9, 61),
        (9, 10, 91),
    ]


@pytest.mark.parametrize("unit_size", [1, 500, 8 << 20])
@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_rows_and_numbers_do_not_depend_on_the_size_of_units(tmp_path: Path, kind: str, unit_size: int) -> None:
    content = [{"x": i, "text": f"row {i}"} for i in range(2500)]
    table = pa.Table.from_pylist(content)
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(table, path, row_group_size=7 if unit_size > 1 else 300)
    else:
        path = (arrow_file if kind == "file" else arrow_stream)(tmp_path / "a.arrow", table, 1500)
    found, log = read(path, unit_size=unit_size)
    assert found == list(enumerate(content, 1))
    assert log.bad == []


def test_null_fields_that_arrow_plants_in_structs_are_taken_out_and_null_columns_stay(tmp_path: Path) -> None:
    content = [{"tools": [TOOLS[0]], "note": None, "n": 1}, {"tools": [TOOLS[1]], "note": "x", "n": None}]
    table = pa.Table.from_pylist(content)
    planted = table.to_pylist()
    assert planted[0]["tools"][0]["parameters"]["text"] is None  # what Arrow makes of it
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == content
    assert rows(arrow_stream(tmp_path / "a.arrow", table, 1)) == content


def test_nulls_in_lists_stay(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [[1.5, None], None, []]}), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == [{"x": [1.5, None]}, {"x": None}, {"x": []}]


def test_arrow_maps_become_objects(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([[("a", 1), ("b", 2)], []], pa.map_(pa.string(), pa.int64()))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == [{"x": {"a": 1, "b": 2}}, {"x": []}]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int32()),
        pa.list_(pa.int64()),
        pa.list_(pa.int8()),
        pa.list_(pa.uint16()),
        pa.large_list(pa.int64()),
        pa.list_(pa.int64(), 2),
    ],
    ids=str,
)
def test_token_columns_stay_flat_arrays_whatever_list_they_are(tmp_path: Path, kind: pa.DataType) -> None:
    ids = [[1, 2], [3, 4], [5, 6], [7, 8]]
    chunked = pa.chunked_array([pa.array(ids[:1], kind), pa.array(ids, kind).slice(1)])
    path = arrow_file(tmp_path / "a.arrow", pa.table({"input_ids": chunked, "x": list("abcd")}), 10)
    tokens = first_batch_tokens(path)
    assert list(tokens) == ["input_ids"]
    assert tokens["input_ids"].values.dtype == np.int32
    assert rows(path) == [{"x": x, "input_ids": row} for x, row in zip("abcd", ids, strict=True)]


def test_rows_of_token_columns_only_are_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"input_ids": [[1], [], [2, 3]], "labels": [[-100], [], [2, 3]]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == [
        (1, {"input_ids": [1], "labels": [-100]}),
        (2, {"input_ids": [], "labels": []}),
        (3, {"input_ids": [2, 3], "labels": [2, 3]}),
    ]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], None]),
        pa.array([[1, None], [2]]),
        pa.array([[1, 2**31], [2]]),
        pa.array(["1 2", "3"]),
        pa.array([[1.0], [2.0]]),
    ],
    ids=["null row", "null id", "more than 32 bits", "text", "floats"],
)
def test_token_columns_that_are_no_lists_of_ids_are_left_as_they_are(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"input_ids": column}), tmp_path / "a.parquet")
    assert first_batch_tokens(tmp_path / "a.parquet") == {}
    assert rows(tmp_path / "a.parquet") == [{"input_ids": value} for value in column.to_pylist()]


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.parquet", b"PAR1 nothing", "Parquet"),
        ("a.arrow", b"ARROW1\0\0 nothing", "Arrow"),
        ("b.arrow", b"x", "Arrow"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_an_error(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"{name}: cannot be read as {kind}: "):
        read(tmp_path / name)


def test_a_parquet_file_with_broken_pages_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [f"text {i}" for i in range(5000)]}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[100:3000] = bytes(2900)
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match=rf"^{path}: "):
        read(path)


def test_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    broken = pa.array([b"fine", b"\xff\xfe"])
    text = pa.Array.from_buffers(pa.string(), 2, broken.buffers())
    pq.write_table(pa.table({"x": text}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: a text column holds invalid UTF-8"):
        read(tmp_path / "a.parquet")


def test_a_table_without_rows_holds_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == []


def test_a_folder_of_save_to_disk_is_read_and_so_are_both_splits_of_a_dataset_dict(tmp_path: Path) -> None:
    import datasets

    train = datasets.Dataset.from_list([{"x": i} for i in range(10)])
    test = datasets.Dataset.from_list([{"x": -1}])
    train.save_to_disk(str(tmp_path / "one"), num_shards=3)
    assert rows(tmp_path / "one") == [{"x": i} for i in range(10)]
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "both"))
    assert rows(tmp_path / "both") == [{"x": i} for i in range(10)]
    assert rows(tmp_path / "both", dataset_split_name="test") == [{"x": -1}]


def test_files_that_datasets_caches_beside_a_saved_dataset_are_no_part_of_it(tmp_path: Path) -> None:
    import datasets

    saved = datasets.DatasetDict({"train": datasets.Dataset.from_list([{"x": 1}, {"x": 2}])})
    saved.save_to_disk(str(tmp_path / "saved"))
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    loaded["train"].map(lambda row: {"x": row["x"] + 100}, load_from_cache_file=False)
    assert list((tmp_path / "saved" / "train").glob("cache-*.arrow"))
    assert rows(tmp_path / "saved") == [{"x": 1}, {"x": 2}]
