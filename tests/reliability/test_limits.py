"""Sources that exceed a limit: very long rows, decompression bombs, endless values."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.core.accounting.removed_row import MAX_CONTENT_CHARACTERS
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Row
from sftkit.errors import SourceError
from sftkit.sandbox.memory import run_with_cached_memory_limit, run_with_memory_limit
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.source_file import ReadLimits
from sftkit.sources.streams import decompression
from sftkit.sources.work_units import read_unit, scan_files
from support import dataset, handler, new_memory, preprocess, write_jsonl, written

MOST = 2000
LONG = "x" * 10_000
ROWS = [{"text": "a"}, {"text": LONG}, {"text": "b"}, {"text": LONG}, {"text": LONG}, {"text": "c"}]
KEPT = [(1, {"text": "a"}), (3, {"text": "b"}), (6, {"text": "c"})]
TOO_LONG = (
    r"the row has (?:at least )?[\d,]+ (bytes|characters), more than max_row_bytes=2000 allows; "
    r"raise it if this is right"
)


def read(path: object, limits: ReadLimits, unit_size: int = 8 << 20) -> tuple[list[tuple[int, Row]], RowLog]:
    """(row number, row) of a source, and the log of unreadable rows."""
    log = RowLog()
    found: list[tuple[int, Row]] = []
    for file in scan_files(find_source_files(dataset(path), limits), unit_size):
        for unit in file.units:
            for batch in read_unit(unit, log):
                found += zip(batch.numbers.tolist(), batch.rows, strict=True)
    return found, log


def as_jsonl(folder: Path) -> Path:
    return write_jsonl(folder / "a.jsonl", ROWS)


def as_gzip(folder: Path) -> Path:
    path = folder / "a.jsonl.gz"
    path.write_bytes(gzip.compress(as_jsonl(folder).read_bytes()))
    return path


def as_array(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(ROWS))
    return folder / "a.json"


def as_csv(folder: Path) -> Path:
    path = folder / "a.csv"
    path.write_text("text\n" + "".join(f"{row['text']}\n" for row in ROWS))
    return path


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet", row_group_size=4)
    return folder / "a.parquet"


def as_arrow(folder: Path) -> Path:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(folder / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return folder / "a.arrow"


def as_url(folder: Path) -> str:
    """Files opened by fsspec cannot limit the length of lines."""
    return f"file://{as_jsonl(folder)}"


@pytest.mark.parametrize("unit_size", [500, 1 << 20])
@pytest.mark.parametrize("make", [as_jsonl, as_gzip, as_array, as_csv, as_parquet, as_arrow, as_url])
def test_rows_that_are_too_long_are_quarantined_and_the_others_keep_their_numbers(
    tmp_path: Path, make: Callable[[Path], Path | str], unit_size: int
) -> None:
    path = make(tmp_path)
    found, log = read(path, ReadLimits(row_bytes=MOST), unit_size)
    assert found == KEPT
    assert [row.number for row in log.bad] == [2, 4, 5]
    assert all(re.fullmatch(TOO_LONG, row.reason) for row in log.bad), log.bad[0]
    assert all(len(row.content) <= MAX_CONTENT_CHARACTERS for row in log.bad)
    assert [row for _, row in read(path, ReadLimits())[0]] == ROWS


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 60), max_size=12),
    most=st.integers(15, 60),
    unit_size=st.integers(1, 300),
    ends=st.booleans(),
)
def test_exactly_the_too_long_lines_are_quarantined_for_any_unit_size(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], most: int, unit_size: int, ends: bool
) -> None:
    lines = [json.dumps({"t": "x" * length}) for length in lengths]
    data = ("\n".join(lines) + ("\n" if ends and lines else "")).encode()
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(data)
    if not data:
        return
    sizes = [len(line) for line in data.splitlines(keepends=True)]
    found, log = read(path, ReadLimits(row_bytes=most), unit_size)
    assert [number for number, _ in found] == [i for i, size in enumerate(sizes, 1) if size <= most]
    assert [row.number for row in log.bad] == [i for i, size in enumerate(sizes, 1) if size > most]


@settings(max_examples=150)
@given(
    records=st.lists(
        st.lists(st.text(st.sampled_from('ab",\n\r é'), max_size=30), min_size=2, max_size=2), min_size=1, max_size=8
    ),
    most=st.integers(20, 80),
    quote_all=st.booleans(),
)
def test_a_too_long_csv_record_ends_where_the_record_ends(
    tmp_path_factory: pytest.TempPathFactory, records: list[list[str]], most: int, quote_all: bool
) -> None:
    """Even with quotes, doubled quotes and line ends inside them."""
    path = tmp_path_factory.mktemp("records") / "a.csv"
    sizes = []
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write("p,q\r\n")
        for record in records:
            buffer = io.StringIO()
            quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
            csv.writer(buffer, quoting=quoting).writerow(record)
            sizes.append(len(buffer.getvalue()))
            stream.write(buffer.getvalue())
    found, log = read(path, ReadLimits(row_bytes=most))
    short = [i for i, size in enumerate(sizes) if size <= most]
    assert [row for _, row in found] == [dict(zip("pq", records[i], strict=True)) for i in short]
    assert [number for number, _ in found] == [i + 1 for i in short]
    assert [row.number for row in log.bad] == [i + 1 for i, size in enumerate(sizes) if size > most]


def test_max_row_bytes_is_part_of_the_unit_key(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> None:
    rows = [{"text": f"{row['text']} and so on"} for row in ROWS]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    data = dataset(path, data_handlers=[handler("tokenize", dataset_text_field="text")])
    options: dict[str, Any] = {"tokenizer_name_or_path": tokenizer_path("bpe"), "train_on": "all"}
    preprocess(tmp_path / "out", data, max_row_bytes=MOST, max_bad_rows=3, **options)
    assert len(written(tmp_path / "out")) == 3
    bad = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["path"], row["row"]) for row in bad] == [(str(path), 2), (str(path), 4), (str(path), 5)]
    preprocess(tmp_path / "out", data, overwrite=True, **options)
    assert len(written(tmp_path / "out")) == 6


ZEROS = bytes(1 << 20)
PACKERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    "gz": lambda stream: gzip.GzipFile(fileobj=stream, mode="wb"),  # type: ignore[dict-item,return-value]
    "bz2": lambda stream: bz2.BZ2File(stream, "wb"),  # type: ignore[dict-item,return-value]
    "xz": lambda stream: lzma.LZMAFile(stream, "wb"),  # type: ignore[dict-item,return-value]  # noqa: SIM115
    "zst": lambda stream: zstandard.ZstdCompressor().stream_writer(stream, closefd=False),
}


def bomb(path: Path, ending: str, megabytes: int) -> Path:
    with path.open("wb") as stream, PACKERS[ending](stream) as packed:
        for _ in range(megabytes):
            packed.write(ZEROS)
    return path


@pytest.mark.parametrize("ending", PACKERS)
def test_a_source_that_decompresses_to_too_much_ends_the_run_and_names_the_key(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "ALWAYS_ALLOWED_BYTES", 4 << 20)
    path = bomb(tmp_path / f"a.jsonl.{ending}", ending, 40)
    message = rf"a\.jsonl\.{ending}: [\d,]+ bytes of \w+ data expand to at least [\d,]+ bytes, .*max_expansion=100;"
    with pytest.raises(SourceError, match=message):
        read(path, ReadLimits(expansion=100))
    found, log = read(path, ReadLimits(expansion=1e9))
    assert (found, len(log.bad)) == ([], 1)


@pytest.mark.parametrize("ending", PACKERS)
def test_a_small_source_may_expand_by_any_factor(tmp_path: Path, ending: str) -> None:
    """A small file that repeats one line is not a bomb."""
    path = tmp_path / f"a.jsonl.{ending}"
    with path.open("wb") as stream, PACKERS[ending](stream) as packed:
        packed.write(b'{"text": "the same"}\n' * 50_000)
    assert len(read(path, ReadLimits(expansion=1))[0]) == 50_000


@pytest.mark.parametrize("ending", PACKERS)
def test_compressed_columns_are_read_up_to_max_expansion(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet is read from its end, so all of it is decompressed first."""
    plain = as_parquet(tmp_path).read_bytes()
    path = tmp_path / f"b.parquet.{ending}"
    with path.open("wb") as stream, PACKERS[ending](stream) as packed:
        packed.write(plain)
    assert [row for _, row in read(path, ReadLimits())[0]] == ROWS
    monkeypatch.setattr(decompression, "ALWAYS_ALLOWED_BYTES", 4 << 20)
    with pytest.raises(SourceError, match="max_expansion=100;"):
        read(bomb(tmp_path / f"c.parquet.{ending}", ending, 40), ReadLimits(expansion=100))


def test_a_zstandard_frame_with_a_huge_window_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
    path = tmp_path / "a.jsonl.zst"
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(packer.compress(b'{"text": "a"}\n') + packer.flush())
    found, log = read(path, ReadLimits())
    assert not found
    assert [(row.number, "too much memory" in row.reason) for row in log.bad] == [(1, True)]


@pytest.mark.slow
def test_a_parquet_footer_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    text = pa.array(["y" * 1_000_000]).take(pa.array([0] * 200))
    pq.write_table(pa.table({"text": text}), path, compression="zstd", use_dictionary=False)
    message = (
        r"a\.parquet: [\d,]+ bytes become 200,[\d,]+ bytes or more, which exceeds max_expansion=1000; raise it if you"
    )
    with pytest.raises(SourceError, match=message):
        read(path, ReadLimits())
    assert len(read(path, ReadLimits(expansion=1e6))[0]) == 200


def test_growth_of_memory_is_bounded_while_a_function_runs() -> None:
    soft = resource.getrlimit(resource.RLIMIT_AS)
    assert len(run_with_memory_limit(400 << 20, lambda: new_memory(100 << 20))) == 100 << 20
    with pytest.raises(MemoryError):
        run_with_memory_limit(400 << 20, lambda: new_memory(800 << 20))
    assert resource.getrlimit(resource.RLIMIT_AS) == soft
    assert len(new_memory(800 << 20)) == 800 << 20


def test_each_thread_may_allocate_its_allowance() -> None:
    """No limit remains afterwards."""
    soft = resource.getrlimit(resource.RLIMIT_AS)
    barrier = threading.Barrier(3)

    def take(_: int) -> int:
        barrier.wait()
        held = [run_with_memory_limit(300 << 20, lambda: new_memory(100 << 20)) for _ in range(3)]
        barrier.wait()
        return sum(map(len, held))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(take, range(3))) == [300 << 20] * 3
    assert resource.getrlimit(resource.RLIMIT_AS) == soft


def test_memory_allocated_before_a_limit_does_not_count() -> None:
    assert run_with_cached_memory_limit(400 << 20, lambda: 1) == 1
    held = new_memory(600 << 20)
    assert len(run_with_cached_memory_limit(400 << 20, lambda: new_memory(100 << 20))) == 100 << 20
    with pytest.raises(MemoryError):
        run_with_cached_memory_limit(400 << 20, lambda: new_memory(800 << 20))
    del held


RESIDENT = """
import re, sys
from pathlib import Path
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.errors import SourceError
from sftkit.core.row_log import RowLog
from sftkit.sources.formats import columnar_limits
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.source_file import ReadLimits
from sftkit.sources.work_units import read_unit, scan_files
import pyarrow.parquet

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

columnar_limits._DECODED_BYTES = 256 << 20
before, log, rows, said = most(), RowLog(), 0, ""
try:
    limits = ReadLimits(int(sys.argv[2]), float(sys.argv[3]))
    files = find_source_files(DatasetConfig(name="a", data_paths=(sys.argv[1],)), limits)
    for file in scan_files(files, 4 << 20):
        for unit in file.units:
            for batch in read_unit(unit, log):
                rows += len(batch)
except SourceError as error:
    said = str(error)
print(most() - before, rows, len(log.bad), said)
"""


def resident(path: Path, expansion: float = 1000) -> tuple[int, int, int, str]:
    """Peak memory of reading a source in another process (MiB), its rows, its bad rows, and the error."""
    command = [sys.executable, "-c", RESIDENT, str(path), str(10 << 20), str(expansion)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, rows, bad, said = done.stdout.rstrip("\n").split(" ", 3)
    return int(grown), int(rows), int(bad), said


def long_line(folder: Path) -> Path:
    """Three lines; the second has 200 MB, as a hole in the file that takes no disk space."""
    path = folder / "a.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"text": "a"}\n')
        stream.seek(200 << 20)
        stream.write(b'\n{"text": "b"}\n')
    return path


def long_record(folder: Path) -> Path:
    path = folder / "a.csv"
    with path.open("wb") as stream:
        stream.write(b'text\na\n"')
        for _ in range(120):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"\nb\n')
    return path


def dictionary_bomb(folder: Path) -> Path:
    """One text of 9 MB that 100,000 rows refer to."""
    path = folder / "a.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["y" * 9_000_000]))
    pq.write_table(pa.table({"text": text}), path, store_schema=False, dictionary_pagesize_limit=1 << 30)
    return path


def list_bomb(folder: Path) -> Path:
    """A row of 40 million zeros in a few kilobytes."""
    path = folder / "a.parquet"
    values = pa.array(np.zeros(40_000_000, np.int64))
    lists = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    pq.write_table(pa.table({"text": lists}), path, compression="zstd")
    return path


def compressed_batch(folder: Path) -> Path:
    path = folder / "a.arrow"
    text = pa.array(["y" * 1_000_000]).take(pa.array([0] * 500))
    table = pa.table({"text": text})
    with pa.ipc.new_file(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("make", [long_line, long_record])
def test_a_too_long_row_is_never_held_in_memory(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Only its first 10 MiB, which are allowed, and the memory of reading itself."""
    grown, rows, bad, said = resident(make(tmp_path))
    assert (rows, bad, said) == (2, 1, "")
    assert grown < 90


@pytest.mark.sampled(3)
@pytest.mark.parametrize("make", [dictionary_bomb, list_bomb, compressed_batch])
def test_the_memory_of_expanding_columns_is_bounded(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """By the size of what is decoded at once, although the file does not declare it."""
    path = make(tmp_path)
    grown, rows, bad, said = resident(path, 1e9)
    assert re.search(r"a\.\w+: [\d,]+ bytes become more than [\d,]+ bytes of memory at once; .*max_row_bytes", said)
    assert (rows, bad) == (0, 0)
    assert grown < 420


def test_record_batches_that_expand_too_much_name_the_key(tmp_path: Path) -> None:
    text = pa.array(["y" * 1_000_000]).take(pa.array([0] * 100))
    table = pa.table({"text": text})
    for name, new in (("a.arrow", pa.ipc.new_file), ("b.arrow", pa.ipc.new_stream)):
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with new(str(tmp_path / name), table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=10)
        with pytest.raises(SourceError, match=r"\.arrow: [\d,]+ bytes become .*max_expansion=1000; raise it"):
            read(tmp_path / name, ReadLimits())
        assert len(read(tmp_path / name, ReadLimits(expansion=1e6))[0]) == 100
