from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.config.schema.data_config import SplitConfig
from sftkit.errors import SourceError
from sftkit.sources.discovery.source_files import find_source_files
from support import dataset, handler, preprocess, read, rows, write_jsonl


def paths(*given: object, **keys: str) -> list[str]:
    return [file.path for file in find_source_files(dataset(*given, **keys))]


@pytest.fixture
def shards(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> Path:
    pairs = write_jsonl(tmp_path / "in.jsonl", [{"input": f"cat {i}", "output": "dog"} for i in range(10)])
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    data = dataset(pairs, data_handlers=[masking], split=SplitConfig(train=0.8, validation=0.2))
    preprocess(tmp_path / "out", data, model_name_or_path=tokenizer_path("bpe"), num_dataset_shards=2)
    return tmp_path / "out"


def test_data_paths_are_read_in_their_order(tmp_path: Path) -> None:
    b = write_jsonl(tmp_path / "b.jsonl", [{"x": "b1"}, {"x": "b2"}])
    a = write_jsonl(tmp_path / "a.jsonl", [{"x": "a1"}])
    assert read(b, a, b)[0] == [
        (1, {"x": "b1"}),
        (2, {"x": "b2"}),
        (1, {"x": "a1"}),
        (1, {"x": "b1"}),
        (2, {"x": "b2"}),
    ]


def test_files_of_one_data_set_may_differ_in_format_and_columns(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("x,z\n2,zz\n")
    pq.write_table(pa.table({"x": [3.5], "w": [None]}), tmp_path / "c.parquet")
    a = write_jsonl(tmp_path / "a.jsonl", [{"x": 1, "y": [1]}])
    assert rows(a, tmp_path / "b.csv", tmp_path / "c.parquet") == [
        {"x": 1, "y": [1]},
        {"x": "2", "z": "zz"},
        {"x": 3.5, "w": None},
    ]


def test_the_data_files_of_a_directory_and_its_subdirectories_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", "sub/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    for name in ("README.md", "notes.txt", ".hidden.jsonl", "_SUCCESS", ".git/x.jsonl", "_tmp/y.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert paths(tmp_path) == [str(tmp_path / name) for name in ("a.jsonl.gz", "b.jsonl", "sub/c.csv")]


def test_only_the_requested_split_is_read_if_file_names_tell_splits(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train-0.jsonl", [{"x": 1}])
    held_out = write_jsonl(tmp_path / "val_0.jsonl", [{"x": 2}])
    assert paths(tmp_path) == [str(train)]
    assert paths(tmp_path, dataset_split_name="train") == [str(train)]
    assert paths(tmp_path, dataset_split_name="validation") == [str(held_out)]


def test_names_of_files_without_data_do_not_tell_splits(tmp_path: Path) -> None:
    for name in ("a.jsonl", "train.jsonl"):
        write_jsonl(tmp_path / name, [{"x": name}])
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "test").write_text("x")
    (tmp_path / "test.py").write_text("x")
    assert paths(tmp_path) == [str(tmp_path / "a.jsonl"), str(tmp_path / "train.jsonl")]


def test_a_directory_without_data_files_is_an_error_that_lists_the_extensions(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        SourceError, match=r"no data files in this directory; known extensions are .*\.jsonl, .*\.parquet"
    ):
        find_source_files(dataset(tmp_path))


def test_files_that_match_a_glob_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b1.jsonl", "a1.jsonl", "a2.csv", "sub/a3.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert paths(tmp_path / "a*") == [str(tmp_path / "a1.jsonl"), str(tmp_path / "a2.csv")]
    assert paths(tmp_path / "**" / "a[13].jsonl") == [str(tmp_path / "a1.jsonl"), str(tmp_path / "sub" / "a3.jsonl")]
    with pytest.raises(SourceError, match=r"no\*: no file matches this pattern"):
        find_source_files(dataset(tmp_path / "no*"))


def test_a_file_whose_name_looks_like_a_glob_is_read(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a[1].jsonl", [{"x": 1}])
    assert rows(path) == [{"x": 1}]


def test_a_path_may_start_with_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jsonl(tmp_path / "a.jsonl", [{"x": 1}])
    assert rows("~/a.jsonl") == [{"x": 1}]


@pytest.mark.parametrize("path", ["{}/nothing.jsonl", "{}/nothing/at/all", "nothing.jsonl"])
def test_the_error_about_a_missing_file_names_it(tmp_path: Path, path: str) -> None:
    wanted = path.format(tmp_path)
    with pytest.raises(SourceError, match=f"^{wanted}: no such file or directory; correct the path$"):
        find_source_files(dataset(wanted))


def test_an_empty_file_is_an_error_if_there_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(SourceError, match=r"a\.jsonl: the file is empty"):
        find_source_files(dataset(tmp_path / "a.jsonl"))
    b = write_jsonl(tmp_path / "b.jsonl", [{"x": 1}])
    assert rows(tmp_path / "a.jsonl", b) == [{"x": 1}]


def test_an_unknown_extension_is_an_error_unless_a_builder_is_set(tmp_path: Path) -> None:
    (tmp_path / "a.records").write_text('{"x": 1}\n')
    with pytest.raises(
        SourceError, match=r"a\.records: unknown kind of file; known extensions are .* \(or set `builder`\)"
    ):
        find_source_files(dataset(tmp_path / "a.records"))
    assert rows(tmp_path / "a.records", builder="json") == [{"x": 1}]
    assert rows(tmp_path, builder="json") == [{"x": 1}]


def test_fsspec_urls_are_read_like_local_paths(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    content = [{"x": i} for i in range(50)]
    local = write_jsonl(tmp_path / "a.jsonl", content)
    memory.pipe("/sftkit-test/a.jsonl", local.read_bytes())
    memory.pipe("/sftkit-test/b.json", b'[{"x": -1}]')
    try:
        assert rows("memory://sftkit-test/a.jsonl", unit_size=64) == content
        assert rows(f"file://{local}", unit_size=64) == content
        assert rows("memory://sftkit-test/*.jsonl") == content
        assert rows("memory://sftkit-test") == [*content, {"x": -1}]
    finally:
        memory.rm("/sftkit-test", recursive=True)


def test_data_files_are_selected_from_a_remote_directory_as_from_a_local_one(shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/sftkit-shards", recursive=True)
    try:
        for split in ("train", "validation"):
            wanted = {"dataset_split_name": split}
            assert rows("memory://sftkit-shards", **wanted) == rows(shards, **wanted)
        assert rows("memory://sftkit-shards") == rows(shards)
        with pytest.raises(SourceError, match="no data files of split 'dev0' in this directory"):
            find_source_files(dataset("memory://sftkit-shards", dataset_split_name="dev0"))
    finally:
        memory.rm("/sftkit-shards", recursive=True)


def test_a_url_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"memory://nothing/a\.jsonl: no such file or directory"):
        find_source_files(dataset("memory://nothing/a.jsonl"))
    with pytest.raises(SourceError, match=r"memory://nothing/\*\.jsonl: no data files there"):
        find_source_files(dataset("memory://nothing/*.jsonl"))
    with pytest.raises(SourceError, match="nosuchprotocol://x: cannot be read: Protocol not known: nosuchprotocol"):
        find_source_files(dataset("nosuchprotocol://x"))


def test_the_bundled_sample_is_read_by_its_scheme() -> None:
    first = rows("sample:pairs.jsonl")[0]
    assert {"input", "output"} <= set(first)


def test_either_split_of_an_output_directory_can_be_read(shards: Path) -> None:
    assert len(rows(shards)) == 8
    assert len(rows(shards, dataset_split_name="validation")) == 2
    assert set(rows(shards)[0]) == {"input_ids", "labels"}


def test_a_split_that_is_missing_in_an_output_directory_is_an_error(shards: Path) -> None:
    with pytest.raises(SourceError, match="no data files of split 'other' in this directory"):
        find_source_files(dataset(shards, dataset_split_name="other"))


def test_a_shard_that_is_missing_in_an_output_directory_is_an_error(shards: Path) -> None:
    for path in shards.glob("validation-*"):
        path.unlink()
    with pytest.raises(SourceError, match=r"validation-.*: is missing, but listed in .*/manifest\.json"):
        find_source_files(dataset(shards, dataset_split_name="validation"))


def test_folders_in_a_list_of_files_are_ignored(tmp_path: Path) -> None:
    secret = write_jsonl(tmp_path / "secret.jsonl", [{"text": "secret"}])
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": f"../{secret.name}"}]}))
    with pytest.raises(SourceError, match=r"saved/secret\.jsonl: cannot be read: No such file"):
        find_source_files(dataset(folder))
    (folder / "state.json").write_text('{"_data_files": 5}')
    with pytest.raises(SourceError, match=r"state\.json: cannot be read as a list of the files"):
        find_source_files(dataset(folder))
