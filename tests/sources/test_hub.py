"""Data sets that `datasets` resolves: folders with the layout of a Hub repository, and builders of `datasets`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.errors import SourceError
from sftkit.sources.discovery.source_files import find_source_files
from support import dataset, read, rows, write_jsonl

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/part-*.{ending}
  - split: test
    path: data/held_out.{ending}
- config_name: small
  data_files: data/held_out.{ending}
---

# A data set
"""
TRAIN: list[dict[str, Any]] = [
    {"id": 1, "tools": [{"name": "add", "parameters": {"a": "number"}}]},
    {"id": 2, "tools": [{"name": "say", "parameters": {"text": "string", "loud": True}}]},
    {"id": 3, "tools": []},
]
HELD_OUT: list[dict[str, Any]] = [{"id": 4, "tools": [{"name": "stop"}]}]

pytestmark = pytest.mark.usefixtures("datasets_cache")


def repository(folder: Path, ending: str) -> Path:
    parts = {"part-0": TRAIN[:2], "part-1": TRAIN[2:], "held_out": HELD_OUT}
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD.format(ending=ending))
    for name, content in parts.items():
        path = folder / "data" / f"{name}.{ending}"
        if ending == "jsonl":
            write_jsonl(path, content)
        elif ending == "json":
            path.write_text(json.dumps(content))
        else:
            schema = pa.Table.from_pylist(TRAIN).schema
            pq.write_table(pa.Table.from_pylist(content, schema=schema), path)
    return folder


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_splits_of_a_repository_folder_are_read_without_added_null_keys(tmp_path: Path, ending: str) -> None:
    folder = repository(tmp_path / "repository", ending)
    assert rows(folder) == TRAIN
    assert rows(folder, dataset_split_name="test") == HELD_OUT
    assert rows(folder, subset="small") == HELD_OUT


def test_the_files_of_a_repository_folder_are_read_directly(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repository", "jsonl")
    assert [Path(file.path) for file in find_source_files(dataset(folder))] == [
        folder / "data" / "part-0.jsonl",
        folder / "data" / "part-1.jsonl",
    ]


def test_the_error_about_a_missing_split_lists_the_existing_ones(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repository", "jsonl")
    with pytest.raises(SourceError, match=r"cannot load split 'dev' of it: it has the splits train, test"):
        find_source_files(dataset(folder, dataset_split_name="dev"))


def test_the_error_about_an_unreachable_hub_id_names_it() -> None:
    with pytest.raises(
        SourceError,
        match=r"^no-such/data-set: no such file or directory, and `datasets` cannot load split 'train' of it: ",
    ):
        find_source_files(dataset("no-such/data-set"))


def test_other_builders_are_run_by_datasets(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first line\nsecond line\n\nfourth\n")
    assert read(tmp_path / "a.txt", builder="text")[0] == [
        (1, {"text": "first line"}),
        (2, {"text": "second line"}),
        (3, {"text": ""}),
        (4, {"text": "fourth"}),
    ]


def test_an_unknown_builder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    for builder in ("nosuchbuilder", "user/repository", "./script.py", "https://host/script.py", "hf://datasets/a/b"):
        with pytest.raises(SourceError, match=r"a\.txt: unknown builder '"):
            find_source_files(dataset(tmp_path / "a.txt", builder=builder))


def test_a_card_cannot_name_files_of_protocols_that_a_data_config_cannot_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(config=SimpleNamespace(data_files={"train": ["ssh://host/a.json"]}))
    monkeypatch.setattr("datasets.load_dataset_builder", lambda *_, **__: found)
    with pytest.raises(SourceError, match="its card names files of the protocol 'ssh'"):
        find_source_files(dataset("user/repository"))


def test_a_json_field_of_a_repository_is_read_by_datasets(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: all.json\n  field: data\n---\n"
    )
    (folder / "all.json").write_text(json.dumps({"version": 1, "data": [{"x": 1}, {"x": 2}]}))
    assert rows(folder) == [{"x": 1}, {"x": 2}]


def test_the_subsets_are_listed_when_one_is_needed(tmp_path: Path) -> None:
    for name in ("en", "fr"):
        write_jsonl(tmp_path / name / "a.jsonl", [{"text": name}])
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.jsonl\n" for name in ("en", "fr"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(SourceError, match=r"Config name is missing.*\['en', 'fr'\].*; set subset$"):
        find_source_files(dataset(tmp_path))
    assert rows(tmp_path, subset="fr") == [{"text": "fr"}]
    with pytest.raises(SourceError, match=r"cannot load split 'train' of it: .*nosuch.*en.*fr"):
        find_source_files(dataset(tmp_path, subset="nosuch"))
