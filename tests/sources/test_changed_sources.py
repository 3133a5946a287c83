"""What is read of a source is what was planned, whatever happens to the file: nothing else is ever staged."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

import sftkit.sources.work_units as work_units
from sftkit.core.row_log import RowLog
from sftkit.errors import SourceError
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.streams.content_digests import digest_content, verified_stream
from sftkit.sources.work_units import ScannedFile, read_unit, scan_files
from support import dataset

ROWS = [{"n": number, "text": f"row {number} is good " + "x" * (number % 50)} for number in range(5000)]
TABLE = pa.Table.from_pylist(ROWS)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def _arrow_stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=500)


def _arrow_file(path: Path) -> None:
    with pa.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=500)


def _save_to_disk(path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "rows.jsonl": lambda path: path.write_text(LINES),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode(), compresslevel=0, mtime=0)),
    "rows.json": lambda path: path.write_text(json.dumps(ROWS)),
    "rows.csv": lambda path: path.write_text("n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in ROWS)),
    "rows.parquet": lambda path: pq.write_table(TABLE, path, 500, compression="none", use_dictionary=False),
    "stream.arrow": _arrow_stream,
    "file.arrow": _arrow_file,
    "rows.feather": lambda path: feather.write_feather(TABLE, path, compression="uncompressed"),
    "saved": _save_to_disk,
}  # fmt: skip
UNIT_SIZE = 16_000
STRICT = sorted(set(WRITERS) - {"rows.feather"})
"""Those that are not memory-mapped: one large record batch is."""


@pytest.fixture(params=WRITERS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    WRITERS[request.param](path)
    return path


def _scan(path: Path, unit_size: int = UNIT_SIZE) -> list[ScannedFile]:
    return scan_files(find_source_files(dataset(path)), unit_size)


def _texts(files: list[ScannedFile]) -> list[str]:
    units = [unit for file in files for unit in file.units]
    return [row["text"] for unit in units for batch in read_unit(unit, RowLog()) for row in batch.rows]


def _change(path: str, after: float = 2 / 3) -> None:
    """Change the first row behind a part of a file, so that its size and modification time stay."""
    file, status = Path(path), Path(path).stat()
    content = file.read_bytes()
    place = content.index(b"good", int(len(content) * after))
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"evil")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_unchanged_source_is_read(source: Path) -> None:
    assert _texts(_scan(source)) == [row["text"] for row in ROWS]


def test_a_source_that_was_changed_in_place_with_its_time_kept_is_refused(source: Path) -> None:
    files = _scan(source)
    _change(files[-1].file.path)
    with pytest.raises(SourceError, match="changed while it was read; run the command again when nothing writes to it"):
        _texts(files)
    assert any("evil" in text for text in _texts(_scan(source)))


@pytest.mark.parametrize("name", STRICT)
def test_changed_rows_are_never_read_even_if_size_and_times_tell_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_units, "file_version", lambda place: (0, 0))
    WRITERS[name](tmp_path / name)
    files = _scan(tmp_path / name)
    _change(files[-1].file.path)
    read: list[str] = []
    with pytest.raises(SourceError, match="changed while it was read"):
        read.extend(text for file in files for unit in file.units for text in _texts([replace(file, units=(unit,))]))
    assert not any("evil" in text for text in read)


@pytest.mark.parametrize("name", STRICT)
def test_a_source_that_is_changed_and_changed_back_while_it_is_read_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_units, "file_version", lambda place: (0, 0))
    WRITERS[name](tmp_path / name)
    [file] = _scan(tmp_path / name, 1 << 30)
    original = Path(file.file.path).read_bytes()
    _change(file.file.path, after=0.0)

    def read_and_change_back() -> None:
        for _ in read_unit(file.units[0], RowLog()):
            Path(file.file.path).write_bytes(original)

    with pytest.raises(SourceError, match="changed while it was read"):
        read_and_change_back()


@pytest.mark.parametrize("change", ["grown", "cut", "emptied", "replaced"])
def test_other_changes_are_refused(change: str, source: Path) -> None:
    files = _scan(source)
    path = Path(files[-1].file.path)
    content = path.read_bytes()
    if change == "replaced":
        path.unlink()
    path.write_bytes({"grown": content + b"\n", "cut": content[:-100], "emptied": b""}.get(change, content[::-1]))
    with pytest.raises(SourceError, match=r"changed while it was read|cannot be read"):
        _texts(files)


@pytest.mark.parametrize("seed", range(20))
def test_a_verified_stream_reads_the_bytes_of_its_file(seed: int) -> None:
    draw = random.Random(seed)
    content = draw.randbytes(draw.choice([0, 1, 1000, 256 << 10, 700_001]))
    digests = digest_content(io.BytesIO(content), draw.choice([len(content), 0, 10**11]))
    stream, plain = verified_stream(io.BytesIO(content), "file", digests), io.BytesIO(content)
    for _ in range(30):
        place, size = draw.randrange(len(content) + 10), draw.choice([0, 1, 300, 400_000, -1])
        assert (stream.seek(place), stream.read(size)) == (plain.seek(place), plain.read(size))
    assert stream.seek(0, os.SEEK_END) == len(content)


@pytest.mark.parametrize("place", [0, 262_143, 262_144, 600_000])
def test_a_verified_stream_returns_no_byte_that_was_not_planned(place: int) -> None:
    content = bytearray(random.Random(0).randbytes(600_001))
    digests = digest_content(io.BytesIO(content), len(content))
    content[place] ^= 1
    stream = verified_stream(io.BytesIO(content), "rows.csv", digests)
    read = []
    with pytest.raises(SourceError, match=r"rows\.csv: changed"):
        read.extend(iter(lambda: stream.read(10_000), b""))
    assert sum(map(len, read)) <= place
