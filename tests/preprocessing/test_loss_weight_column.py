"""The column `loss_weights` in whole runs: it goes where labels go."""

from __future__ import annotations

import json
import math
import tempfile
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.shards.manifest import read_manifest
from support import dataset, examples, preprocess, shard_bytes, write_jsonl, written

WEIGHTS = (0.0, 0.25, 1.0, 3.0)


def weight_of(token: int) -> float:
    """The weight that the rows of these tests give to an id."""
    return WEIGHTS[token % len(WEIGHTS)]


def tokens(first: int, length: int, *, weighted: bool = True, **columns: Any) -> Row:
    """A row of ids that no other row has, trained from its second token on."""
    ids = list(range(first, first + length))
    weights = {"loss_weights": [weight_of(token) for token in ids]} if weighted else {}
    return {"input_ids": ids, "labels": [-100, *ids[1:]], **weights, **columns}


def sequences(row: Row) -> list[slice]:
    ends = list(accumulate(row.get("seq_lengths", [len(row["input_ids"])]), initial=0))
    return [slice(*ends) for ends in pairwise(ends)]


def check(row: Row, factor: float = 1.0, weighted: frozenset[int] | None = None) -> None:
    """Check the weights of a shard's row; `weighted` are the ids of rows that have weights of their own."""
    assert len(row["loss_weights"]) == len(row["labels"]) == len(row["input_ids"])
    for token, label, weight in zip(row["input_ids"], row["labels"], row["loss_weights"], strict=True):
        own = weight_of(token) if weighted is None or token in weighted else 1.0
        assert weight == (0 if label == -100 else own * factor)
        assert label in (-100, token)
        assert weight > 0 or label == -100


def test_given_weights_are_taken_over(tmp_path: Path) -> None:
    rows = [tokens(10, 6), tokens(30, 4, weighted=False)]
    for path in (write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "in.parquet"):
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        manifest = preprocess(tmp_path / "out", dataset(path), overwrite=True)
        first, second = written(tmp_path / "out")
        assert first["input_ids"] == rows[0]["input_ids"]
        assert first["loss_weights"] == [0, 3, 0, 0.25, 1, 3]
        assert first["labels"] == [-100, 11, -100, 13, 14, 15]
        assert second["loss_weights"] == [0, 1, 1, 1]
        assert manifest.columns == ("input_ids", "labels", "loss_weights")
        assert not manifest.sources[0].columns_not_used
        (file,) = (tmp_path / "out").glob("*.parquet")
        assert pq.read_schema(file).field("loss_weights").type == pa.list_(pa.float32())


def test_padding_has_no_weight(tmp_path: Path) -> None:
    row = {"input_ids": [0, 5, 6], "attention_mask": [0, 1, 1], "completion_mask": [0, 0, 1], "loss_weights": [9, 1, 2]}
    preprocess(tmp_path / "out", dataset(write_jsonl(tmp_path / "in.jsonl", [row])))
    assert [(row["input_ids"], row["loss_weights"]) for row in written(tmp_path / "out")] == [([5, 6], [0, 2])]


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ([0, -1, 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, "1", 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, math.nan, 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, 1e39, 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, True, 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        (0.5, "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, 1], "input_ids and loss_weights differ in length (3 and 2)"),
        ([], "input_ids and loss_weights differ in length (3 and 0)"),
    ],
)
def test_wrong_weights_make_a_bad_row(tmp_path: Path, weights: object, reason: str) -> None:
    bad = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "loss_weights": weights}
    source = write_jsonl(tmp_path / "in.jsonl", [bad, tokens(10, 4)])
    preprocess(tmp_path / "out", dataset(source), max_bad_rows=1)
    (listed,) = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert json.loads(listed)["reason"] == reason
    assert [row["input_ids"][0] for row in written(tmp_path / "out")] == [10]


def test_a_row_whose_weights_are_0_has_no_trained_token(tmp_path: Path) -> None:
    untrained = {"input_ids": [5, 6], "labels": [-100, 6], "loss_weights": [1, 0]}
    manifest = preprocess(
        tmp_path / "out", dataset(write_jsonl(tmp_path / "in.jsonl", [untrained, tokens(10, 4)])), packing="none"
    )
    assert manifest.dropped == {"no trained token": 1}


def test_weights_that_change_nothing_are_not_written(tmp_path: Path) -> None:
    plain = {"input_ids": [5, 6], "labels": [-100, 6]}
    for name, row, keys in (
        ("without", plain, {}),
        ("ones", {**plain, "loss_weights": [1, 1]}, {}),
        ("null", {**plain, "loss_weights": None}, {}),
        ("config", plain, {"loss_weight": 1}),
    ):
        source = write_jsonl(tmp_path / f"{name}.jsonl", [row, row])
        preprocess(tmp_path / name, dataset(source, **keys))
        assert shard_bytes(tmp_path / name) == shard_bytes(tmp_path / "without")


def test_the_weight_of_a_data_set_needs_no_new_tokens(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", [tokens(10, 6), tokens(30, 4, weighted=False)])
    b = write_jsonl(tmp_path / "b.jsonl", [tokens(50, 5, weighted=False)])
    staging: dict[str, Any] = {"staging_dir": str(tmp_path / "staging"), "overwrite": True}
    prints = set()
    for index, (first, second) in enumerate(((None, None), (0.5, None), (0.5, 2.0), (1.0, 2.0))):
        sets = dataset(a, name="a", loss_weight=first), dataset(b, name="b", loss_weight=second)
        manifest = preprocess(tmp_path / "out", *sets, **staging)
        assert manifest.units_found == (manifest.units if index else 0)
        prints.add(manifest.fingerprint)
        rows = written(tmp_path / "out")
        own = frozenset(range(10, 16))
        for row in rows:
            check(row, (second if row["input_ids"][0] == 50 else first) or 1, own)
    assert len(prints) == 4


@pytest.mark.parametrize("weight", [0, -0.5, math.nan, math.inf, 1e-50, 1e39])
def test_a_data_set_cannot_have_other_weights(tmp_path: Path, weight: float) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [tokens(10, 4)])
    with pytest.raises(ConfigError, match=r"datasets\[0\].loss_weight must be a number above 0, not .*its entry"):
        preprocess(tmp_path / "out", dataset(source, loss_weight=weight))


def test_text_cannot_have_a_weight(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match=r"rows are text \('text'\), which cannot have a loss_weight"):
        preprocess(tmp_path / "out", dataset(source, loss_weight=0.5), dataset_text_field="text")


def test_rows_without_tokens_keep_a_column_of_this_name(tmp_path: Path) -> None:
    row = {"text": "a", "loss_weights": [0.5]}
    source = write_jsonl(tmp_path / "in.jsonl", [row])
    preprocess(tmp_path / "out", dataset(source, retain_columns=("text", "loss_weights")), dataset_text_field="text")
    assert written(tmp_path / "out") == [row]


def test_retaining_the_column_makes_no_difference(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "in.jsonl", [tokens(10, 6, kept=1), {**tokens(30, 4, kept=2), "loss_weights": None}]
    )
    preprocess(tmp_path / "plain", dataset(source, retain_columns=("kept",)))
    preprocess(tmp_path / "named", dataset(source, retain_columns=("kept", "loss_weights")))
    assert shard_bytes(tmp_path / "plain") == shard_bytes(tmp_path / "named")
    assert list(written(tmp_path / "plain")[0]) == ["input_ids", "labels", "loss_weights", "kept"]


def test_workers_write_the_same_bytes(tmp_path: Path) -> None:
    sources = [write_jsonl(tmp_path / f"{n}.jsonl", [tokens(100 * n + 7 * i, 6) for i in range(12)]) for n in (1, 2)]
    sets = [dataset(path, name=path.stem, loss_weight=0.5 * n) for n, path in enumerate(sources, 1)]
    for workers in (1, 2):
        preprocess(
            tmp_path / str(workers), *sets, num_workers=workers, unit_size=300, packing="bfd", pack_length=20,
            source_column=True, num_dataset_shards=2,
        )  # fmt: skip
    assert shard_bytes(tmp_path / "1") == shard_bytes(tmp_path / "2")


ROWS = st.lists(st.tuples(st.integers(2, 14), st.booleans()), min_size=1, max_size=12)
WAYS = st.sampled_from(
    [
        {},
        {"max_seq_length": 5},
        {"max_seq_length": 5, "overflow": "truncate_left"},
        {"packing": "bfd", "pack_length": 16},
        {"packing": "bfd", "pack_length": 6},
        {"packing": "bfd", "pack_length": 6, "overflow": "truncate_left"},
        {"packing": "wrapped", "pack_length": 9},
    ]
)


@settings(max_examples=examples(60), deadline=None)
@given(ROWS, ROWS, WAYS, st.sampled_from([None, 0.5, 2.0]), st.sampled_from([100, 9999]))
def test_weights_and_sources_stay_with_their_tokens(
    first: list[Any], second: list[Any], way: Row, factor: float | None, unit_size: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made, sets, weighted = [], [], set()
        for number, shapes in enumerate((first, second)):
            made.append([tokens(1000 * number + 20 * i, size, weighted=has) for i, (size, has) in enumerate(shapes)])
            made[-1].append(tokens(1000 * number + 900, 5))  # is never dropped
            weighted |= {t for row in made[-1] if "loss_weights" in row for t in row["input_ids"]}
            path = write_jsonl(Path(folder) / f"{number}.jsonl", made[-1])
            sets.append(dataset(path, name=f"set {number}", loss_weight=factor if number else None))
        preprocess(Path(folder) / "out", *sets, source_column=True, unit_size=unit_size, **way)
        manifest = read_manifest(Path(folder) / "out")
        assert manifest is not None
        assert manifest.source_names == ("set 0", "set 1")
        for row in written(Path(folder) / "out"):
            sources = row["source"] if "packing" in way else [row["source"]]
            for part, source in zip(sequences(row), sources, strict=True):
                ids = row["input_ids"][part]
                assert {token // 1000 for token in ids} == {source}
                piece = {name: row[name][part] for name in ("input_ids", "labels", "loss_weights")}
                check(piece, factor or 1 if source else 1, frozenset(weighted))
