"""`val_size` and `max_samples`: some rows for validation, and only the first rows of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sftkit
from sftkit.errors import ConfigError, DataError
from support import dataset, handler, preprocess, write_jsonl, written

PAIRS = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"input": f"q{number}", "output": f"a{number}"} for number in range(start, start + count)]


def run(folder: Path, *paths: Path, **keys: Any) -> Any:
    keys = {"training_data_path": [str(path) for path in paths], **keys}
    return sftkit.preprocess(
        output_dir=str(folder), model_name_or_path="sample:model", num_workers=1, overwrite=True, **keys
    ).manifest


def read(folder: Path, **limits: Any) -> list[str]:
    """The inputs of the rows that are kept, in order."""
    data = dataset(folder, data_handlers=[PAIRS], retain_columns=("input", "output"), **limits)
    preprocess(folder.parent / "out", data, model_name_or_path="sample:model", max_bad_rows=2, overwrite=True)
    return [row["input"] for row in written(folder.parent / "out")]


@pytest.mark.parametrize(("val_size", "validation"), [(0.2, 2), (0.25, 3), (1, 1), (4, 4), ("3", 3)])
def test_val_size_is_a_fraction_or_a_number_of_rows(tmp_path: Path, val_size: Any, validation: int) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", pairs(10))
    manifest = run(tmp_path / "out", path, val_size=val_size)
    assert {name: split.rows for name, split in manifest.splits.items()} == {
        "train": 10 - validation, "validation": validation
    }  # fmt: skip
    rows = [*written(tmp_path / "out"), *written(tmp_path / "out", "validation")]
    assert len({tuple(row["input_ids"]) for row in rows}) == 10


def test_a_number_of_rows_is_also_a_split_of_a_data_config(tmp_path: Path) -> None:
    for count in (1, 7, 99):
        path = write_jsonl(tmp_path / f"{count}.jsonl", pairs(100))
        data = dataset(path, data_handlers=[PAIRS], validation_rows=count)
        manifest = preprocess(tmp_path / str(count), data, model_name_or_path="sample:model")
        assert [split.rows for split in manifest.splits.values()] == [100 - count, count]
    with pytest.raises(DataError, match="100 rows for validation leave none of its 100 rows for training"):
        preprocess(
            tmp_path / "all",
            dataset(path, data_handlers=[PAIRS], validation_rows=100),
            model_name_or_path="sample:model",
        )


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"val_size": 1.0}, "val_size=1.0 is ambiguous; write 1 for one row, or a fraction below 1"),
        ({"val_size": 2.5}, "val_size must be a whole number of rows, or a fraction below 1, not 2.5"),
        ({"val_size": 0}, "val_size is 0"),
        ({"val_size": -1}, "val_size must be 0 or more"),
        ({"max_bad_rows": 1.0}, "max_bad_rows=1.0 is ambiguous; write 1 for one row, or a fraction below 1"),
        ({"max_bad_rows": "1.0"}, "max_bad_rows=1.0 is ambiguous"),
        ({"max_samples": 0}, "max_samples must be 1 or more"),
        ({"val_size": 2, "validation_data_path": "a.jsonl"}, "val_size and validation_data_path are both given"),
    ],
)
def test_values_that_could_mean_two_things_are_refused(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", pairs(10))
    with pytest.raises(ConfigError, match=problem):
        run(tmp_path / "out", path, **keys)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"val_size": 0.1}, "val_size cannot be combined with `datasets`; set split of each data set"),
        ({"max_samples": 5}, "max_samples cannot be combined with `datasets`; set max_samples of each data set"),
    ],
)
def test_a_data_config_says_it_for_each_data_set(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    data = {"name": "a", "data_paths": [str(write_jsonl(tmp_path / "rows.jsonl", pairs(10)))]}
    with pytest.raises(ConfigError, match=problem):
        sftkit.preprocess(datasets=[data], output_dir=str(tmp_path / "out"), model_name_or_path="sample:model", **keys)


def test_max_samples_takes_the_first_rows_in_the_order_of_the_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", pairs(5))
    write_jsonl(tmp_path / "in" / "b.jsonl", pairs(5, 5))
    (tmp_path / "in" / "c.jsonl").write_text("this file is not needed\n")
    for count in (1, 5, 7, 10):
        assert read(tmp_path / "in", max_samples=count) == [f"q{number}" for number in range(count)]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [source["rows_read"] for source in manifest["sources"]] == [5, 5]


def test_max_samples_counts_rows_that_cannot_be_read(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in pairs(6)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("\n".join([lines[0], "{", "", *lines[1:4], "[", *lines[4:]]))
    assert read(tmp_path / "in", max_samples=3) == ["q0", "q1"]
    assert read(tmp_path / "in", max_samples=6) == ["q0", "q1", "q2", "q3"]


@pytest.mark.parametrize(("unit_size", "count"), [(8 << 20, 1024), (8 << 20, 1500), (20_000, 1500)])
def test_max_samples_ends_within_units_and_batches(tmp_path: Path, unit_size: int, count: int) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", pairs(3000))
    manifest = run(tmp_path / "out", path, max_samples=count, unit_size=unit_size)
    assert (manifest.rows_read, manifest.rows_written) == (count, count)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.json", "many"])
def test_max_samples_is_for_all_formats(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    if name == "rows.csv":
        lines = ["input,output", *(f"{row['input']},{row['output']}" for row in pairs(9))]
        (tmp_path / "in" / name).write_text("\n".join(lines) + "\n")
    elif name == "rows.json":
        (tmp_path / "in" / name).write_text(json.dumps(pairs(9)))
    elif name == "many":
        for number in range(80):
            write_jsonl(tmp_path / "in" / f"{number:02}.jsonl", pairs(2, 2 * number))
    else:
        pq.write_table(pa.Table.from_pylist(pairs(9)), tmp_path / "in" / name, row_group_size=2)
    count = 133 if name == "many" else 5
    assert read(tmp_path / "in", max_samples=count) == [f"q{number}" for number in range(count)]


def test_units_of_different_limits_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", pairs(9))
    for count in (3, 5, None):
        manifest = run(tmp_path / "out", path, max_samples=count, staging_dir=str(tmp_path / "units"))
        assert manifest.rows_written == (count or 9)
        assert manifest.units_found == 0


def test_validation_data_is_limited_too(tmp_path: Path) -> None:
    training, held_out = (write_jsonl(tmp_path / f"{name}.jsonl", pairs(9)) for name in ("a", "b"))
    manifest = run(tmp_path / "out", training, validation_data_path=[str(held_out)], max_samples=4)
    assert {name: split.rows for name, split in manifest.splits.items()} == {"train": 4, "validation": 4}


def test_a_manifest_repeats_its_selection(tmp_path: Path) -> None:
    run(tmp_path / "out", write_jsonl(tmp_path / "rows.jsonl", pairs(9)), max_samples=6, val_size=2)
    again = sftkit.preprocess(str(tmp_path / "out" / "manifest.json"), output_dir=str(tmp_path / "again")).manifest
    assert again is not None
    assert [split.rows for split in again.splits.values()] == [4, 2]
    with pytest.raises(ConfigError, match="has a validation split already; leave val_size out"):
        run(tmp_path / "third", tmp_path / "out", val_size=1)
