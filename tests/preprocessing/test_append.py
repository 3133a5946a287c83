"""`append`: new files become shards beside those of a finished data set, whose shards stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from datasets import load_dataset

import sftkit
from sftkit.config.commands import InspectConfig
from sftkit.errors import ConfigError, DataError, OutputError
from sftkit.inspection.verify.verify_dataset import verify
from sftkit.shards.output import base_output
from sftkit.shards.output.local_output import LocalOutput
from support import shard_bytes, write_jsonl, written

KEYS: dict[str, Any] = {
    "packing": "bfd",
    "pack_length": 64,
    "num_dataset_shards": 2,
    "max_bad_rows": 9,
    "keep_dropped": 3,
    "source_column": True,
}


def write_rows(path: Path, first: int, count: int) -> None:
    """Rows of 3 to 9 tokens; one in ten is too long, and the last cannot be used."""
    rows: list[dict[str, Any]] = []
    for number in range(first, first + count):
        ids = [10 + number] * (99 if number % 10 == 0 else 3 + number % 7)
        rows.append({"input_ids": ids, "labels": ids, "id": number})
    write_jsonl(path, [*rows, {"input_ids": [1, 2], "labels": [1]}])


def add(folder: Path, output: object = None, **keys: Any) -> sftkit.PreprocessResult:
    data = [
        {"name": name, "data_paths": [str(folder / name)], "split": {"validation": 0.2}, "retain_columns": ["id"]}
        for name in ("first", "second")
    ]
    return sftkit.preprocess(
        datasets=data, output_dir=str(output or folder / "out"), append=True, overflow="drop", max_seq_length=64,
        **KEYS | keys,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two data sets of one file each, and the shards of both."""
    for number, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "m.jsonl", 100 * number, 40)
    assert add(tmp_path).ran  # there is nothing to add to yet
    return tmp_path


def ids_in(output: Path) -> list[int]:
    return sorted(each for split in ("train", "validation") for pack in written(output, split) for each in pack["id"])


def listed(output: Path, name: str) -> list[tuple[str, int]]:
    entries = [json.loads(line) for line in (output / name).read_text().splitlines()]
    return [(Path(entry["path"]).name, entry["row"]) for entry in entries]


def test_new_files_become_shards_beside_the_old_ones(folder: Path) -> None:
    output = folder / "out"
    before, old_rows = shard_bytes(output), ids_in(output)
    write_rows(folder / "second" / "a.jsonl", 300, 30)  # before the old file by name
    planned = add(folder, dry_run=True).plan
    added = add(folder, num_workers=2)
    after = shard_bytes(output)
    assert added.ran
    assert before.items() <= after.items()
    new = ["train-00002-of-00004.parquet", "train-00003-of-00004.parquet", "validation-00001-of-00002.parquet"]
    assert sorted(after.keys() - before.keys()) == new
    assert [f"{name}.parquet" for split in ("train", "validation") for name in planned.shard_names(split)] == new
    manifest = added.manifest
    assert manifest is not None
    new_rows = [number for number in range(300, 330) if number % 10]
    assert ids_in(output) == sorted([*old_rows, *new_rows])
    assert (manifest.rows_read, manifest.rows_written, manifest.quarantined) == (113, 99, 3)
    assert sum(manifest.dropped.values()) == 11
    assert [source.sources for source in manifest.increments] == [2, 1]
    assert listed(output, "quarantine.jsonl") == [("m.jsonl", 41), ("m.jsonl", 41), ("a.jsonl", 31)]
    assert len(listed(output, "dropped.jsonl")) == 3
    sources = {
        source for split in ("train", "validation") for pack in written(output, split) for source in pack["source"]
    }
    assert sources == {0, 1}
    assert verify(InspectConfig(directory=str(output))).differences == ()
    assert load_dataset(str(output), cache_dir=str(folder / "cache"))["train"].num_rows == manifest.splits["train"].rows
    assert not add(folder).ran
    assert shard_bytes(output) == after


def test_several_additions_follow_each_other_in_an_object_store(folder: Path) -> None:
    stores = {"here": str(folder / "out"), "there": "memory://appended/out"}
    add(folder, stores["there"])
    for number in (3, 4):
        write_rows(folder / "first" / f"{number}.jsonl", 100 * number, 20 + number)
        found = {name: add(folder, output, num_dataset_shards=number - 2).manifest for name, output in stores.items()}
        assert found["here"] is not None
        assert found["there"] is not None
        assert found["here"].splits == found["there"].splits
        assert len(found["here"].increments) == number - 1
        assert not add(folder, stores["there"]).ran
    files = fsspec.filesystem("memory").glob("/appended/out/*.parquet")
    assert {Path(name).name for name in files} == shard_bytes(folder / "out").keys()


@pytest.mark.parametrize("place", ["moving shards", "writing lists", "writing the manifest"])
def test_an_interrupted_addition_leaves_the_data_set(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output, expected = folder / "out", tmp_path_factory.mktemp("expected") / "out"
    add(folder, expected)
    before, old_rows = shard_bytes(output), ids_in(output)
    write_rows(folder / "first" / "n.jsonl", 300, 30)
    add(folder, expected)

    def stop(*arguments: Any, **keys: Any) -> None:
        raise KeyboardInterrupt

    def stop_at_manifest(path: Path, *arguments: Any) -> None:
        if path.name == base_output.MANIFEST_NAME:
            raise KeyboardInterrupt
        write_text(path, *arguments)

    write_text = base_output.write_text
    with monkeypatch.context() as patch:
        if place == "moving shards":
            patch.setattr(LocalOutput, "_move_into_place", stop)
        elif place == "writing lists":
            patch.setattr(base_output, "write_side_files", stop)
        else:
            patch.setattr(base_output, "write_text", stop_at_manifest)
        with pytest.raises(KeyboardInterrupt):
            add(folder)
    assert before.items() <= shard_bytes(output).items()
    assert sum(len(row.seq_lengths) for split in sftkit.open_shards(output).values() for row in split) == len(old_rows)
    manifest = sftkit.open_shards(output).manifest
    assert manifest is not None
    assert manifest.rows_written == len(old_rows)
    add(folder)
    assert shard_bytes(output) == shard_bytes(expected)
    assert listed(output, "quarantine.jsonl") == listed(expected, "quarantine.jsonl")
    assert not (output / ".staging").exists()


def test_shards_of_an_interrupted_addition_are_removed_by_any_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shard_bytes(folder / "out")
    write_rows(folder / "first" / "n.jsonl", 300, 30)
    with monkeypatch.context() as patch:
        patch.setattr(base_output, "write_side_files", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            add(folder)
    assert len(shard_bytes(folder / "out")) > len(before)
    (folder / "first" / "n.jsonl").unlink()
    assert not add(folder).ran
    assert shard_bytes(folder / "out") == before


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"pack_length": 128},
            r"append: the config does not make the rows of the data set in .*\(pack_length differs\)",
        ),
        ({"dataprocessor": {"deduplicate": "exact"}}, "append does not work with dataprocessor.deduplicate, which"),
        (
            {"dataprocessor": {"order": "by_length"}, "packing": "next_fit"},
            "append does not work with dataprocessor.order=",
        ),
        ({"output_format": ["parquet", "jsonl"]}, "append works with output_format=parquet only; leave out jsonl, or"),
        ({"keep_dropped": 7}, "append: keep_dropped must be 3, as in the data set"),
        ({"overwrite": True}, "append adds to the data set in output_dir, and overwrite replaces it"),
    ],
)
def test_what_is_about_all_rows_is_refused(folder: Path, keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        add(folder, **keys)


def test_old_files_and_columns_must_stay(folder: Path) -> None:
    write_jsonl(folder / "first" / "n.jsonl", [{"input_ids": [5, 6], "labels": [5, 6], "id": "x"}] * 9)
    with pytest.raises(DataError, match=r"append: the column 'id' is list<element: int64> in the shards of .* string"):
        add(folder)
    (folder / "first" / "n.jsonl").unlink()
    write_rows(folder / "second" / "m.jsonl", 100, 41)
    with pytest.raises(OutputError, match=r"m.jsonl, which the data set was made of, has changed or is not among"):
        add(folder)


def test_rows_of_all_additions_are_compared_with_inference(tmp_path: Path) -> None:
    def added(*names: str) -> sftkit.PreprocessResult:
        return sftkit.preprocess(
            training_data_path=[str(tmp_path / name) for name in names], model_name_or_path="sample:model",
            output_dir=str(tmp_path / "out"), append=True, overflow="truncate_left", max_seq_length=64,
        )  # fmt: skip

    for name, words in (("long.jsonl", 99), ("short.jsonl", 1)):
        turns = [{"role": "user", "content": "word " * words}, {"role": "assistant", "content": "Yes."}]
        write_jsonl(tmp_path / name, [{"messages": turns}])
    assert added("long.jsonl").manifest.inference_exact is False
    joined = added("long.jsonl", "short.jsonl").manifest
    assert joined.inference_exact is False
    assert joined.inference is not None
    assert joined.inference.rows == 2
