"""Many small files share work units; shards and accounts are those of a unit for each file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.schema.data_config import DatasetConfig
from sftkit.errors import DataError, SourceError
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest
from sftkit.sources import small_files
from sftkit.sources.source_file import Range, SourceFile
from sftkit.sources.work_units import FilePart, ScannedFile, WorkUnit
from support import dataset, handler, preprocess, shard_bytes, write_jsonl

TOO_LARGE = {"id": "large", "text": "w " * 300}
FILES = 180


def lines(number: int) -> Iterator[str]:
    """Lines of one file: rows, blank lines, lines that are no rows, dropped rows, rows longer than a pack."""
    chance = random.Random(number)
    for index in range(chance.choice([0, 1, 1, 1, 2, 5])):
        row = {"id": f"{number}.{index}", "text": f"row {number % 30} of " + "word " * chance.randrange(60)}
        good = json.dumps(row)
        yield chance.choice([good, good, good, "", "{broken", '{"text": null}', json.dumps(TOO_LARGE), "[1]"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    for number in range(FILES):
        end = "" if number % 3 else "\n"  # a last line need not have a line end
        (place / f"{number:03}.jsonl").write_text("\n".join(lines(number)) + end)
    (place / "050a.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "bom", "text": "with a byte order mark"}\n')
    write_jsonl(place / "090a.jsonl", [{"id": f"big.{index}", "text": "word " * 200} for index in range(200)])
    return place


def data(folder: Path) -> DatasetConfig:
    handlers = [
        handler("skip_large_text", column_name="text", max_length=500),
        handler("tokenize", text_column_name="text"),
    ]
    return dataset(f"{folder}/*.jsonl", data_handlers=handlers, retain_columns=("id", "text"))


def options(**more: Any) -> dict[str, Any]:
    return {"model_name_or_path": "sample:model", "train_on": "all", "max_bad_rows": FILES, **more}


def comparable(manifest: Manifest) -> Manifest:
    return replace(manifest, seconds={}, worker_seconds={}, rows_by_programs=0, units=0, units_found=0, config={})


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"max_seq_length": 30, "packing": "bfd", "pack_length": 20},
        {"max_seq_length": 20, "overflow": "drop"},
        {"packing": "bfd", "pack_length": 25, "overflow": "error"},
        {"packing": "bfd", "pack_length": 25, "overflow": "drop", "num_workers": 2},
        {"packing": "wrapped", "pack_length": 64},
    ],
    ids=["rows", "cut", "dropped", "quarantined packs", "dropped packs", "wrapped"],
)
def test_grouped_files_give_the_shards_and_accounts_of_files_that_are_not_grouped(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    grouped = preprocess(tmp_path / "grouped", data(folder), **options(**more))
    with monkeypatch.context() as patch:
        patch.setattr(small_files, "_FEWEST_FILES", FILES * 2)
        single = preprocess(tmp_path / "single", data(folder), **options(**more))
    assert grouped.units < 10 < FILES // 2 < single.units
    assert shard_bytes(tmp_path / "grouped") == shard_bytes(tmp_path / "single")
    assert comparable(grouped) == comparable(single)
    quarantines = [(tmp_path / name / "quarantine.jsonl").read_text() for name in ("grouped", "single")]
    assert quarantines[0] == quarantines[1] != ""
    dropped = [(tmp_path / name / "dropped.jsonl").read_text() for name in ("grouped", "single")]
    assert dropped[0] == dropped[1] != ""
    assert len({source.quarantined for source in grouped.sources}) > 1
    assert any(source.dropped for source in grouped.sources)
    limits = [more.get("max_seq_length"), more.get("pack_length")]
    cuts = more.get("overflow", "truncate") == "truncate" and more.get("packing") != "wrapped" and any(limits)
    assert len({source.cuts for source in grouped.sources}) > (3 if cuts else 0)


def test_staged_groups_are_reused_with_their_accounts(tmp_path: Path, folder: Path) -> None:
    more = options(staging_dir=str(tmp_path / "units"))
    first = preprocess(tmp_path / "first", data(folder), **more)
    again = preprocess(tmp_path / "again", data(folder), **more)
    assert again.units_found == again.units == first.units
    assert comparable(again) == comparable(first)
    assert shard_bytes(tmp_path / "again") == shard_bytes(tmp_path / "first")


def test_an_error_in_a_grouped_file_names_the_file_and_its_row(tmp_path: Path, folder: Path) -> None:
    (folder / "000.jsonl").write_text('{"id": "a", "text": "b"}\n\n{"id": "c", "text": "d", "more": [1, {"x": 2}\n')
    with pytest.raises(DataError, match=r"data/000\.jsonl:3: broken JSON"):
        preprocess(tmp_path / "out", data(folder), **options(max_bad_rows=0))


def test_a_grouped_file_that_changes_while_it_is_read_ends_the_run(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan_and_change(config: Any) -> Any:
        planned = plan(config)
        (folder / "120.jsonl").write_text('{"id": "a", "text": "another row"}\n')
        return planned

    monkeypatch.setattr("support.plan", plan_and_change)
    with pytest.raises(SourceError, match=r"data/120\.jsonl: changed"):
        preprocess(tmp_path / "out", data(folder), **options())


def scanned(path: str, sha256: str, size: int = 10, **changes: Any) -> ScannedFile:
    file = replace(SourceFile("a", path, "jsonl", None, size), **changes)
    return ScannedFile(file, sha256, (WorkUnit(0, (FilePart(file, Range(0, size, 1, size)),)),))


def grouped_paths(files: list[ScannedFile]) -> list[list[str]]:
    return [[part.file.path for part in unit.parts] for unit in small_files.group_small_files(files, 4 << 20)]


def test_a_new_file_changes_only_the_group_that_it_joins() -> None:
    chance = random.Random(1)
    files = [scanned(str(index), f"{chance.getrandbits(256):064x}") for index in range(3000)]
    before = grouped_paths(files)
    assert 5 < len(before) < 30
    after = grouped_paths([*files[:1500], scanned("new", "ff"), *files[1500:]])
    assert len([group for group in after if group not in before]) == 1
    assert sorted(path for group in after for path in group) == sorted([*map(str, range(3000)), "new"])


def test_only_many_small_uncompressed_files_of_one_data_set_and_format_are_grouped() -> None:
    few = [scanned(str(index), "ff") for index in range(63)]
    assert len(grouped_paths(few)) == 63
    many = [scanned(str(index), "ff") for index in range(64)]
    assert len(grouped_paths(many)) == 1
    for changes in ({"compression": "gzip"}, {"format": "parquet"}, {"size": 1 << 20}):
        assert len(grouped_paths([scanned(str(index), "ff", **changes) for index in range(64)])) == 64
    other = [scanned(str(index), "ff", dataset="b") for index in range(64)]
    assert len(grouped_paths([*many, *other])) == 2
    assert len(grouped_paths([*many[:32], scanned("large", "ff", 1 << 20), *many[32:]])) == 65
