"""Shards in other formats than Parquet hold the same rows, whoever reads them."""

from __future__ import annotations

import json
import shutil
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftkit.config.binding import Problem, bind_config
from sftkit.config.commands import InspectConfig, PreprocessConfig
from sftkit.config.schema.data_config import SplitConfig
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, OutputError
from sftkit.inspection.compare.compare_datasets import compare_datasets
from sftkit.inspection.verify.verify_dataset import verify
from sftkit.shards.formats import mds_shards
from sftkit.shards.reading import open_shards
from support import dataset, handler, preprocess, write_jsonl, written

CHATS = "tokenize_and_apply_chat_template_with_masking"
SPLITS = ("train", "validation")

LAYOUTS: dict[str, dict[str, Any]] = {
    "rows": {},
    "packs": {"packing": "bfd", "pack_length": 96},
    "padded packs": {"packing": "bfd", "pack_length": 96, "pad_pack_to_multiple_of": 16, "source_column": True},
    "all columns": {"source_column": True, "token_kinds": True},
}


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations with a column of objects, some of which are null."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{number}?"},
                {"role": "assistant", "content": f"{number} é " * (number % 9 + 1)},
            ],
            "meta": None if number % 7 == 0 else {"id": number, "tags": ["ä", None]},
        }
        for number in range(60)
    ]
    return write_jsonl(tmp_path_factory.mktemp("chats") / "chats.jsonl", rows)


def made(output: Path, source: Path, formats: tuple[str, ...], **options: Any) -> Any:
    data = dataset(
        source,
        data_handlers=[handler(CHATS)],
        split=SplitConfig(train=0.8, validation=0.2),
        retain_columns=("meta",),
        loss_weight=0.1 if options.get("token_kinds") else None,
    )
    defaults: dict[str, Any] = {"model_name_or_path": "sample:model", "num_dataset_shards": 2}
    return preprocess(output, data, output_format=formats, **{**defaults, **options})


def json_lines(output: Path, split: str) -> list[Row]:
    files = sorted((output / "jsonl").glob(f"{split}-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def mds_rows(output: Path, split: str) -> list[Row]:
    """Read MDS by its specification: what `streaming/base/format/mds` of mosaicml-streaming says."""
    folder = output / "mds" / split
    index = json.loads((folder / "index.json").read_text())
    assert index["version"] == 2
    found = []
    for shard in index["shards"]:
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        [count] = struct.unpack_from("<I", data)
        assert count == shard["samples"]
        offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
        head = json.loads(data[4 * (count + 2) : offsets[0]])
        assert head == {key: shard[key] for key in head}
        assert list(shard["column_names"]) == sorted(shard["column_names"])
        for start, stop in pairwise(offsets):
            found.append(mds_sample(data[start:stop], shard))
    return found


def mds_sample(data: bytes, shard: dict[str, Any]) -> Row:
    sizes, position = [], 0
    for size in shard["column_sizes"]:
        if size is None:
            [size] = struct.unpack_from("<I", data, position)
            position += 4
        sizes.append(size)
    row: Row = {}
    for name, encoding, size in zip(shard["column_names"], shard["column_encodings"], sizes, strict=True):
        row[name] = mds_value(encoding, data[position : position + size])
        position += size
    assert position == len(data)
    return row


def mds_value(encoding: str, data: bytes) -> Any:
    kind, _, dtype = encoding.partition(":")
    if kind == "ndarray":
        bytes_of_size = 1 << (data[0] & 3)
        dimensions = data[0] >> 2
        assert dimensions == 1
        values = np.frombuffer(data[1 + bytes_of_size :], dtype)
        assert int.from_bytes(data[1 : 1 + bytes_of_size], "little") == len(values)
        return values.tolist()
    return {"int32": lambda: int.from_bytes(data, "little", signed=True), "str": data.decode}.get(
        kind, lambda: json.loads(data)
    )()


def npy_rows(output: Path, split: str) -> list[Row]:
    found = []
    for file in sorted((output / "npy").glob(f"{split}-*.input_ids.npy")):
        stem = file.name.removesuffix(".input_ids.npy")
        arrays = {each.name.split(".")[1]: np.load(each, mmap_mode="r") for each in file.parent.glob(f"{stem}.*")}
        rows, sequences = (arrays.pop(name, None) for name in ("row_offsets", "seq_offsets"))
        assert rows is not None
        assert rows.dtype == np.int64
        for number, (start, stop) in enumerate(pairwise(rows.tolist())):
            row = {name: array[start:stop].tolist() for name, array in arrays.items() if len(array) == rows[-1]}
            row |= {name: int(array[number]) for name, array in arrays.items() if len(array) == len(rows) - 1}
            if sequences is not None:
                first, last = np.searchsorted(sequences, (start, stop))
                row["seq_lengths"] = np.diff(sequences[first : last + 1]).tolist()
                row |= {name: array[first:last].tolist() for name, array in arrays.items() if name == "source"}
            found.append(row)
    return found


def without_null_sources(rows: list[Row]) -> list[Row]:
    """What MDS and arrays hold: the source of padding is -1."""
    return [
        {**row, "source": [-1 if each is None else each for each in row["source"]]}
        if isinstance(row.get("source"), list)
        else row
        for row in rows
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_format_has_the_rows_of_the_parquet_shards(layout: str, chats: Path, tmp_path: Path) -> None:
    manifest = made(tmp_path / "out", chats, ("parquet", "jsonl", "mds", "npy"), **LAYOUTS[layout])
    for split in SPLITS:
        rows = written(tmp_path / "out", split)
        lines = json_lines(tmp_path / "out", split)
        assert len(rows) == manifest.splits[split].rows > 0
        assert as_float32(lines) == as_float32(rows)
        assert as_float32(mds_rows(tmp_path / "out", split)) == as_float32(without_null_sources(rows))
        without_meta = [{name: row[name] for name in row if name != "meta"} for row in without_null_sources(rows)]
        assert npy_rows(tmp_path / "out", split) == without_meta
        assert list(lines[0]) == list(manifest.columns)
        for name in ("jsonl", "mds", "npy"):
            files = [file for file in manifest.formats[name] if f"/{split}-" in file.file]
            assert sum(file.rows or 0 for file in files) == len(rows)
    for name in ("jsonl", "mds", "npy"):
        found = compare_datasets(InspectConfig(directory=str(tmp_path / "out" / name), compare=str(tmp_path / "out")))
        assert (found.differs, found.settings, found.a.has_manifest) == (False, (), True)


def as_float32(rows: list[Row]) -> list[Row]:
    return [
        {**row, "loss_weights": np.array(row["loss_weights"], np.float32).tolist()} if "loss_weights" in row else row
        for row in rows
    ]


def test_mds_files_have_a_limited_size(chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mds_shards, "FILE_BYTES", 3000)
    made(tmp_path / "out", chats, ("parquet", "mds"))
    files = list((tmp_path / "out" / "mds" / "train").glob("*.mds"))
    assert len(files) > 4
    assert max(file.stat().st_size for file in files) <= 3000
    assert mds_rows(tmp_path / "out", "train") == written(tmp_path / "out")


@pytest.mark.parametrize("layout", ["rows", "packs"])
def test_mosaicml_streaming_reads_the_rows(layout: str, chats: Path, tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming")
    made(tmp_path / "out", chats, ("parquet", "mds"), **LAYOUTS[layout])
    for split in SPLITS:
        read = streaming.StreamingDataset(local=str(tmp_path / "out" / "mds"), split=split, batch_size=1)
        rows = [{key: plain(value) for key, value in read[index].items()} for index in range(len(read))]
        assert rows == written(tmp_path / "out", split)


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_rows_of_text_keep_their_text(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": f'é "{number}"\n'} for number in range(9)])
    preprocess(tmp_path / "out", dataset(source), output_format=("parquet", "jsonl", "mds"))
    assert json_lines(tmp_path / "out", "train") == mds_rows(tmp_path / "out", "train") == written(tmp_path / "out")


def test_another_format_needs_no_parquet_and_no_tokenizing(chats: Path, tmp_path: Path) -> None:
    staging = str(tmp_path / "units")
    made(tmp_path / "first", chats, ("parquet", "mds", "npy"), staging_dir=staging)
    manifest = made(tmp_path / "second", chats, ("mds", "npy"), staging_dir=staging, num_workers=2)
    assert manifest.units_found == manifest.units
    assert all(not split.shards for split in manifest.splits.values())
    assert "jsonl" not in manifest.formats
    second = tmp_path / "second"
    assert sorted(path.name for path in second.iterdir()) == ["README.md", "manifest.json", "mds", "npy"]
    for name in ("mds", "npy"):
        assert files_below(second / name) == files_below(tmp_path / "first" / name)
    assert open_shards(str(second)).column_names("train") == ["input_ids", "labels", "meta"]
    assert not compare_datasets(InspectConfig(directory=str(second), compare=str(tmp_path / "first"))).differs


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_damaged_file_is_found_and_written_again(chats: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(out, chats, ("parquet", "jsonl", "mds"))
    before = files_below(out)
    config = InspectConfig(directory=str(out))
    assert not verify(config).differences
    (out / "mds" / "train" / "index.json").unlink()
    lines = out / "jsonl" / "train-00000-of-00002.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b"1", b"2"))
    assert {each.place: each.what for each in verify(config).differences} == {
        "mds/train/index.json": "is missing",
        "jsonl/train-00000-of-00002.jsonl": "its content changed",
    }
    made(out, chats, ("parquet", "jsonl", "mds"))
    after = files_below(out)
    assert {name for name in before if before[name] != after[name]} <= {"manifest.json"}


def test_formats_that_are_no_longer_written_are_removed(chats: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(out, chats, ("parquet", "mds"))
    (out / "mds" / "notes.txt").write_text("mine")
    made(out, chats, ("parquet", "jsonl"), overwrite=True)
    names = set(files_below(out))
    assert "mds/notes.txt" in names
    assert not any(name.startswith("mds/train") for name in names)
    assert not (out / ".staging").exists()


@pytest.mark.parametrize("foreign", ["mds/notes.txt", "mds", "mds/train/index.json"])
def test_a_foreign_file_in_a_folder_of_a_format_is_refused(foreign: str, chats: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(OutputError, match=rf"holds {foreign}, which sftkit did not write"):
        made(tmp_path / "out", chats, ("mds",))
    assert path.read_text() == "mine"


@pytest.mark.parametrize("link", ["mds", "mds/train"])
def test_what_a_linked_folder_leads_to_stays(link: str, chats: Path, tmp_path: Path) -> None:
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    made(out, chats, ("parquet", "mds"))
    shutil.move(out / link, theirs)
    (out / link).symlink_to(theirs)
    before = files_below(theirs)
    with pytest.raises(OutputError, match=rf"holds {link}, which sftkit did not write"):
        made(out, chats, ("mds",), overwrite=True)
    made(out, chats, ("parquet",), overwrite=True)
    assert files_below(theirs) == before


@pytest.mark.parametrize("name", ["../theirs/index.json", "mds/../../theirs/index.json", "/theirs/index.json", "mds/x"])
def test_a_manifest_of_a_stranger_removes_nothing_outside(name: str, chats: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(out, chats, ("parquet", "mds"))
    for path in (tmp_path / "theirs" / "index.json", out / "mds" / "x"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["formats"]["mds"].append({"file": name, "bytes": 4, "sha256": "", "rows": None})
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert any(each.place == name for each in verify(InspectConfig(directory=str(out))).differences)
    made(out, chats, ("parquet", "jsonl"), overwrite=True)
    assert (tmp_path / "theirs" / "index.json").read_text() == (out / "mds" / "x").read_text() == "mine"


def test_formats_that_do_not_exist_are_refused(chats: Path, tmp_path: Path) -> None:
    problems: list[Problem] = []
    assert bind_config(PreprocessConfig, {"output_dir": "out", "output_format": "parquet, litdata"}, problems) is None
    assert problems[0].message.startswith("output_format: LitGPT's loader of LitData trains every token")
    with pytest.raises(ConfigError, match="output_format: names no format; leave it out to write parquet"):
        made(tmp_path / "out", chats, ())
