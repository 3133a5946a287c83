"""Retained columns: rows that Parquet readers could not read are quarantined, and every shard is opened once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from sftkit.errors import DataError
from sftkit.shards.formats import parquet_shards
from support import dataset, examples, handler, preprocess, write_jsonl, written

MASKING = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")


def made(folder: Path, *values: Any, **options: Any) -> Any:
    """Run on rows with these values in the retained column `meta`; JSON text stands for itself."""
    rows = [{"input": f"q{number}", "output": f"a{number}", "meta": value} for number, value in enumerate(values)]
    source = write_jsonl(folder / "rows.jsonl", rows)
    data = dataset(source, data_handlers=[MASKING], retain_columns=("input", "output", "meta"))
    return preprocess(folder / "out", data, model_name_or_path="sample:model", **options)


def nested(shape: str, leaf: Any = 1) -> Any:
    """A value inside lists (`l`) and objects (`o`), the first letter outermost."""
    value = leaf
    for letter in reversed(shape):
        value = [value] if letter == "l" else {"k": value}
    return value


def quarantined(folder: Path) -> list[tuple[int, str]]:
    lines = (folder / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return [(entry["row"], entry["reason"]) for entry in map(json.loads, lines)]


@pytest.mark.parametrize("packing", [{}, {"packing": "bfd", "pack_length": 64}], ids=["rows", "packs"])
@pytest.mark.parametrize("shape", ["l" * 48, "o" * 96, "ol" * 32, "oo" * 20 + "l" * 28])
def test_values_as_deep_as_allowed_are_read_by_pyarrow_and_datasets(
    tmp_path: Path, shape: str, packing: dict[str, Any]
) -> None:
    made(tmp_path, nested(shape), **packing)
    [row] = written(tmp_path / "out")
    assert row["meta"] == ([nested(shape)] if packing else nested(shape))
    if shape != "l" * 48:
        return  # `datasets` is slow to import and to prepare
    loaded = load_dataset("parquet", data_files=str(tmp_path / "out" / "*.parquet"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"][0]["meta"] == row["meta"]


@pytest.mark.parametrize("shape", ["l" * 49, "o" * 97, "ol" * 33, "l" * 60, "o" * 400, "lo" * 100])
def test_a_value_that_is_nested_too_deeply_is_quarantined(tmp_path: Path, shape: str) -> None:
    manifest = made(tmp_path, None, nested("l"), nested(shape), [[]][0], max_bad_rows=1)
    assert (manifest.rows_written, manifest.quarantined) == (3, 1)
    assert quarantined(tmp_path) == [
        (
            3,
            "retain_columns: column 'meta' is nested too deeply for Parquet readers (2 for each list and 1 for each "
            "object, at most 96)",
        )
    ]
    assert [row["meta"] for row in written(tmp_path / "out")] == [None, [1], []]


def test_a_deep_empty_list_counts_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: retain_columns: column 'meta' is nested too deeply"):
        made(tmp_path, nested("l" * 49, []))
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("value", [[1, "a"], [1, [1]], [{"a": 1}, {"a": [1]}], 2**64, [-(2**63) - 1], {"a": 10**400}])
def test_a_value_without_a_type_of_its_own_is_quarantined(tmp_path: Path, value: Any) -> None:
    manifest = made(tmp_path, None, value, None, max_bad_rows=1)
    assert (manifest.rows_written, manifest.quarantined) == (2, 1)
    [(row, reason)] = quarantined(tmp_path)
    assert row == 2
    assert reason.startswith("retain_columns: column 'meta' ")


def test_rows_whose_values_do_not_fit_together_end_the_run_at_the_first_of_them(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"rows\.jsonl:3: retain_columns: column 'meta' holds values of different types"
    ):
        made(tmp_path, 1, None, "text", max_bad_rows=3)


def test_too_many_keys_are_quarantined_or_end_the_run(tmp_path: Path) -> None:
    wide = {f"k{number}": number for number in range(10_001)}
    manifest = made(tmp_path, {"k": 1}, wide, max_bad_rows=1)
    assert manifest.rows_written == 1
    assert quarantined(tmp_path)[0][1].startswith(
        "retain_columns: the objects in the columns have 10003 different keys"
    )
    halves = [{f"{part}{number}": number for number in range(6_000)} for part in "ab"]
    with pytest.raises(DataError, match=r"have 12002 different keys, more than 10000; convert the columns to text"):
        made(tmp_path / "two", *halves, max_bad_rows=1)


@pytest.mark.parametrize("name", ["a.b", ".", "", " ", "list", "element", "a\tb", "ü", "k" * 3_000])
def test_odd_names_of_keys_are_read_back(tmp_path: Path, name: str) -> None:
    value = {name: [{name: 1.5, "other": float("nan")}]}
    made(tmp_path, value)
    [row] = written(tmp_path / "out")
    assert repr(row["meta"]) == repr(value)


def test_a_shard_that_cannot_be_read_back_ends_the_run_before_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftkit.shards.retained_columns.MAX_DEPTH", 1_000)
    with pytest.raises(
        DataError, match=r"^train-00000-of-00001\.parquet: this shard cannot be read back \(.*depth limit"
    ):
        made(tmp_path, nested("l" * 60))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".staging"]


def test_a_shard_with_other_rows_than_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table(
        {"input_ids": pa.array([[1]], pa.list_(pa.int32())), "labels": pa.array([[1]], pa.list_(pa.int32()))}
    )

    class Writer(pq.ParquetWriter):  # type: ignore[misc]
        def write_table(self, written: pa.Table, row_group_size: int | None = None) -> None:
            super().write_table(table)

    monkeypatch.setattr(parquet_shards.pq, "ParquetWriter", Writer)
    source = write_jsonl(tmp_path / "rows.jsonl", [{"input": "q", "output": "a"}] * 3)
    with pytest.raises(DataError, match="does not hold what was written"):
        preprocess(tmp_path / "out", dataset(source, data_handlers=[MASKING]), model_name_or_path="sample:model")


def any_value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(9 if depth else 7)
    if kind < 7:
        return chance.choice([None, True, 0, 2**63, -1.5, "text", "ä" * 9, float("inf")])
    inner = [any_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    return inner if kind == 7 else {chance.choice(["a", "b.c", ""]): value for value in inner}


@pytest.mark.parametrize("seed", range(examples(60)))
def test_any_values_are_written_and_read_quarantined_or_refused(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    shape = "".join(chance.choice("lo") for _ in range(chance.choice((0, 3, 45, 60, 90))))
    values = [nested(shape, any_value(chance, 4)) if chance.random() < 0.7 else None for _ in range(4)]
    try:
        manifest = made(tmp_path, *values, max_bad_rows=4, num_dataset_shards=1)
    except DataError as error:
        assert any(text in str(error) for text in ("retain", "all 4 rows", "no rows", "cannot be used"))  # noqa: PT017
        return
    assert manifest.rows_written == len(written(tmp_path / "out")) == 4 - manifest.quarantined
