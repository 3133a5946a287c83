"""Files of other splits are never read without being named: splits are found in names as `datasets` finds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftkit.core.splits import SPLIT_KEYWORDS, splits_from_path
from sftkit.errors import ConfigError, SourceError
from sftkit.sources.discovery.source_files import find_sources
from support import dataset, examples, preprocess, rows, write_jsonl


def files(directory: Path, *names: str) -> Path:
    for name in names:
        write_jsonl(directory / name, [{"text": name}])
    return directory


def chosen(path: object, **keys: Any) -> tuple[list[str], list[str]]:
    """The names of the files that are read, and of those that are left out."""
    root = str(path).partition("*")[0].rstrip("/") + "/"
    found = find_sources(dataset(path, **keys))
    return [file.path.removeprefix(root) for file in found.files], [p.removeprefix(root) for p in found.left_out]


def test_the_keywords_are_those_of_datasets() -> None:
    from datasets import data_files

    assert {split: tuple(words) for split, words in data_files.SPLIT_KEYWORDS.items()} == SPLIT_KEYWORDS
    assert data_files.NON_WORDS_CHARS == "-._ 0-9"


WORDS = st.sampled_from(["train", "training", "valid", "val", "dev", "test", "eval", "chat", "latest", "contest", "x"])
SEPARATORS = st.sampled_from(["-", "_", ".", " ", "3", "", "a"])
NAMES = st.lists(st.tuples(WORDS, SEPARATORS).map("".join), min_size=1, max_size=3).map("".join)


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(folder=st.none() | NAMES, name=NAMES)
def test_splits_are_found_in_names_as_datasets_finds_them(
    tmp_path_factory: pytest.TempPathFactory, folder: str | None, name: str
) -> None:
    from datasets import data_files

    directory = tmp_path_factory.mktemp("d")
    path = f"{folder}/{name}.jsonl" if folder else f"{name}.jsonl"
    files(directory, path)
    in_names = data_files.DEFAULT_PATTERNS_SPLIT_IN_FILENAME
    in_folders = data_files.DEFAULT_PATTERNS_SPLIT_IN_DIR_NAME

    def found(patterns: dict[Any, list[str]]) -> set[str]:
        matching = set()
        for split, globs in patterns.items():
            for pattern in globs:
                try:
                    data_files.resolve_pattern(pattern, str(directory))
                except FileNotFoundError:
                    continue
                matching.add(str(split))
        return matching

    assert splits_from_path(path) == (found(in_folders) or found(in_names))


@pytest.mark.parametrize(
    ("names", "read", "left_out"),
    [
        (["gsm8k_test.jsonl", "gsm8k_train.jsonl"], ["gsm8k_train.jsonl"], ["gsm8k_test.jsonl"]),
        (["chat.jsonl", "test.jsonl"], ["chat.jsonl"], ["test.jsonl"]),
        (["chat.jsonl", "test.jsonl", "train.jsonl"], ["train.jsonl"], ["chat.jsonl", "test.jsonl"]),
        (["a.jsonl", "eval-1.jsonl"], ["a.jsonl"], ["eval-1.jsonl"]),
        (["a.jsonl", "Test.jsonl"], ["a.jsonl"], ["Test.jsonl"]),
        (["a/x.jsonl", "data.test.jsonl", "testing/x.jsonl"], ["a/x.jsonl"], ["data.test.jsonl", "testing/x.jsonl"]),
        (["train/test_cases.jsonl", "dev/x.jsonl"], ["train/test_cases.jsonl"], ["dev/x.jsonl"]),
        (["chat.jsonl", "train.jsonl"], ["chat.jsonl", "train.jsonl"], []),
        (["latest.jsonl", "contest.jsonl", "attest_1.jsonl"], ["attest_1.jsonl", "contest.jsonl", "latest.jsonl"], []),
    ],
)
def test_the_training_split_is_read_and_other_files_are_left_out(
    tmp_path: Path, names: list[str], read: list[str], left_out: list[str]
) -> None:
    files(tmp_path, *names)
    assert chosen(tmp_path) == (read, left_out)
    assert chosen(f"{tmp_path}/**/*.jsonl") == (read, left_out)
    remote = find_sources(dataset(f"file://{tmp_path}"))
    assert [file.path.removeprefix(f"file://{tmp_path}/") for file in remote.files] == read
    assert [path.removeprefix(f"file://{tmp_path}/") for path in remote.left_out] == left_out


def test_a_split_is_read_by_its_name(tmp_path: Path) -> None:
    files(tmp_path, "train/x.jsonl", "validation/x.jsonl", "test/x.jsonl", "extra/x.jsonl")
    for split in ("train", "validation", "test", "extra"):
        assert chosen(tmp_path, dataset_split_name=split)[0] == [f"{split}/x.jsonl"]
    assert chosen(tmp_path, dataset_split_name="val")[0] == ["validation/x.jsonl"]


def test_splits_of_other_names_are_read_if_they_are_asked_for(tmp_path: Path) -> None:
    names = [f"data/{split}-00000-of-00001.jsonl" for split in ("test_sft", "train_gen", "train_sft")]
    files(tmp_path, *names)
    for name, split in zip(names, ("test_sft", "train_gen", "train_sft"), strict=True):
        assert chosen(tmp_path, dataset_split_name=split)[0] == [name]


def test_a_split_that_no_file_has_is_refused(tmp_path: Path) -> None:
    files(tmp_path / "held-out", "test.jsonl")
    with pytest.raises(SourceError, match=r"no data files of split 'train' in this directory \(it has test\.jsonl\)"):
        chosen(tmp_path / "held-out")
    files(tmp_path / "plain", "a.jsonl")
    for split in ("validation", "nosuch"):
        with pytest.raises(SourceError, match=f"no data files of split '{split}'.*leave dataset_split_name out"):
            chosen(tmp_path / "plain", dataset_split_name=split)
        with pytest.raises(SourceError, match=f"a.jsonl: is one file, and its name does not say split '{split}'"):
            chosen(tmp_path / "plain" / "a.jsonl", dataset_split_name=split)


def test_a_file_that_is_named_itself_is_read_whatever_its_name(tmp_path: Path) -> None:
    files(tmp_path, "test.jsonl", "train.jsonl")
    assert rows(tmp_path / "test.jsonl") == [{"text": "test.jsonl"}]
    assert rows(tmp_path / "test.jsonl", dataset_split_name="test") == [{"text": "test.jsonl"}]
    assert [file.path for file in find_sources(dataset(f"{tmp_path}/test*.jsonl")).files] == [f"{tmp_path}/test.jsonl"]


def test_folders_of_save_to_disk_have_the_split_that_they_say(tmp_path: Path) -> None:
    import datasets

    saved = datasets.Dataset.from_list([{"text": "a"}], split="test")
    saved.save_to_disk(tmp_path / "one")
    assert rows(tmp_path / "one") == rows(tmp_path / "one", dataset_split_name="test") == [{"text": "a"}]
    with pytest.raises(SourceError, match=r"one: is split 'test', not 'validation'; leave dataset_split_name out"):
        rows(tmp_path / "one", dataset_split_name="validation")
    datasets.DatasetDict({"train": saved, "test": saved, "spare": saved}).save_to_disk(tmp_path / "all")
    assert {name.split("/")[0] for name in chosen(tmp_path / "all")[0]} == {"train"}
    assert {name.split("/")[0] for name in chosen(tmp_path / "all", dataset_split_name="spare")[0]} == {"spare"}


@pytest.mark.parametrize("name", ["train[:50%]", "train[:100]", "train+validation", "train[10:20]", "", "a b"])
def test_parts_and_sums_of_splits_are_refused(tmp_path: Path, name: str) -> None:
    data = dataset(files(tmp_path, "a.jsonl"), dataset_split_name=name)
    with pytest.raises(ConfigError, match=r"datasets\[0\]\.dataset_split_name must be the name of one split, not"):
        preprocess(tmp_path / "o", data, tokenizer_name_or_path="sample:model")


def test_left_out_files_are_in_the_log_and_in_the_manifest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = files(tmp_path / "d", "chat.jsonl", "test.jsonl", "valid.jsonl")
    options: dict[str, Any] = {"tokenizer_name_or_path": "sample:model", "train_on": "all"}
    preprocess(tmp_path / "o", training_data_path=(str(source),), **options)
    left_out = [str(source / "test.jsonl"), str(source / "valid.jsonl")]
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["sources_left_out"] == left_out
    assert f"left out, because they are not of the split that is read: {', '.join(left_out)}; to read" in caplog.text


def test_a_directory_of_validation_data_gives_its_validation_split(tmp_path: Path) -> None:
    source = str(files(tmp_path / "d", "train.jsonl", "test.jsonl", "valid.jsonl"))
    options: dict[str, Any] = {"tokenizer_name_or_path": "sample:model", "train_on": "all"}
    manifest = preprocess(tmp_path / "o", training_data_path=(source,), validation_data_path=(source,), **options)
    assert [Path(each.path).name for each in manifest.sources] == ["train.jsonl", "valid.jsonl"]
    assert [Path(path).name for path in manifest.sources_left_out] == ["test.jsonl"]
