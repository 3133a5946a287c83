"""Columns of the user's data may have the names of columns that sftkit uses itself; nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftkit.errors import DataError
from support import dataset, handler, preprocess, write_jsonl, written

NAMES = ["sftkit_extras", "sftkit_row_number", "sftkit_text", "sftkit_row", "sftkit_index", "text"]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_column_of_any_name_keeps_its_text(tmp_path: Path, name: str) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{name: f"text {number}", "id": number} for number in range(5)])
    data = dataset(source, retain_columns=(name, "id"))
    manifest = preprocess(tmp_path / "o", data, dataset_text_field=name, tokenizer_name_or_path="sample:model")
    assert manifest.text_column == name
    assert written(tmp_path / "o") == [{name: f"text {number}", "id": number} for number in range(5)]


@pytest.mark.parametrize("name", NAMES)
def test_a_retained_column_of_any_name_keeps_its_values(tmp_path: Path, name: str) -> None:
    rows = [{name: f"value {number}", "input": "q", "output": "a", "id": number} for number in range(5)]
    pairs = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    keys: dict[str, Any] = {"data_handlers": [pairs, handler("rename_columns", column_mapping={"id": "sftkit_id"})]}
    data = dataset(write_jsonl(tmp_path / "a.jsonl", rows), retain_columns=(name, "sftkit_id"), **keys)
    preprocess(tmp_path / "o", data, tokenizer_name_or_path="sample:model")
    kept = [(row[name], row["sftkit_id"]) for row in written(tmp_path / "o")]
    assert kept == [(f"value {number}", number) for number in range(5)]


@pytest.mark.parametrize("packing", ["none", "bfd"])
def test_a_retained_column_that_would_mean_packs_is_refused(tmp_path: Path, packing: str) -> None:
    rows = [{"seq_lengths": [1], "input": "q", "output": "a"}]
    pairs = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    data = dataset(write_jsonl(tmp_path / "a.jsonl", rows), retain_columns=("seq_lengths",), data_handlers=[pairs])
    with pytest.raises(DataError, match=r"a\.jsonl\): column 'seq_lengths' cannot be in the shards.*rename_columns"):
        preprocess(tmp_path / "o", data, tokenizer_name_or_path="sample:model", packing=packing, max_seq_length=99)
