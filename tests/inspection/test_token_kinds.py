"""The kinds of trained tokens in reports and in the Python API: counted, coloured, marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sftkit
from sftkit.training.data.rows.split_rows import SplitRows

from .conftest import ASK, END, Writer, byte_ids
from .test_report import printed

IDS = [[ASK, *byte_ids("?hm⟪stop⟫"), END], [ASK, *byte_ids("ok"), END]]
KINDS = [[0, 0, 2, 2, *[1] * 10, 4], [0, 3, 3, 4]]
LABELS = [
    [value if kind else -100 for value, kind in zip(ids, kinds, strict=True)]
    for ids, kinds in zip(IDS, KINDS, strict=True)
]


@pytest.fixture
def path(tmp_path: Path, write: Writer) -> Path:
    return write(tmp_path / "a.parquet", input_ids=IDS, labels=LABELS, token_kinds=KINDS)


def test_trained_tokens_are_counted_by_kind(path: Path, tokenizer_dir: Path) -> None:
    text = printed(path, tokenizer_dir)
    lines = [line.split() for line in text.splitlines()]
    start = next(number for number, line in enumerate(lines) if line[:2] == ["trained", "tokens"])
    assert lines[start + 1 : start + 5] == [
        ["content", "10", "(62.5%)"],
        ["reasoning", "2", "(12.5%)"],
        ["tool_call", "2", "(12.5%)"],
        ["stop", "2", "(12.5%)"],
    ]
    (split,) = json.loads(printed(path, tokenizer_dir, format="json"))["summary"]["splits"]
    assert split["trained_by_kind"] == {"content": 10, "reasoning": 2, "tool_call": 2, "stop": 2}


def test_without_the_column_nothing_is_shown(shard_dir: Path, tokenizer_dir: Path) -> None:
    text = printed(shard_dir, tokenizer_dir)
    assert "reasoning" not in text
    assert "⟪" not in text
    document = json.loads(printed(shard_dir, tokenizer_dir, format="json"))
    assert document["summary"]["splits"][0]["trained_by_kind"] is None


def test_without_colour_kinds_are_marked_and_the_data_cannot_imitate_it(path: Path, tokenizer_dir: Path) -> None:
    text = printed(path, tokenizer_dir, rows=2)
    assert "    ⟦⟪reasoning⟫hm⟪content⟫\\u27eastop\\u27eb⟪stop⟫<|end|>⟧\n" in text
    assert "<|ask|>⟦⟪tool_call⟫ok⟪stop⟫<|end|>⟧\n" in text
    assert text.count("⟪kind⟫: ") == 1


def test_with_colour_each_kind_has_its_own(path: Path, tokenizer_dir: Path) -> None:
    text = printed(path, tokenizer_dir, rows=2, colour=True)
    for styled in ("\x1b[36mhm", "\x1b[32m⟪stop⟫", "\x1b[94mok", "\x1b[1;7;33m<|end|>"):
        assert styled in text
    assert "\x1b[32mcontent\x1b[0m \x1b[36mreasoning\x1b[0m \x1b[94mtool_call\x1b[0m \x1b[33mstop\x1b[0m" in text


def test_tokens_in_json_have_a_kind_if_they_carry_a_loss(path: Path, tokenizer_dir: Path) -> None:
    rows = json.loads(printed(path, tokenizer_dir, format="json", rows=2))["rows"]
    assert [token["kind"] for token in rows[1]["tokens"]] == [None, "tool_call", "tool_call", "stop"]


@pytest.mark.parametrize(
    "values",
    [["a", "b"], [[9] * 15, [-1] * 4], [[1], [1]]],
    ids=["another type", "other numbers", "other lengths"],
)
def test_other_columns_of_this_name_do_no_harm(
    tmp_path: Path, tokenizer_dir: Path, write: Writer, values: list[object]
) -> None:
    path = write(tmp_path / "a.parquet", input_ids=IDS, labels=LABELS, token_kinds=values)
    assert "    ⟦hm" in printed(path, tokenizer_dir)


def test_the_api_gives_the_kinds_of_each_row(path: Path, shard_dir: Path) -> None:
    rows = sftkit.open_shards(path)["train"]
    assert [row.token_kinds is not None and row.token_kinds.tolist() for row in rows] == KINDS
    assert sftkit.open_shards(shard_dir)["train"][0].token_kinds is None


def test_training_does_not_read_the_column(path: Path) -> None:
    rows = SplitRows("train", [path], 1000, None, 1 << 20, columns=("input_ids", "labels"))
    rows.locate_all()
    assert [rows.row(0, number).labels.values.tolist() for number in range(2)] == LABELS
