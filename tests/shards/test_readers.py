"""Files of other tools: `inspect-shards` reads them all, and says in one sentence what is wrong with broken ones."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import sftkit
from foreign_files import (
    FORMATS,
    SEQUENCES,
    packs,
    rows,
    write_arrays,
    write_indexed,
    write_jsonl,
    write_mds,
    write_nemo,
    zstd,
)
from sftkit.errors import DataError, SftkitError, SourceError
from sftkit.shards.readers.open_file import open_shard_file

LABELLED = [(ids, labels) for ids, labels in SEQUENCES]


@pytest.mark.parametrize("make", [rows, packs])
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_each_format_has_the_rows_of_the_parquet(
    name: str, make: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    place = FORMATS[name](tmp_path, make())
    parquet = tmp_path / "rows.parquet"
    pa.parquet.write_table(pa.Table.from_pylist(make()), parquet)
    found = sftkit.inspect_shards(place, compare=parquet)
    assert not found.differs
    assert found.counts.identical == len(SEQUENCES)
    assert found.a.packed == (make is packs or name in ("nemo", "bridge"))
    if name != "megatron":  # it has tokens only
        assert found.a.trained_tokens == found.b.trained_tokens == 4
    report = sftkit.inspect_shards(place, audit=True)
    assert report.audit is not None
    assert report.audit.rows == len(make())


def test_rows_are_found_by_number_and_shown(tmp_path: Path) -> None:
    place = FORMATS["arrow"](tmp_path, packs())
    report = sftkit.inspect_shards(place, row=1)
    assert [[token.id for token in row.tokens] for row in report.rows] == [[7, 3]]
    shards = sftkit.open_shards(FORMATS["nemo"](tmp_path, packs()))
    assert [row.labels.tolist() for row in shards["train"]] == [[-100, 6, 70_000, -100, -100, -100, 8, -100], [-100, 3]]


def test_groups_are_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        "numpy_files.numpy_file._GROUP_ROWS",
        "mds_file._GROUP_BYTES",
        "indexed_file._GROUP_TOKENS",
        "numpy_files.array_set._GROUP_TOKENS",
    ):
        monkeypatch.setattr(f"sftkit.shards.readers.{module}", 1)
    many = [*packs(), *packs()[::-1]]
    places = [
        write_nemo(tmp_path / "x.npy", many),
        write_mds(tmp_path / "mds", many, zstd) / "shard.00000.mds.zstd",
        write_indexed(tmp_path / "x", many),
        write_arrays(tmp_path / "set", many),
    ]
    for place in places:
        with open_shard_file(place) as file:
            found = [file.read_group(number, ["input_ids"])["input_ids"].to_pylist() for number in (3, 0, 1, 2, 0)]
        assert found == [[many[number]["input_ids"]] for number in (3, 0, 1, 2, 0)]


def test_splits_are_those_of_a_saved_dict_or_of_names(tmp_path: Path) -> None:
    for name in ("train", "test"):
        FORMATS["arrow"](tmp_path, rows()).rename(tmp_path / name)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert list(sftkit.open_shards(tmp_path)) == ["train", "test"]
    (tmp_path / "mds").mkdir()
    for name in ("train", "val"):
        write_mds(tmp_path / "mds" / name, rows())
    assert list(sftkit.open_shards(tmp_path / "mds")) == ["train", "validation"]


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def _index_lists(folder: Path, name: str) -> Path:
    index = json.loads((write_mds(folder / "mds", rows()) / "index.json").read_text())
    index["shards"][0]["raw_data"]["basename"] = name
    (folder / "mds" / "index.json").write_text(json.dumps(index))
    return folder / "mds"


def _without_shards(folder: Path) -> Path:
    (folder / "index.json").write_text('{"version": 2, "shards": []}')
    return folder


def _cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def _with_bytes(path: Path, at: int, data: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)
    return path


def _array_set(folder: Path, name: str, array: Any) -> Path:
    """A set with another array in place of one of its own."""
    ids = write_arrays(folder / "x", packs())
    np.save(folder / f"x.{name}.npy", np.array(array))
    return ids


def _bomb(folder: Path) -> Path:
    (folder / "x.mds.zstd").write_bytes(zstd(struct.pack("<I", 1 << 30) + bytes(200 << 20)))
    return folder / "x.mds.zstd"


def _pickled(folder: Path, value: Any) -> Path:
    np.save(folder / "x.npy", np.array([value, value], dtype=object), allow_pickle=True)
    return folder / "x.npy"


BROKEN: dict[str, tuple[Callable[[Path], Path], type[SftkitError], str]] = {
    ".bin is cut": (
        lambda folder: _cut(write_indexed(folder / "x", rows()).with_suffix(".bin"), 8),
        SourceError,
        r"x\.bin: has 8 bytes, but x\.idx describes 40: it was truncated",
    ),
    ".bin is missing": (
        lambda folder: [path := write_indexed(folder / "x", rows()), path.with_suffix(".bin").unlink()][0],
        SourceError,
        r"x\.bin: is missing; x\.idx describes",
    ),
    ".idx is cut": (
        lambda folder: _cut(write_indexed(folder / "x", rows()), 60),
        SourceError,
        "60 bytes cannot describe",
    ),
    ".idx names more": (
        lambda folder: _with_bytes(write_indexed(folder / "x", rows()), 18, b"\xff" * 8),
        SourceError,
        "18,446,744,073,709,551,615 sequences",
    ),
    ".idx points outside": (
        lambda folder: _with_bytes(write_indexed(folder / "x", rows()), 34 + 16, struct.pack("<q", 1 << 40)),
        SourceError,
        r"but x\.idx describes",
    ),
    ".idx has floats": (
        lambda folder: _with_bytes(write_indexed(folder / "x", rows()), 17, b"\x06"),
        SourceError,
        "data type 6 is none of integers",
    ),
    "index.json leads outside": (
        lambda folder: _index_lists(folder, "../x.mds"),
        DataError,
        "no file below its directory",
    ),
    "index.json is absolute": (
        lambda folder: _index_lists(folder, "/etc/passwd"),
        DataError,
        "no file below its directory",
    ),
    "index.json is empty": (_without_shards, SourceError, "lists no shards"),
    "index.json names nothing": (
        lambda folder: _index_lists(folder, "y.mds"),
        DataError,
        "lists y.mds, which is missing",
    ),
    "MDS file is cut": (
        lambda folder: _cut(write_mds(folder / "mds", rows()) / "shard.00000.mds", 300),
        SourceError,
        r"shard\.00000\.mds: is not a valid MDS file: it has 300 of",
    ),
    "MDS file of zeros": (_bomb, SourceError, "would expand to"),
    "pickle that runs": (lambda folder: _pickled(folder, {"input_ids": _Runs()}), SourceError, "it names posix.mkdir"),
    "pickle of texts": (lambda folder: _pickled(folder, "no row"), SourceError, "a row is no dict"),
    "pickle is cut": (lambda folder: _cut(write_nemo(folder / "x.npy", packs()), 300), SourceError, "ends too early"),
    "floats": (
        lambda folder: [np.save(folder / "x.npy", np.zeros((2, 3))), folder / "x.npy"][1],
        SourceError,
        "it holds 2x3 float64, not rows of ids",
    ),
    "arrays of other lengths": (
        lambda folder: _array_set(folder, "labels", [1, 2]),
        SourceError,
        r"x\.labels\.npy: does not belong to x\.input_ids\.npy: it holds 2 numbers, not 10 as the others",
    ),
    "row offsets beyond the tokens": (
        lambda folder: _array_set(folder, "row_offsets", [0, 8, 11]).with_name("x.row_offsets.npy"),
        SourceError,
        r"x\.row_offsets\.npy: .*: its offsets do not ascend from 0 to 10, the tokens of x\.input_ids\.npy",
    ),
    "row offsets that descend": (
        lambda folder: _array_set(folder, "row_offsets", [0, 11, 10]),
        SourceError,
        "its offsets do not ascend",
    ),
    "a sequence in two rows": (
        lambda folder: _array_set(folder, "seq_offsets", [0, 3, 10]),
        SourceError,
        r"x\.seq_offsets\.npy: .*: a row begins within a sequence \(x\.row_offsets\.npy\)",
    ),
    "floats of a set": (
        lambda folder: _array_set(folder, "input_ids", np.zeros(10)).parent,
        SourceError,
        r"x\.input_ids\.npy: .*: it holds float64, not integers",
    ),
    "an array of a set is cut": (
        lambda folder: _cut(_array_set(folder, "labels", [0] * 10).with_name("x.labels.npy"), 150),
        SourceError,
        r"x\.labels\.npy: is not a valid NumPy file: it has 150 of 208 bytes",
    ),
    "no JSON": (
        lambda folder: [path := write_jsonl(folder / "x.jsonl", rows()), path.open("a").write("{no")][0],
        SourceError,
        r"x\.jsonl:5: is no JSON",
    ),
    "Arrow is cut": (
        lambda folder: _cut(FORMATS["arrow"](folder, rows()) / "data-00000-of-00001.arrow", 700).parent,
        SourceError,
        "cannot be read as Arrow",
    ),
    "another file": (
        lambda folder: [(folder / "x.bin").write_bytes(b"something"), folder / "x.bin"][1],
        SourceError,
        "is none of the files that are read: Parquet, Arrow, Megatron",
    ),
    "several kinds": (
        lambda folder: write_jsonl(write_nemo(folder / "x.npy", packs()).with_name("x.jsonl"), rows()).parent,
        SourceError,
        r"holds \.npy and \.jsonl files; name one of them",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_file_is_named_with_what_is_wrong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, error, message = BROKEN[name]
    with pytest.raises(error, match=message):
        sftkit.inspect_shards(make(tmp_path), rows=2)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("protocol", [3, 4])
def test_packs_are_read_from_pickles_of_the_protocols_of_numpy(protocol: int, tmp_path: Path) -> None:
    made: list[dict[str, Any]] = [
        {"input_ids": list(range(3000)), "loss_mask": [1.0, 0.0] * 1500},
        {"input_ids": np.arange(4, dtype=np.int64), "loss_mask": [True] * 4},
        {"input_ids": [np.int32(7)], "loss_mask": [np.bool_(True)]},
    ]
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (3,)})
    pickle.dump(np.array(made, dtype=object), file, protocol=protocol)
    (tmp_path / "x.npy").write_bytes(file.getvalue())
    with open_shard_file(tmp_path / "x.npy") as opened:
        assert opened.read_group(0)["input_ids"].to_pylist() == [list(range(3000)), [0, 1, 2, 3], [7]]


def test_training_refuses_other_files_in_one_sentence(tmp_path: Path) -> None:
    from sftkit.config.commands import TrainConfig
    from sftkit.core.progress import SilentProgress
    from sftkit.preprocessing.training_shards import find_or_build_shards

    place = str(write_mds(tmp_path / "mds", rows()))
    config = TrainConfig(
        training_data_path=(place,), model_name_or_path="sample:model", output_dir=str(tmp_path / "out")
    )
    with pytest.raises(DataError, match=r"shard\.00000\.mds: is MDS; training reads Parquet"):
        find_or_build_shards(config, SilentProgress())
