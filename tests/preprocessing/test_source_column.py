"""The column `source`: the data set that each row comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.config.schema.data_config import DatasetConfig, SplitConfig
from sftkit.core.rows import Row
from sftkit.errors import DataError
from sftkit.shards.manifest import read_manifest
from support import dataset, preprocess, shard_bytes, write_jsonl, written


def tokens(first: int, length: int = 4) -> Row:
    ids = list(range(first, first + length))
    return {"input_ids": ids, "labels": [-100, *ids[1:]]}


@pytest.fixture
def sets(tmp_path: Path) -> list[DatasetConfig]:
    """Two data sets of several files: the thousands of an id are the number of its data set."""
    files = [
        write_jsonl(tmp_path / f"{n}.jsonl", [tokens(1000 * (n // 2) + 100 * (n % 2) + 5 * i) for i in range(6)])
        for n in range(4)
    ]
    return [dataset(*files[:2], name="chat"), dataset(*files[2:], name="code")]


def test_rows_have_the_number_of_their_data_set(tmp_path: Path, sets: list[DatasetConfig]) -> None:
    manifest = preprocess(tmp_path / "out", *sets, source_column=True)
    rows = written(tmp_path / "out")
    assert [row["source"] for row in rows] == [row["input_ids"][0] // 1000 for row in rows] == [0] * 12 + [1] * 12
    stored = read_manifest(tmp_path / "out")
    assert stored is not None
    assert stored.source_names == manifest.source_names == ("chat", "code")
    assert manifest.columns == ("input_ids", "labels", "source")
    (file,) = (tmp_path / "out").glob("*.parquet")
    assert pq.read_schema(file).field("source").type == pa.int32()
    loaded = datasets.load_dataset(
        "parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"), keep_in_memory=True
    )
    assert loaded["source"][:] == [row["source"] for row in rows]


@pytest.mark.parametrize(("packing", "length"), [("bfd", 12), ("wrapped", 6)])
def test_packs_have_one_number_for_each_sequence(
    tmp_path: Path, sets: list[DatasetConfig], packing: str, length: int
) -> None:
    preprocess(tmp_path / "out", *sets, source_column=True, packing=packing, pack_length=length)
    for row in written(tmp_path / "out"):
        expected = [number for number, size in zip(row["source"], row["seq_lengths"], strict=True) for _ in range(size)]
        assert expected == [token // 1000 for token in row["input_ids"]]
    (file,) = (tmp_path / "out").glob("*.parquet")
    assert pq.read_schema(file).field("source").type == pa.list_(pa.int32())


def test_validation_and_mixed_rows_have_it(tmp_path: Path, sets: list[DatasetConfig]) -> None:
    half = SplitConfig(train=0.5, validation=0.5)
    preprocess(tmp_path / "out", *(replace(each, sampling=0.5, split=half) for each in sets), source_column=True)
    for split in ("train", "validation"):
        rows = written(tmp_path / "out", split)
        assert {row["source"] for row in rows} == {0, 1}
        assert all(row["source"] == row["input_ids"][0] // 1000 for row in rows)


def test_equal_files_of_two_data_sets_differ(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [tokens(1)])
    preprocess(tmp_path / "out", dataset(path, name="a"), dataset(path, name="b", loss_weight=3), source_column=True)
    assert [(row["source"], row["loss_weights"][1]) for row in written(tmp_path / "out")] == [(0, 1), (1, 3)]


def test_text_has_it_too(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    preprocess(tmp_path / "out", dataset(path), dataset_text_field="text", source_column=True)
    assert written(tmp_path / "out") == [{"source": 0, "text": "a"}]


def test_without_the_key_nothing_changes(tmp_path: Path, sets: list[DatasetConfig]) -> None:
    staging = str(tmp_path / "staging")
    with_column = preprocess(tmp_path / "out", *sets, source_column=True, staging_dir=staging)
    without = preprocess(tmp_path / "plain", *sets, staging_dir=staging)
    assert without.units_found == without.units  # nothing is tokenized again
    assert without.fingerprint != with_column.fingerprint
    assert "source_names" not in json.loads(without.to_json())
    assert written(tmp_path / "plain") == [
        {name: row[name] for name in ("input_ids", "labels")} for row in written(tmp_path / "out")
    ]
    assert shard_bytes(tmp_path / "plain") != shard_bytes(tmp_path / "out")


def test_a_retained_column_of_this_name_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{**tokens(1), "source": "web"}])
    with pytest.raises(DataError, match=r"column 'source' cannot be in the shards.*the data set of a row; rename it"):
        preprocess(tmp_path / "out", dataset(path, retain_columns=("source",)), source_column=True)
    preprocess(tmp_path / "out", dataset(path, retain_columns=("source",)))
    assert written(tmp_path / "out")[0]["source"] == "web"
