"""Staged units: which are reused, which are run again, and which files remain where."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig, ProcessorConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Ragged
from sftkit.errors import DataError, OutputError, SourceError, TokenizerError
from sftkit.preprocessing.build import find_finished, run
from sftkit.preprocessing.planning import plan
from sftkit.preprocessing.recipe_bundle import matching_chat_tokenizer
from sftkit.sample import sample_path
from sftkit.shards.manifest import Manifest
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.tokenization.encoding.fast.id_engines import GigatokenEngine
from support import dataset, examples, handler, preprocess, shard_bytes, write_jsonl, written

PAIRS = [{"id": i, "input": f"question {i} " + "cat " * (i % 7), "output": f"answer {i}"} for i in range(60)]
OPTIONS: dict[str, Any] = {"model_name_or_path": "sample:model", "unit_size": 1000}


def paired(*paths: Path, **keys: Any) -> DatasetConfig:
    names = {"input_field_name": "input", "output_field_name": "output"}
    return dataset(*paths, data_handlers=[handler("tokenize_and_apply_input_masking", **names)], **keys)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", PAIRS)


def units(folder: Path) -> list[str]:
    """The file names in a staging directory."""
    return sorted(path.name for path in folder.iterdir())


def timeless(manifest: Manifest) -> Manifest:
    """A manifest without the values that may differ between equal runs."""
    return replace(manifest, seconds={}, worker_seconds={}, rows_by_programs=0, units_found=0, config={})


# --- Reuse --------------------------------------------------------------------------------------------


def test_reused_units_give_the_same_bytes_and_row_counts(tmp_path: Path, source: Path) -> None:
    rows = [*PAIRS[:3], "no row", {"input": 3, "output": "half \ud83d"}, *PAIRS[2:]]  # bad rows, a duplicate
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: dict[str, Any] = {**OPTIONS, "max_bad_rows": 2, "max_seq_length": 13, "overflow": "drop"}
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
    for list_name in ("quarantine.jsonl", "dropped.jsonl"):
        lists = [(tmp_path / name / list_name).read_text() for name in ("fresh", "again")]
        assert lists[0] == lists[1] != ""


def test_a_damaged_unit_record_or_one_of_another_unit_is_not_used(tmp_path: Path, source: Path) -> None:
    """A bit is flipped anywhere in a unit record, or the files of one unit have the name of another."""
    store, data = tmp_path / "units", paired(source, retain_columns=("id", "input", "output"))
    options: dict[str, Any] = {**OPTIONS, "packing": "bfd", "pack_length": 64, "staging_dir": str(store)}
    made = preprocess(tmp_path / "first", data, **options)
    accounts = sorted(store.glob("*.account.arrow"))
    first, second = accounts[:2]
    whole = first.read_bytes()
    chance = random.Random(1)
    for number, place in enumerate(sorted(chance.sample(range(len(whole)), examples(100)))):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        first.write_bytes(damaged)
        again = preprocess(tmp_path / f"again{number}", data, **options)
        assert again.units - again.units_found in (0, 1)  # Arrow pads: some bits say nothing
        assert timeless(again) == timeless(made)
        assert shard_bytes(tmp_path / f"again{number}") == shard_bytes(tmp_path / "first")
        first.write_bytes(whole)
    for suffix in (".account.arrow", ".arrow"):
        names = [Path(str(account).replace(".account.arrow", suffix)) for account in (first, second)]
        shutil.copyfile(*names)
    swapped = preprocess(tmp_path / "swapped", data, **options)
    assert swapped.units - swapped.units_found == 1
    assert shard_bytes(tmp_path / "swapped") == shard_bytes(tmp_path / "first")


def test_a_failed_run_leaves_the_data_set_that_it_would_have_replaced(tmp_path: Path, source: Path) -> None:
    source.write_text(source.read_text() + "[1]\n")
    worse = write_jsonl(tmp_path / "worse.jsonl", [*PAIRS[:3], 1, 2])
    options: dict[str, Any] = {**OPTIONS, "max_bad_rows": 1}
    preprocess(tmp_path / "out", paired(source), **options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    with pytest.raises(DataError, match=r"out/\.staging/quarantine\.jsonl; fix them"):
        preprocess(tmp_path / "out", paired(worse), overwrite=True, **options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before
    assert len((tmp_path / "out" / ".staging" / "quarantine.jsonl").read_text().splitlines()) == 2
    config = PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(paired(source),), num_workers=1, **options)
    assert find_finished(plan(config)) is not None
    (tmp_path / "out" / "quarantine.jsonl").write_text("another\n")
    assert find_finished(plan(config)) is None


def test_values_of_incompatible_types_give_the_same_error_for_any_unit_size(tmp_path: Path) -> None:
    values = [1, 2, 2.5, 9007199254740993, 3]
    source = write_jsonl(tmp_path / "a.jsonl", [{**PAIRS[n], "n": value} for n, value in enumerate(values)])
    data = paired(source, retain_columns=("n", "input", "output"))
    for size, place in (
        (30, "retain_columns: column 'n' has type double over all rows"),
        (1 << 20, "a.jsonl:4: retain_columns"),
    ):
        with pytest.raises(DataError, match=place):
            preprocess(tmp_path / f"out{size}", data, **{**OPTIONS, "unit_size": size})


ROWS = [json.dumps(row) for row in PAIRS]
EDITS: dict[str, tuple[Callable[[list[str]], list[str]], int]] = {
    "a byte": (lambda rows: [*rows[:30], rows[30].replace("cat", "cut"), *rows[31:]], 1),
    "a longer row": (lambda rows: [*rows[:30], rows[30].replace("question", "the question"), *rows[31:]], 1),
    "rows at the end": (lambda rows: [*rows, *rows[:3]], 2),  # the last unit, and one more
    "the last rows taken away": (lambda rows: rows[:-2], 1),
    "a blank line": (lambda rows: [*rows[:7], "", *rows[7:]], 1),
    "nothing": (lambda rows: rows, 0),
}


@pytest.mark.parametrize("edit", EDITS)
def test_only_the_edited_units_of_a_source_are_run(tmp_path: Path, edit: str) -> None:
    """The rows of the other units get the row numbers that they have now."""
    change, most = EDITS[edit]
    rows = [*ROWS[:5], "{broken", *ROWS[5:50], "[]", ROWS[49], *ROWS[50:]]  # bad rows before and behind, a duplicate
    source = tmp_path / "pairs.jsonl"
    options: dict[str, Any] = {**OPTIONS, "unit_size": 600, "max_bad_rows": 2, "staging_dir": str(tmp_path / "units")}
    source.write_text("".join(f"{row}\n" for row in rows))
    preprocess(tmp_path / "first", paired(source), **options)
    source.write_text("".join(f"{row}\n" for row in change(rows)))
    after = preprocess(tmp_path / "after", paired(source), **options)
    fresh = preprocess(tmp_path / "fresh", paired(source), **{**options, "staging_dir": None})
    assert after.units - after.units_found == most
    assert after.units > 5
    assert shard_bytes(tmp_path / "after") == shard_bytes(tmp_path / "fresh")
    assert timeless(after) == timeless(fresh)
    quarantines = [(tmp_path / name / "quarantine.jsonl").read_text() for name in ("after", "fresh")]
    assert quarantines[0] == quarantines[1]
    assert after.audit is not None
    [finding] = [finding for finding in after.audit.findings if finding.rule == "duplicate_row"]
    [place] = [text for text in finding.examples if text.endswith((":53", ":54"))] or finding.examples[:1]
    assert source.read_text().splitlines()[int(place.rsplit(":", 1)[1]) - 1] == ROWS[49]


def test_a_source_that_changes_during_a_run_ends_it_without_keeping_its_rows(tmp_path: Path, source: Path) -> None:
    config = PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(paired(source),), num_workers=1, **OPTIONS)
    planned = plan(config)
    source.write_text(source.read_text().replace("cat", "cow"))
    with pytest.raises(SourceError, match=r"pairs\.jsonl: changed while it was read; run the command again"):
        run(planned, SilentProgress())
    again = run(plan(config), SilentProgress())
    assert again.units_found == 0
    preprocess(tmp_path / "fresh", paired(source), **OPTIONS)
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "fresh")


@pytest.mark.parametrize("file", ["generation_config.json", "chat_template.jinja"])
def test_a_tokenizer_that_changes_during_a_run_ends_it(tmp_path: Path, source: Path, file: str) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(sample_path("sample:model"), folder)
    options = {**OPTIONS, "model_name_or_path": str(folder)}
    planned = plan(PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(paired(source),), **options))
    content = '{"eos_token_id": [0, 1]}' if file.endswith(".json") else "{{ messages[0].content }}"
    (folder / file).write_text(content)
    with pytest.raises(TokenizerError, match="the tokenizer's files changed during the run; run the command again"):
        planned.without_engine("encoder")
    with pytest.raises(TokenizerError, match="the tokenizer's files changed during the run; run the command again"):
        matching_chat_tokenizer(planned.recipe.chat_tokenizer, planned.pipeline.chat_tokenizer.identity)


def made(output: Path, data: DatasetConfig, **options: Any) -> Manifest:
    processor = options.pop("dataprocessor", ProcessorConfig())
    return preprocess(output, data, processor={"seed": processor.seed}, **{**OPTIONS, **options})


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


def test_units_without_rows_are_reused(tmp_path: Path) -> None:
    rows = [{"text": f"{i} no response {'x' * 50}"} for i in range(20)] + [{"text": "### R:\nyes"}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    options: dict[str, Any] = {"response_template": "### R:\n", "unit_size": 500, "model_name_or_path": "sample:model"}
    for name, found in (("one", 0), ("two", 1)):
        manifest = preprocess(tmp_path / name, dataset(source), staging_dir=str(tmp_path / "units"), **options)
        assert (manifest.units > 2, manifest.units_found) == (True, manifest.units * found)
        assert manifest.dropped == {"no response found by response_template": 20}


# --- Corrupt units ------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("account", [False, True], ids=["rows", "account"])
@pytest.mark.parametrize("harm", [cut, change, Path.unlink], ids=["cut", "changed", "removed"])
def test_a_corrupt_unit_is_run_again(tmp_path: Path, source: Path, harm: Callable[[Path], None], account: bool) -> None:
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


def test_units_of_an_engine_that_differs_later_are_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = [write_jsonl(tmp_path / f"{name}.jsonl", PAIRS * 20) for name in "ab"]
    write_jsonl(files[1], [*PAIRS * 20, {"input": "Zauberwort", "output": "zwei drei vier"}])
    shared: dict[str, Any] = {"staging_dir": str(tmp_path / "units"), "unit_size": 1 << 20, "engine_verify": 1.0}
    first = made(tmp_path / "one", paired(files[0]), **shared)
    right = GigatokenEngine.ids

    def wrong(self: GigatokenEngine, texts: list[str]) -> Ragged:
        ids = right(self, texts)
        for row, text in enumerate(texts):
            if "Zauberwort" in text:
                ids[row][-3:-1] = ids[row][-3:-1][::-1].copy()
        return ids

    monkeypatch.setattr(GigatokenEngine, "ids", wrong)
    monkeypatch.setattr(logging.getLogger("sftkit"), "propagate", True)
    both = made(tmp_path / "two", paired(*files), **shared)
    assert "the fast encoder differs from the reference" in caplog.text
    assert (first.engine["encoder"], both.engine["encoder"]) == ("gigatoken", "tokenizers")
    assert (both.units, both.units_found) == (2, 0)


# --- Remaining files -----------------------------------------------------------------------------------


def test_staged_units_are_removed_after_a_run_unless_keep_staging_is_set(tmp_path: Path, source: Path) -> None:
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
def test_a_failed_run_keeps_its_units_for_the_next_run(tmp_path: Path, source: Path, keep: bool) -> None:
    with pytest.raises(DataError, match="cannot fill 99 shards"):
        made(tmp_path / "out", paired(source), num_dataset_shards=99, keep_staging=keep)
    after = made(tmp_path / "out", paired(source), keep_staging=keep)
    assert after.units_found == after.units
    assert (tmp_path / "out" / ".staging").exists() == keep


def test_a_user_staging_directory_has_complete_units_only_and_is_never_emptied(
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
        lock, run = sorted((tmp_path / "two" / ".staging").iterdir())
        assert (lock.name, units(run)) == ("lock", ["sftkit_run", "train-00000-of-00001.parquet"])
        raise KeyboardInterrupt

    monkeypatch.setattr("sftkit.preprocessing.build.make_manifest", broken)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "two", paired(source), staging_dir=str(shared))
    assert not (tmp_path / "two").exists()
    assert units(shared) == sorted([*whole, "mine.txt"])


def broken(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_failed_run_leaves_no_unfinished_files_in_a_user_staging_directory(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "units"
    monkeypatch.setattr(UnitWriter, "__exit__", lambda *_: None)  # as if killed: nothing is closed or renamed
    monkeypatch.setattr(UnitStore, "commit", broken)
    with pytest.raises(OutputError, match=r"staging_dir .*units: cannot be written: Input/output error"):
        made(tmp_path / "one", paired(source), staging_dir=str(shared))
    assert units(shared) == []


def test_naming_the_default_staging_directory_makes_it_a_user_directory(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    first = made(out, paired(source), staging_dir=str(out / ".staging"))
    assert len(units(out / ".staging")) == 2 * first.units


def test_the_error_for_an_unwritable_staging_dir_is_one_sentence(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OutputError, match=r"^staging_dir .*pairs\.jsonl/units: cannot be written: Not a directory$"):
        made(tmp_path / "out", paired(source), staging_dir=str(source / "units"))
    assert not (tmp_path / "out").exists()
