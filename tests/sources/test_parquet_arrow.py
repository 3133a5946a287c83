from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftkit.core.row_log import RowLog
from sftkit.errors import SourceError
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.formats.arrow_rows import to_batches
from sftkit.sources.source_file import ReadLimits
from sftkit.sources.source_format import BATCH_BYTES
from sftkit.sources.work_units import read_unit, scan_files
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
    [file] = scan_files(find_source_files(dataset(path)), 1 << 20)
    return dict(next(iter(read_unit(file.units[0], RowLog()))).tokens)


def parts(path: Path, unit_size: int) -> list[tuple[int, int, int, int, int | None]]:
    [file] = scan_files(find_source_files(dataset(path)), unit_size)
    return [(p.start, p.stop, p.first_number, p.skip, p.rows) for unit in file.units for p in [unit.parts[0].part]]


def test_small_row_groups_become_units_of_at_least_unit_size_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": list(range(100))}), path, row_group_size=10)
    group = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    assert parts(path, group) == [(i, i + 1, 10 * i + 1, 0, None) for i in range(10)]
    assert parts(path, 2 * group + 1) == [
        (0, 3, 1, 0, None),
        (3, 6, 31, 0, None),
        (6, 9, 61, 0, None),
        (9, 10, 91, 0, None),
    ]


def test_a_large_row_group_is_divided_into_several_units(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    text = [os.urandom(400).hex() for _ in range(1006)]
    with pq.ParquetWriter(path, pa.schema({"x": pa.string()}), use_dictionary=False) as writer:
        for rows_of_group in (text[:3], text[3:1003], text[1003:]):
            writer.write_table(pa.table({"x": rows_of_group}), 2000)
    size = pq.ParquetFile(path).metadata.row_group(1).total_byte_size
    assert parts(path, size) == [(0, 2, 1, 0, None), (2, 3, 1004, 0, None)]
    assert parts(path, size // 3) == [
        (0, 1, 1, 0, None),
        (1, 2, 4, 0, 333),
        (1, 2, 337, 333, 333),
        (1, 2, 670, 666, 334),
        (2, 3, 1004, 0, None),
    ]
    assert len(parts(path, size // 100)) == 10  # what is before a unit in its row group is decoded for nothing
    [file] = scan_files(find_source_files(dataset(path)), size // 3)
    assert sum(unit.size for unit in file.units[1:4]) in range(size - 3, size + 1)
    for unit_size in (size, size // 3, size // 100):
        assert read(path, unit_size=unit_size)[0] == [(i, {"x": x}) for i, x in enumerate(text, 1)]


def test_row_groups_of_tokens_are_not_divided(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"input_ids": [[1, 2, 3]] * 1000}), path)
    assert parts(path, 10) == [(0, 1, 1, 0, None)]


def test_uncompressed_record_batches_are_divided(tmp_path: Path) -> None:
    table = pa.table({"x": ["text " * 10] * 1000})
    plain = arrow_file(tmp_path / "plain.arrow", table, 1000)
    size = table.nbytes // 4
    assert parts(plain, size) == [(0, 1, 1 + 250 * i, 250 * i, 250) for i in range(4)]
    with pa.ipc.new_file(
        str(tmp_path / "lz4.arrow"), table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
    ) as writer:
        writer.write_table(table)
    assert parts(tmp_path / "lz4.arrow", size) == [(0, 1, 1, 0, None)]
    assert rows(tmp_path / "lz4.arrow", unit_size=size) == rows(plain, unit_size=size) == table.to_pylist()


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_remote_and_compressed_files_are_read_but_row_groups_are_not_divided(tmp_path: Path, kind: str) -> None:
    import fsspec

    table = pa.table({"x": [f"text {i}" for i in range(3000)], "y": [[{"n": i}] for i in range(3000)]})
    path = tmp_path / ("a.parquet" if kind == "parquet" else "a.arrow")
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        (arrow_file if kind == "file" else arrow_stream)(path, table, 3000)
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/sftkit-columnar/{path.name}", path.read_bytes())
    compressed = tmp_path / f"{path.name}.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    try:
        for place in (f"memory://sftkit-columnar/{path.name}", compressed):
            [file] = scan_files(find_source_files(dataset(place)), 1000)
            assert len(file.units) == 1
            assert rows(place, unit_size=1000) == table.to_pylist()
    finally:
        memory.rm("/sftkit-columnar", recursive=True)


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_batches_are_limited_in_rows_and_bytes(tmp_path: Path, kind: str) -> None:
    long = [bytes([97 + i % 26]).decode() * 1_000_000 for i in range(40)]
    table = pa.table({"x": [*long, *map(str, range(5000))]})
    path = tmp_path / ("a.parquet" if kind == "parquet" else "a.arrow")
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        (arrow_file if kind == "file" else arrow_stream)(path, table, 10_000)
    [file] = scan_files(find_source_files(dataset(path)), 1 << 30)
    batches = [batch for unit in file.units for batch in read_unit(unit, RowLog())]
    assert max(map(len, batches)) <= 1024
    assert sum(map(len, batches)) == 5040
    assert max(sum(len(row["x"]) for row in batch.rows) for batch in batches) <= BATCH_BYTES


# ru_maxrss would not do: it starts with that of the process which starts this one.
PEAK = """
import sys
from sftkit.core.row_log import RowLog
from sftkit.sources.source_file import SourceFile
from sftkit.sources.work_units import read_unit, scan_files
from pathlib import Path

path = Path(sys.argv[1])
[file] = scan_files([SourceFile("d", str(path), path.suffix[1:], None, path.stat().st_size)], 8 << 20)
print(sum(len(batch) for unit in file.units for batch in read_unit(unit, RowLog())))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.sampled(3)
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_memory_does_not_grow_with_a_row_group_or_record_batch(tmp_path: Path, kind: str) -> None:
    peaks = []
    for count in (10_000, 80_000):
        table = pa.table({"n": range(count), "x": [os.urandom(500).hex() for _ in range(count)]})
        path = tmp_path / f"{count}.{'parquet' if kind == 'parquet' else 'arrow'}"
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=count, use_dictionary=False)
        else:
            (arrow_file if kind == "file" else arrow_stream)(path, table, count)
        printed = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True).stdout
        read_rows, peak = map(int, printed.split())
        assert read_rows == count
        peaks.append(peak << 10)
    assert peaks[1] - peaks[0] < 20 << 20  # of 80 MB


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


def test_null_fields_of_structs_are_removed_but_null_columns_are_kept(tmp_path: Path) -> None:
    content = [{"tools": [TOOLS[0]], "note": None, "n": 1}, {"tools": [TOOLS[1]], "note": "x", "n": None}]
    table = pa.Table.from_pylist(content)
    planted = table.to_pylist()
    assert planted[0]["tools"][0]["parameters"]["text"] is None  # what Arrow makes of it
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == content
    assert rows(arrow_stream(tmp_path / "a.arrow", table, 1)) == content


def pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: pruned(item) for name, item in value.items() if item is not None}
    return [pruned(item) for item in value] if isinstance(value, list) else value


SCALARS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=5),
    pa.large_string(): st.text(max_size=5),
    pa.binary(): st.binary(max_size=5),
    pa.date32(): st.dates(),
    pa.null(): st.none(),
}
KINDS = st.recursive(
    st.sampled_from(list(SCALARS)),
    lambda kind: (
        kind.map(pa.list_)
        | kind.map(pa.large_list)
        | kind.map(lambda inner: pa.list_(inner, 2))
        | st.lists(kind, max_size=3).map(
            lambda kinds: pa.struct([(f"f{index}", kind) for index, kind in enumerate(kinds)])
        )
    ),
    max_leaves=5,
)


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_struct(kind):
        values: st.SearchStrategy[Any] = st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    elif pa.types.is_fixed_size_list(kind):
        values = st.lists(values_of(kind.value_type), min_size=2, max_size=2)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values = st.lists(values_of(kind.value_type), max_size=3)
    else:
        values = SCALARS[kind]
    return st.none() | values


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), kind=KINDS)
def test_random_values_are_those_of_arrow_without_null_fields_of_structs(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: pa.DataType
) -> None:
    values = data.draw(st.lists(values_of(kind), min_size=1, max_size=8))
    column = pa.array(values, kind)
    start = data.draw(st.integers(0, len(values) - 1))
    batch = pa.record_batch({"x": column, "n": list(range(len(values)))}).slice(start)
    [found] = to_batches([batch], 1, ReadLimits(), RowLog())
    assert repr(found.rows) == repr([{"x": pruned(row["x"]), "n": row["n"]} for row in batch.to_pylist()])


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 2000), min_size=1, max_size=60),
    group=st.integers(1, 60),
    unit_size=st.integers(1, 20_000),
    piece=st.sampled_from([1, 7, 256]),
    kind=st.sampled_from(["parquet", "file", "stream"]),
)
def test_rows_do_not_depend_on_the_size_of_units_or_pieces(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], group: int, unit_size: int, piece: int, kind: str
) -> None:
    content = [{"x": chr(97 + i % 26) * length, "t": [{"n": i}] * (i % 3)} for i, length in enumerate(lengths)]
    table = pa.Table.from_pylist(content)
    path = tmp_path_factory.mktemp("units") / ("a.parquet" if kind == "parquet" else "a.arrow")
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=group)
    else:
        (arrow_file if kind == "file" else arrow_stream)(path, table, group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sftkit.sources.formats.arrow_rows.PIECE_ROWS", piece)
        patch.setattr("sftkit.sources.formats.parquet_arrow.PIECE_ROWS", piece)
        found, log = read(path, unit_size=unit_size)
    assert found == list(enumerate(content, 1))
    assert log.bad == []


def test_nulls_in_lists_are_kept(tmp_path: Path) -> None:
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
def test_token_columns_of_all_list_types_become_flat_arrays(tmp_path: Path, kind: pa.DataType) -> None:
    ids = [[1, 2], [3, 4], [5, 6], [7, 8]]
    chunked = pa.chunked_array([pa.array(ids[:1], kind), pa.array(ids, kind).slice(1)])
    path = arrow_file(tmp_path / "a.arrow", pa.table({"input_ids": chunked, "x": list("abcd")}), 10)
    tokens = first_batch_tokens(path)
    assert list(tokens) == ["input_ids"]
    assert tokens["input_ids"].values.dtype == np.int32
    assert rows(path) == [{"x": x, "input_ids": row} for x, row in zip("abcd", ids, strict=True)]


def test_rows_may_have_only_token_columns(tmp_path: Path) -> None:
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
def test_token_columns_that_are_not_lists_of_ids_are_left_unchanged(tmp_path: Path, column: pa.Array) -> None:
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
def test_a_file_with_content_of_another_format_is_an_error(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"{name}: cannot be read as {kind}: "):
        read(tmp_path / name)


def test_a_parquet_file_with_corrupt_pages_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [f"text {i}" for i in range(5000)]}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[100:3000] = bytes(2900)
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match=rf"^{path}: "):
        read(path)


def test_rows_with_text_that_is_not_utf8_are_quarantined(tmp_path: Path) -> None:
    broken = pa.array([b"fine", b"\xff\xfe", b"well"])
    text = pa.Array.from_buffers(pa.string(), 3, broken.buffers())
    pq.write_table(pa.table({"x": text}), tmp_path / "a.parquet")
    found, log = read(tmp_path / "a.parquet")
    assert found == [(1, {"x": "fine"}), (3, {"x": "well"})]
    assert [(row.number, row.reason, row.content) for row in log.bad] == [(2, "invalid UTF-8", "\ufffd\ufffd")]


def test_a_table_without_rows_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == []


def test_folders_of_save_to_disk_are_read(tmp_path: Path) -> None:
    import datasets

    train = datasets.Dataset.from_list([{"x": i} for i in range(10)])
    test = datasets.Dataset.from_list([{"x": -1}])
    train.save_to_disk(str(tmp_path / "one"), num_shards=3)
    assert rows(tmp_path / "one") == [{"x": i} for i in range(10)]
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "both"))
    assert rows(tmp_path / "both") == [{"x": i} for i in range(10)]
    assert rows(tmp_path / "both", dataset_split_name="test") == [{"x": -1}]


def test_cache_files_of_datasets_are_ignored(tmp_path: Path) -> None:
    import datasets

    saved = datasets.DatasetDict({"train": datasets.Dataset.from_list([{"x": 1}, {"x": 2}])})
    saved.save_to_disk(str(tmp_path / "saved"))
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    loaded["train"].map(lambda row: {"x": row["x"] + 100}, load_from_cache_file=False)
    assert list((tmp_path / "saved" / "train").glob("cache-*.arrow"))
    assert rows(tmp_path / "saved") == [{"x": 1}, {"x": 2}]
