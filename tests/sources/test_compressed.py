from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from sftkit.errors import SourceError
from support import preprocess, read, rows, shard_bytes, write_jsonl

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


def complete_lines(data: bytes) -> int:
    return data.count(b"\n")


def decompressed_before_damage(ending: str, data: bytes) -> bytes:
    """What a decompressor gives that gets one byte after another until it fails."""
    make: dict[str, Callable[[], Any]] = {
        "gz": lambda: zlib.decompressobj(31),
        "zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
        "bz2": bz2.BZ2Decompressor,
        "xz": lzma.LZMADecompressor,
    }
    stream, found = make[ending](), []
    try:
        for byte in data:
            found.append(stream.decompress(bytes([byte])))
    except (zlib.error, zstandard.ZstdError, OSError, lzma.LZMAError, EOFError):
        pass
    return b"".join(found)


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_of_a_truncated_file_the_rows_before_the_cut_are_kept_and_the_rest_is_one_bad_row(
    tmp_path: Path, plain: bytes, ending: str, name: str
) -> None:
    if name == "a.json":
        plain = b"[" + plain.replace(b"\n", b",\n") + b"{}]"
    elif name == "a.csv":
        plain = "".join(["text\n", *(f"{row['text']}\n" for row in CONTENT)]).encode()
    compressed = COMPRESS[ending](plain)
    for kept in (len(compressed) // 2, len(compressed) - 1):
        path = tmp_path / f"{name}.{ending}"
        path.write_bytes(compressed[:kept])
        available = decompressed_before_damage(ending, compressed[:kept])
        found, log = read(path)
        count = complete_lines(available) - (name == "a.csv" and bool(available))
        assert [row for _, row in found][:count] == CONTENT[:count]
        assert len(found) in ((count, count + 1) if name == "a.json" else (count,))
        [bad] = log.bad
        assert bad.number == len(found) + 1
        assert bad.reason == f"the {NAMES[ending]} data is truncated here, and the rest of the file is missing"


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_of_a_corrupt_file_the_rows_before_the_damage_are_kept_and_the_rest_is_one_bad_row(
    tmp_path: Path, plain: bytes, ending: str, place: float
) -> None:
    compressed = bytearray(COMPRESS[ending](plain[:9000]) + COMPRESS[ending](plain[9000:]))
    start = int(len(compressed) * place)
    compressed[start : start + 20] = b"\xff" * 20
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(bytes(compressed))
    found, log = read(path)
    first = COMPRESS[ending](plain[:9000])
    available = (
        plain[:9000] + decompressed_before_damage(ending, bytes(compressed[len(first) :]))
        if start > len(first)
        else decompressed_before_damage(ending, bytes(compressed))
    )
    bad_lines = [line for line in available.split(b"\n")[:-1] if not line.startswith(b"{") or not line.endswith(b"}")]
    assert len(found) + len(log.bad) == complete_lines(available) + 1
    assert len(log.bad) >= 1 + len(bad_lines)
    assert f"{NAMES[ending]} data is " in log.bad[-1].reason


def test_a_wrong_checksum_is_a_bad_row_after_the_others(tmp_path: Path, plain: bytes) -> None:
    compressed = bytearray(gzip.compress(plain))
    compressed[-6] ^= 1
    (tmp_path / "a.jsonl.gz").write_bytes(bytes(compressed))
    found, log = read(tmp_path / "a.jsonl.gz")
    assert [row for _, row in found] == CONTENT
    assert [(row.number, row.reason) for row in log.bad] == [
        (3001, "the gzip data is broken from here on (incorrect data check)")
    ]


@pytest.mark.parametrize("ending", COMPRESS)
def test_other_data_after_a_stream_is_a_bad_row(tmp_path: Path, plain: bytes, ending: str) -> None:
    (tmp_path / f"a.jsonl.{ending}").write_bytes(COMPRESS[ending](plain) + b"something else")
    found, log = read(tmp_path / f"a.jsonl.{ending}")
    assert [row for _, row in found] == CONTENT
    assert [row.number for row in log.bad] == [3001]


@pytest.mark.parametrize("ending", ["gz", "xz"])
def test_zeros_between_and_after_streams_are_padding(tmp_path: Path, plain: bytes, ending: str) -> None:
    compress = COMPRESS[ending]
    data = compress(plain[:5000]) + bytes(9000) + compress(plain[5000:]) + bytes(512)
    (tmp_path / f"a.jsonl.{ending}").write_bytes(data)
    assert rows(tmp_path / f"a.jsonl.{ending}") == CONTENT


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_file_cut_in_its_first_bytes_is_one_bad_row(tmp_path: Path, plain: bytes, ending: str) -> None:
    for name in ("a.jsonl", "a.json", "a.csv"):
        (tmp_path / f"{name}.{ending}").write_bytes(COMPRESS[ending](plain)[:3])
        found, log = read(tmp_path / f"{name}.{ending}")
        assert (found, [row.number for row in log.bad]) == ([], [1])


def test_a_damaged_columnar_file_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": list(range(10_000))}), tmp_path / "a.parquet")
    compressed = gzip.compress((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "a.parquet.gz").write_bytes(compressed[: len(compressed) // 2])
    with pytest.raises(SourceError, match=r"a\.parquet\.gz: broken gzip data: the data ends"):
        read(tmp_path / "a.parquet.gz")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_damaged_file_costs_its_rest_and_gives_the_same_bytes_with_any_number_of_workers(
    tmp_path: Path, plain: bytes, workers: int
) -> None:
    compressed = gzip.compress(plain)
    (tmp_path / "cut.jsonl.gz").write_bytes(compressed[: len(compressed) // 2])
    (tmp_path / "whole.jsonl").write_bytes(plain)
    paths = (str(tmp_path / "cut.jsonl.gz"), str(tmp_path / "whole.jsonl"))
    options: dict[str, Any] = {"training_data_path": paths, "tokenizer_name_or_path": "sample:model"}
    options |= {"train_on": "all", "max_bad_rows": 1, "unit_size": 10_000}
    preprocess(tmp_path / "o", num_workers=workers, **options)
    kept = complete_lines(decompressed_before_damage("gz", compressed[: len(compressed) // 2]))
    assert sum(len(pq.read_table(path)) for path in (tmp_path / "o").glob("*.parquet")) == kept + 3000
    [bad] = [json.loads(line) for line in (tmp_path / "o" / "quarantine.jsonl").read_text().splitlines()]
    assert (bad["path"], bad["row"]) == (paths[0], kept + 1)
    if workers > 1:
        preprocess(tmp_path / "one", num_workers=1, **options)
        assert shard_bytes(tmp_path / "o") == shard_bytes(tmp_path / "one")


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
