"""`parquet_columns`: the columns of other trainers, what is refused with them, and reading them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import sftkit
from sftkit.config.commands import InspectConfig, PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.validation import validate_config
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.inspection.compare.compare_datasets import compare_datasets
from sftkit.inspection.verify.verify_dataset import verify
from sftkit.shards.pack_padding import remove_padding
from support import dataset, preprocess, shard_bytes, write_jsonl, written

LENGTHS = (3, 9, 4, 12, 7, 5, 11, 6)
PACKS: dict[str, Any] = {"packing": "bfd", "pack_length": 20}


@pytest.fixture
def data(tmp_path: Path) -> DatasetConfig:
    rows = []
    for number, length in enumerate(LENGTHS):
        ids = [100 * number + place for place in range(1, length + 1)]
        rows.append({"input_ids": ids, "labels": [-100 if place % 3 == 1 else each for place, each in enumerate(ids)]})
    return dataset(write_jsonl(tmp_path / "in.jsonl", rows))


def expected(row: Row, columns: str) -> Row:
    """The columns of a trainer, from a row or pack of sftkit."""
    ids, labels, lengths = row["input_ids"], row["labels"], row.get("seq_lengths", [len(row["input_ids"])])
    mask = [int(label != -100) for label in labels]
    if columns == "trl":
        return {**row, "completion_mask": mask, "assistant_masks": mask}
    if "seq_lengths" not in row:
        return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}
    positions = [place for length in lengths for place in range(length)]
    if columns == "axolotl":
        mask = [1] * len(ids)
        return {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": mask,
            "position_ids": positions,
            "length": len(ids),
        }
    padding = 24 - len(ids)  # the multiple of 8 from the pack length on
    numbers = [number for number, length in enumerate(lengths, start=1) for _ in range(length)]
    return {
        "input_ids": ids + [0] * padding,
        "labels": labels + [-100] * padding,
        "attention_mask": numbers + [0] * padding,
        "position_ids": positions + list(range(padding)),
    }


@pytest.mark.parametrize("columns", ["trl", "axolotl", "llamafactory"])
@pytest.mark.parametrize("packing", [{}, PACKS], ids=["rows", "packs"])
def test_columns(tmp_path: Path, data: DatasetConfig, columns: str, packing: dict[str, Any]) -> None:
    plain = preprocess(tmp_path / "plain", data, staging_dir=str(tmp_path / "staging"), **packing)
    manifest = preprocess(
        tmp_path / "out", data, staging_dir=str(tmp_path / "staging"), parquet_columns=columns, **packing
    )
    assert written(tmp_path / "out") == [expected(row, columns) for row in written(tmp_path / "plain")]
    preprocess(tmp_path / "again", data, parquet_columns=columns, unit_size=64, **packing)
    assert shard_bytes(tmp_path / "again") == shard_bytes(tmp_path / "out")
    assert manifest.columns == tuple(written(tmp_path / "out")[0])
    assert manifest.fingerprint != plain.fingerprint
    counts = [(each.splits["train"].tokens, each.splits["train"].trained_tokens) for each in (plain, manifest)]
    assert counts[0] == counts[1]
    assert f"(`parquet_columns: {columns}`)" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("columns", ["trl", "axolotl", "llamafactory"])
@pytest.mark.parametrize("padding", [1, 4])
def test_readers_find_the_sequences_of_packs(tmp_path: Path, data: DatasetConfig, columns: str, padding: int) -> None:
    options = {**PACKS, "staging_dir": str(tmp_path / "staging"), "pad_pack_to_multiple_of": padding}
    preprocess(tmp_path / "plain", data, **options)
    preprocess(tmp_path / "out", data, parquet_columns=columns, **options)
    (tmp_path / "copy").mkdir()
    shard = tmp_path / "out" / "train-00000-of-00001.parquet"
    (tmp_path / "copy" / shard.name).write_bytes(shard.read_bytes())  # without a manifest
    for name in ("out", "copy"):
        same = compare_datasets(InspectConfig(directory=str(tmp_path / "plain"), compare=str(tmp_path / name)))
        assert not same.differs, same
    assert verify(InspectConfig(directory=str(tmp_path / "out"))).differences == ()
    plain, *others = (sftkit.ShardDataset(tmp_path / name) for name in ("plain", "out", "copy"))
    for other in others:
        assert len(other) == len(plain)
        for number in range(len(plain)):
            ids, labels = other[number].input_ids, other[number].labels
            assert ids.values.tolist() == plain[number].input_ids.values.tolist()
            assert ids.offsets.tolist() == plain[number].input_ids.offsets.tolist()
            assert labels.values.tolist() == plain[number].labels.values.tolist()


@pytest.mark.parametrize(
    ("options", "keys", "message"),
    [
        ({"output_format": ("mds",)}, {}, "parquet_columns=axolotl is given without output_format=parquet; leave it"),
        ({"source_column": True}, {}, "source_column cannot be used with parquet_columns=axolotl, which gives every"),
        ({"token_kinds": True}, {}, "token_kinds cannot be used with parquet_columns=axolotl, which gives every"),
        ({}, {"retain_columns": ("id",)}, r"datasets\[0\].retain_columns cannot be used with parquet_columns=axolotl"),
        ({}, {"loss_weight": 2.0}, r"datasets\[0\].loss_weight would be lost: only `sftkit train` reads it"),
    ],
)
def test_what_a_trainer_cannot_take_is_refused(
    data: DatasetConfig, options: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    datasets = (dataset(*data.data_paths, **keys),)
    with pytest.raises(ConfigError, match=message):
        validate_config(PreprocessConfig(output_dir="out", datasets=datasets, parquet_columns="axolotl", **options))


def test_text_and_weights_of_tokens_are_refused(tmp_path: Path) -> None:
    text = dataset(write_jsonl(tmp_path / "text.jsonl", [{"text": "a"}]))
    with pytest.raises(DataError, match=r"rows are text \('text'\), and parquet_columns=trl is for tokens"):
        preprocess(tmp_path / "out", text, dataset_text_field="text", parquet_columns="trl")
    row = {"input_ids": [5, 6], "labels": [-100, 6], "loss_weights": [0.0, 0.5]}
    weighted = dataset(write_jsonl(tmp_path / "weighted.jsonl", [row]))
    with pytest.raises(DataError, match="rows have loss_weights, which parquet_columns=trl would lose"):
        preprocess(tmp_path / "out", weighted, parquet_columns="trl")


def test_retained_masks_are_no_masks_of_packs(tmp_path: Path) -> None:
    """They are lists with an entry for each sequence, and would be nonsense to a trainer that reads masks."""
    rows = [{"input_ids": [5, 6, 7], "completion_mask": [0, 1, 1]}, {"input_ids": [8, 9], "completion_mask": [0, 1]}]
    data = dataset(write_jsonl(tmp_path / "in.jsonl", rows), retain_columns=("completion_mask",))
    options: dict[str, Any] = {"packing": "bfd", "pack_length": 8, "pad_pack_to_multiple_of": 8}
    preprocess(tmp_path / "out", data, **options)
    [pack] = written(tmp_path / "out")
    assert pack["completion_mask"] == [[0, 1, 1], [0, 1], None]
    assert pack["labels"] == [-100, 6, 7, -100, 9, -100, -100, -100]
    table = pq.read_table(tmp_path / "out" / "train-00000-of-00001.parquet")
    assert remove_padding(table, "x")["completion_mask"].to_pylist() == [[[0, 1, 1], [0, 1]]]
    with pytest.raises(
        DataError, match=r"'completion_mask' .* would mean what the trainer reads \(parquet_columns=trl"
    ):
        preprocess(tmp_path / "trl", data, parquet_columns="trl", **options)
