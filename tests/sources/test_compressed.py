from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from sftkit.errors import SourceError
from support import read, rows, write_jsonl

CONTENT = [{"text": f"line {i} {i * 7919 % 10007}"} for i in range(3000)]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
NAMES = {"gz": "gzip", "zst": "zstd", "bz2": "bz2", "xz": "xz"}


@pytest.fixture
def plain(tmp_path: Path) -> bytes:
    return write_jsonl(tmp_path / "plain" / "a.jsonl", CONTENT).read_bytes()


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_files_have_the_rows_of_the_uncompressed_file(tmp_path: Path, plain: bytes, ending: str) -> None:
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(COMPRESS[ending](plain))
    assert read(path, unit_size=100) == read(tmp_path / "plain" / "a.jsonl")


@pytest.mark.parametrize("ending", COMPRESS)
def test_all_compressed_streams_of_a_file_are_read(tmp_path: Path, plain: bytes, ending: str) -> None:
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(COMPRESS[ending](plain[:5000]) + COMPRESS[ending](plain[5000:]))
    assert rows(path) == CONTENT


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_truncated_compressed_file_is_an_error(tmp_path: Path, plain: bytes, ending: str) -> None:
    compressed = COMPRESS[ending](plain)
    for kept in (len(compressed) // 2, len(compressed) - 3):
        path = tmp_path / f"a{kept}.jsonl.{ending}"
        path.write_bytes(compressed[:kept])
        with pytest.raises(SourceError, match=rf"a{kept}\.jsonl\.{ending}: broken {NAMES[ending]} data: .+"):
            read(path)


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_corrupt_compressed_file_is_an_error(tmp_path: Path, plain: bytes, ending: str) -> None:
    compressed = bytearray(COMPRESS[ending](plain))
    for position in range(1000, 1200):
        compressed[position] ^= 0xFF
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(bytes(compressed))
    with pytest.raises(SourceError, match=rf"^{path}: "):
        read(path)


@pytest.mark.parametrize("ending", COMPRESS)
def test_an_uncompressed_file_with_the_extension_of_a_compressed_one_is_an_error(
    tmp_path: Path, plain: bytes, ending: str
) -> None:
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(plain)
    with pytest.raises(SourceError, match=rf"^{path}: "):
        read(path)


def test_a_zstd_stream_without_a_stated_size_is_read(tmp_path: Path, plain: bytes) -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    data = b"".join(compressor.compress(plain[i : i + 999]) for i in range(0, len(plain), 999)) + compressor.flush()
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    assert rows(tmp_path / "a.jsonl.zst") == CONTENT


@pytest.mark.parametrize(("name", "data"), [("a.json.gz", b'[{"x": 1}, {"x": 2}]'), ("a.csv.gz", b"x\n1\n2\n")])
def test_files_of_all_formats_are_decompressed(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(gzip.compress(data))
    assert [int(row["x"]) for row in rows(tmp_path / name)] == [1, 2]
