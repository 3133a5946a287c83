"""Staged units by what is in them: which are found again, which are run, and what is left lying where."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from sftkit.build import is_done
from sftkit.config.schema import DatasetConfig, PreprocessConfig, ProcessorConfig, SplitConfig
from sftkit.errors import DataError, OutputError
from sftkit.planning import plan
from sftkit.rows import Ragged, Row
from sftkit.shards.manifest import Manifest
from sftkit.shards.staging import StagingWriter
from sftkit.tokenization.bare_ids import GigatokenIds
from support import dataset, handler, preprocess, shard_bytes, write_jsonl, written

PAIRS = [{"id": i, "input": f"question {i} " + "cat " * (i % 7), "output": f"answer {i}"} for i in range(60)]
OPTIONS: dict[str, Any] = {"model_name_or_path": "sample:model", "unit_size": 1000}


def paired(*paths: Path, **keys: Any) -> DatasetConfig:
    names = {"input_field_name": "input", "output_field_name": "output"}
    return dataset(*paths, data_handlers=[handler("tokenize_and_apply_input_masking", **names)], **keys)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", PAIRS)


def units(folder: Path) -> list[str]:
    """Names of what stands in a staging directory."""
    return sorted(path.name for path in folder.iterdir())


def timeless(manifest: Manifest) -> Manifest:
    """A manifest without what may differ between two runs that make the same."""
    return replace(manifest, seconds={}, worker_seconds={}, units_found=0, config={})


# --- Found again --------------------------------------------------------------------------------------


def test_what_is_found_gives_the_bytes_and_the_account_of_what_is_run(tmp_path: Path, source: Path) -> None:
    rows = [*PAIRS[:3], "no row", {"input": 3, "output": "half \ud83d"}, *PAIRS[2:]]  # bad rows, a duplicate
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: dict[str, Any] = {**OPTIONS, "max_bad_rows": 2, "max_seq_length": 40, "overflow": "drop"}
    data = paired(source, retain_columns=("id", "input", "output"))
    fresh = preprocess(tmp_path / "fresh", data, **options)
    first = preprocess(tmp_path / "first", data, staging_dir=str(tmp_path / "units"), **options)
    again = preprocess(tmp_path / "again", data, staging_dir=str(tmp_path / "units"), num_workers=2, **options)
    assert (fresh.units_found, first.units_found) == (0, 0)
    assert again.units == again.units_found > 3
    assert again.worker_seconds == {}
    assert shard_bytes(tmp_path / "again") == shard_bytes(tmp_path / "first") == shard_bytes(tmp_path / "fresh")
    assert timeless(again) == timeless(first) == timeless(fresh)
    assert again.quarantined == 2
    assert again.audit is not None
    assert again.audit.findings
    quarantines = [(tmp_path / name / "quarantine.jsonl").read_text() for name in ("fresh", "again")]
    assert quarantines[0] == quarantines[1]


CHANGES: dict[str, tuple[Callable[[DatasetConfig], DatasetConfig], dict[str, Any]]] = {
    "another length of packs": (lambda data: data, {"packing": "bfd", "pack_length": 128}),
    "wrapped packs, and longer rows": (lambda data: data, {"packing": "wrapped", "pack_length": 32}),
    "packs, and what becomes of longer rows": (
        lambda data: data,
        {"packing": "bfd", "pack_length": 30, "overflow": "drop"},
    ),
    "shards": (lambda data: data, {"num_dataset_shards": 4}),
    "the seed": (lambda data: replace(data, shuffle=True), {"dataprocessor": ProcessorConfig(seed=5)}),
    "the split": (lambda data: replace(data, split=SplitConfig(validation=0.3)), {"num_eval_dataset_shards": 2}),
    "a weight and a name": (lambda data: replace(data, sampling=1.0, name="other"), {}),
    "the engine": (lambda data: data, {"engine": "reference", "engine_verify": 0.5}),
    "what is allowed to be bad": (lambda data: data, {"max_bad_rows": 7}),
    "another name for the handler": (
        lambda data: replace(
            data,
            data_handlers=(
                handler("tokenize_and_apply_input_masking", input_column_name="input", output_column_name="output"),
            ),
        ),
        {},
    ),
}


def made(output: Path, data: DatasetConfig, **options: Any) -> Manifest:
    processor = options.pop("dataprocessor", ProcessorConfig())
    return preprocess(output, data, processor={"seed": processor.seed}, **{**OPTIONS, **options})


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_nothing_is_run_for_a_change_of_what_comes_after_staging(tmp_path: Path, source: Path, what: str) -> None:
    change, options = CHANGES[what]
    shared = {"staging_dir": str(tmp_path / "units")}
    before = made(tmp_path / "one", paired(source), **shared)
    after = made(tmp_path / "two", change(paired(source)), **shared, **options)
    assert (after.units, after.units_found) == (before.units, before.units)
    made(tmp_path / "three", change(paired(source)), **options)
    assert shard_bytes(tmp_path / "two") == shard_bytes(tmp_path / "three")


ROW_CHANGES: dict[str, tuple[Callable[[DatasetConfig], DatasetConfig], dict[str, Any]]] = {
    "a retained column": (lambda data: replace(data, retain_columns=("id", "input", "output")), {}),
    "an argument": (
        lambda data: replace(
            data,
            data_handlers=(
                handler(
                    "tokenize_and_apply_input_masking",
                    input_field_name="input",
                    output_field_name="output",
                    add_eos_token=False,
                ),
            ),
        ),
        {},
    ),
    "the longest row": (lambda data: data, {"max_seq_length": 25}),
    "where the loss is": (lambda data: data, {"train_on": "all"}),
    "a special token": (lambda data: data, {"add_special_tokens": ("<|new|>",)}),
    "the cuts": (lambda data: data, {"unit_size": 1500}),
}


@pytest.mark.parametrize("what", sorted(ROW_CHANGES))
def test_everything_is_run_for_a_change_of_rows(tmp_path: Path, source: Path, what: str) -> None:
    change, options = ROW_CHANGES[what]
    shared = {"staging_dir": str(tmp_path / "units")}
    made(tmp_path / "one", paired(source), **shared)
    after = made(tmp_path / "two", change(paired(source)), **shared, **options)
    assert (after.units > 2, after.units_found) == (True, 0)
    made(tmp_path / "three", change(paired(source)), **options)
    assert shard_bytes(tmp_path / "two") == shard_bytes(tmp_path / "three")


def test_overflow_changes_rows_only_where_there_is_a_limit(tmp_path: Path, source: Path) -> None:
    shared = {"staging_dir": str(tmp_path / "units")}
    for name, options, found in (
        ("one", {}, False),
        ("two", {"overflow": "drop"}, True),
        ("three", {"max_seq_length": 30, "overflow": "drop"}, False),
        ("four", {"max_seq_length": 30}, False),
    ):
        manifest = made(tmp_path / name, paired(source), **shared, **options)
        assert manifest.units_found == (manifest.units if found else 0), name


def test_of_several_files_the_one_that_changed_is_run(tmp_path: Path) -> None:
    files = [write_jsonl(tmp_path / f"{name}.jsonl", PAIRS[at : at + 20]) for at, name in enumerate("abc")]
    shared = {"staging_dir": str(tmp_path / "units"), "unit_size": 1 << 20}
    assert made(tmp_path / "one", paired(*files), **shared).units_found == 0
    write_jsonl(files[1], PAIRS[30:50])
    moved = shutil.move(files[2], tmp_path / "moved.jsonl")
    after = made(tmp_path / "two", paired(moved, files[1], files[0]), **shared)
    assert (after.units, after.units_found) == (3, 2)
    made(tmp_path / "three", paired(moved, files[1], files[0]))
    assert shard_bytes(tmp_path / "two") == shard_bytes(tmp_path / "three")
    assert [source.path for source in after.sources] == [str(moved), str(files[1]), str(files[0])]


def test_equal_units_of_one_run_are_run_once(tmp_path: Path, source: Path) -> None:
    copy = Path(shutil.copy(source, tmp_path / "copy.jsonl"))
    parts = [paired(source, name="a"), paired(copy, name="b"), paired(source, name="c", retain_columns=("id",))]
    parts[2] = replace(parts[2], retain_columns=("id", "input", "output"))
    manifest = preprocess(tmp_path / "out", *parts, num_workers=1, **OPTIONS)
    assert manifest.units % 3 == 0
    assert manifest.units_found == manifest.units // 3
    assert manifest.rows_written == 180
    rows = [{name: row[name] for name in ("input_ids", "labels")} for row in written(tmp_path / "out")]
    assert rows[:60] == rows[60:120] == rows[120:]


def test_units_without_a_row_are_found_too(tmp_path: Path) -> None:
    rows = [{"text": f"{i} no response {'x' * 50}"} for i in range(20)] + [{"text": "### R:\nyes"}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    options: dict[str, Any] = {"response_template": "### R:\n", "unit_size": 500, "model_name_or_path": "sample:model"}
    for name, found in (("one", 0), ("two", 1)):
        manifest = preprocess(tmp_path / name, dataset(source), staging_dir=str(tmp_path / "units"), **options)
        assert (manifest.units > 2, manifest.units_found) == (True, manifest.units * found)
        assert manifest.dropped == {"no response found by response_template": 20}


def test_a_function_of_the_users_own_is_known_by_its_source(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / f"own_{os.getpid()}.py"
    module.write_text("def keep(row):\n    return row\n")
    data = paired(source)
    data = replace(data, data_handlers=(handler(f"{module.stem}:keep"), *data.data_handlers))
    config = PreprocessConfig(output_dir=str(tmp_path / "a"), datasets=(data,), **OPTIONS)
    found, done = [], []
    for name, text in (("a", None), ("b", None), ("c", "# other\ndef keep(row):\n    return row\n")):
        if text is not None:
            module.write_text(text)
        manifest = made(tmp_path / name, data, staging_dir=str(tmp_path / "units"))
        found.append(manifest.units_found / manifest.units)
        done.append(is_done(plan(config)) is not None)
    assert found == [0, 1, 0]
    assert done == [True, True, False], "what is there is not taken for what the new function would make"


def test_a_file_of_the_same_path_is_not_the_same_file(tmp_path: Path) -> None:
    path = "memory://sftkit-staging/in.jsonl"
    counts = []
    for name, rows in (("a", PAIRS[:20]), ("b", PAIRS[20:40]), ("c", PAIRS[:20])):
        with fsspec.open(path, "w") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in rows))
        manifest = made(tmp_path / name, paired(path), staging_dir=str(tmp_path / "units"))  # type: ignore[arg-type]
        counts.append(manifest.units_found / manifest.units)
    assert counts == [0, 0, 1]
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "c") != shard_bytes(tmp_path / "b")


# --- What is not whole --------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("account", [False, True], ids=["rows", "account"])
@pytest.mark.parametrize("harm", [cut, change, Path.unlink], ids=["cut", "changed", "removed"])
def test_a_harmed_unit_is_run_again(tmp_path: Path, source: Path, harm: Callable[[Path], None], account: bool) -> None:
    shared = {"staging_dir": str(tmp_path / "units")}
    first = made(tmp_path / "one", paired(source), **shared)
    harmed = next(path for path in sorted((tmp_path / "units").iterdir()) if (".account." in path.name) == account)
    if account and harm is change:
        harmed.write_bytes(b"not of ours")
    else:
        harm(harmed)
    after = made(tmp_path / "two", paired(source), **shared)
    assert after.units_found == first.units - 1
    assert shard_bytes(tmp_path / "two") == shard_bytes(tmp_path / "one")
    assert made(tmp_path / "three", paired(source), **shared).units_found == first.units


def test_units_of_an_engine_that_turns_out_to_differ_are_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = [write_jsonl(tmp_path / f"{name}.jsonl", PAIRS * 20) for name in "ab"]
    write_jsonl(files[1], [*PAIRS * 20, {"input": "Zauberwort", "output": "zwei drei vier"}])
    shared: dict[str, Any] = {"staging_dir": str(tmp_path / "units"), "unit_size": 1 << 20, "engine_verify": 1.0}
    first = made(tmp_path / "one", paired(files[0]), **shared)
    right = GigatokenIds.ids

    def wrong(self: GigatokenIds, texts: list[str]) -> Ragged:
        ids = right(self, texts)
        for row, text in enumerate(texts):
            if "Zauberwort" in text:
                ids[row][-3:-1] = ids[row][-3:-1][::-1].copy()
        return ids

    monkeypatch.setattr(GigatokenIds, "ids", wrong)
    monkeypatch.setattr(logging.getLogger("sftkit"), "propagate", True)
    both = made(tmp_path / "two", paired(*files), **shared)
    assert "the fast encoder differs from the reference" in caplog.text
    assert (first.engine["encoder"], both.engine["encoder"]) == ("gigatoken", "tokenizers")
    assert (both.units, both.units_found) == (2, 0)


# --- What is left -------------------------------------------------------------------------------------


def test_units_are_gone_after_a_run_unless_they_are_to_be_kept(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    made(out, paired(source))
    assert not (out / ".staging").exists()
    first = made(out, paired(source), keep_staging=True, overwrite=True, num_dataset_shards=2)
    assert len(units(out / ".staging")) == 2 * first.units
    assert {name.split("-")[0] for name in units(out / ".staging")} == {"unit"}
    again = made(out, paired(source), keep_staging=True, overwrite=True, packing="bfd", pack_length=64)
    assert again.units_found == first.units == len(units(out / ".staging")) / 2
    with pytest.raises(DataError, match="cannot fill 99 shards"):
        made(out, paired(source), overwrite=True, num_dataset_shards=99)
    assert len(units(out / ".staging")) == 2 * first.units, "a run that fails leaves what it has found"
    assert made(out, paired(source), overwrite=True, num_dataset_shards=3).units_found == first.units
    assert not (out / ".staging").exists()


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_that_fails_leaves_its_units_for_the_next(tmp_path: Path, source: Path, keep: bool) -> None:
    with pytest.raises(DataError, match="cannot fill 99 shards"):
        made(tmp_path / "out", paired(source), num_dataset_shards=99, keep_staging=keep)
    after = made(tmp_path / "out", paired(source), keep_staging=keep)
    assert after.units_found == after.units
    assert (tmp_path / "out" / ".staging").exists() == keep


def test_a_directory_of_the_users_own_holds_whole_units_only_and_is_never_emptied(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "some" / "units"
    first = made(tmp_path / "one", paired(source), staging_dir=str(shared))
    assert not (tmp_path / "one" / ".staging").exists()
    whole = units(shared)
    assert len(whole) == 2 * first.units
    (shared / "mine.txt").write_text("mine")

    def broken(*_: object) -> None:
        assert units(shared) == sorted([*whole, "mine.txt"]), "shards are made elsewhere"
        assert units(tmp_path / "two" / ".staging") == ["lock", "train-00000-of-00001.parquet"]
        raise KeyboardInterrupt

    monkeypatch.setattr("sftkit.build.make_manifest", broken)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "two", paired(source), staging_dir=str(shared))
    assert not (tmp_path / "two").exists()
    assert units(shared) == sorted([*whole, "mine.txt"])


def test_a_broken_run_leaves_nothing_unfinished_in_a_directory_of_the_users_own(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "units"
    monkeypatch.setattr(StagingWriter, "__exit__", lambda *_: None)  # as if killed: nothing is closed or renamed
    with pytest.raises(OutputError, match=r"staging_dir .*units: cannot be written: No such file or directory"):
        made(tmp_path / "one", paired(source), staging_dir=str(shared))
    assert units(shared) == []


def test_the_default_place_given_by_name_is_a_directory_of_the_users_own(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    first = made(out, paired(source), staging_dir=str(out / ".staging"))
    assert len(units(out / ".staging")) == 2 * first.units


def test_a_staging_dir_that_cannot_be_written_is_one_sentence(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OutputError, match=r"^staging_dir .*pairs\.jsonl/units: cannot be written: Not a directory$"):
        made(tmp_path / "out", paired(source), staging_dir=str(source / "units"))
    assert not (tmp_path / "out").exists()


def test_equal_rows_have_equal_keys_whatever_they_are_called(tmp_path: Path, source: Path) -> None:
    copy = Path(shutil.copy(source, tmp_path / "copy.jsonl"))

    def keys(data: DatasetConfig, **options: Any) -> tuple[str, ...]:
        config = PreprocessConfig(output_dir="o", datasets=(data,), **{**OPTIONS, **options})
        return plan(config).keys

    first = keys(paired(source))
    assert len(set(first)) == len(first) > 3
    assert keys(paired(copy, name="other"), packing="bfd", pack_length=9) == first
    both = keys(dataset(source, copy, data_handlers=paired(source).data_handlers))
    assert both == first * 2
    rows: list[Row] = [*PAIRS[1:], PAIRS[0]]
    assert not set(keys(paired(write_jsonl(tmp_path / "turned.jsonl", rows)))) & set(first)
