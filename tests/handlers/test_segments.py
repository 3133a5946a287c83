"""Segments with labels of their own (axolotl's `input_output`): each is encoded by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import dataset, handler, preprocess, write_jsonl, written

Locate = Callable[[str], str]

SEGMENTS = [
    {"label": True, "text": "<s>Hello\n"},
    {"label": True, "text": "hi there!. "},
    {"label": False, "text": "good"},
    {"label": False, "text": "bye "},
    {"label": True, "text": ""},
    {"label": True, "text": "farewell</s>"},
]


def by_axolotl(tokenizer: Any, segments: list[dict[str, Any]]) -> dict[str, list[int]]:
    row: dict[str, list[int]] = {"input_ids": [], "labels": []}
    for segment in segments:
        ids = tokenizer(segment["text"], add_special_tokens=False)["input_ids"]
        row["input_ids"] += ids
        row["labels"] += ids if segment["label"] else [-100] * len(ids)
    return row


@pytest.mark.parametrize("name", ["bos_eos", "metaspace", "sample:model"])
def test_tokens_and_labels_are_those_of_axolotl(
    name: str, tmp_path: Path, tokenizer_path: Locate, reference: Callable[[str], Any]
) -> None:
    rows = [SEGMENTS, SEGMENTS[3:], [{"label": "true", "text": "good"}, {"label": 0, "text": "bye"}]]
    source = write_jsonl(tmp_path / "rows.jsonl", [{"segments": rows[0]}, {"segments": json.dumps(rows[1])}])
    preprocess(tmp_path / "simple", training_data_path=(str(source),), model_name_or_path=tokenizer_path(name))
    expected = [by_axolotl(reference(name), row) for row in rows[:2]]
    assert written(tmp_path / "simple") == expected
    assert expected[0]["input_ids"] != reference(name)("".join(each["text"] for each in SEGMENTS))["input_ids"]
    other = write_jsonl(tmp_path / "other.jsonl", [{"parts": rows[2]}])
    data = dataset(other, data_handlers=[handler("tokenize_segments", segments_column="parts")])
    preprocess(tmp_path / "configured", data, model_name_or_path=tokenizer_path(name))
    [row] = written(tmp_path / "configured")
    assert row == by_axolotl(reference(name), [{"label": True, "text": "good"}, {"label": False, "text": "bye"}])
    preprocess(tmp_path / "all", data, model_name_or_path=tokenizer_path(name), train_on="all")
    [row] = written(tmp_path / "all")
    assert row["labels"] == row["input_ids"]


@pytest.mark.parametrize(
    ("segments", "why"),
    [
        ([], "column 'segments' must hold a list of segments, not an empty list"),
        ("[", "column 'segments' is not JSON"),
        (["a"], "segment 0 of column 'segments' must be an object with a label and a text, not str"),
        ([{"text": "a"}], "segment 0 of column 'segments': its label must be true or false, not null"),
        ([{"label": True, "text": 5}], "segment 0 of column 'segments': its text must be text, not int"),
    ],
)
def test_other_values_are_quarantined(segments: Any, why: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"segments": segments}, {"segments": SEGMENTS}])
    preprocess(tmp_path / "o", training_data_path=(str(source),), model_name_or_path="sample:model", max_bad_rows=1)
    [bad] = [json.loads(line) for line in (tmp_path / "o" / "quarantine.jsonl").read_text("utf-8").splitlines()]
    assert bad["reason"].startswith(why)
