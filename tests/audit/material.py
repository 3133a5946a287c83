"""Clean rows of every kind: built by whole runs, with contents that are difficult for templates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sftkit.audit.checks.row_checks import Faults, check_rows
from sftkit.audit.expectations.expected import Expectations
from sftkit.core.rows import Ragged
from support import dataset, handler, preprocess, write_jsonl, written

IGNORED = -100
WORDS = [
    "cat",
    "dog",
    "two",
    "42",
    "Paris",
    "no.",
    "(why)",
    "**bold**",
    "`code`",
    "x=1;",
    "你好",
    "。",
    "Köln",
    "😀",
    "user",
]
BEGINNINGS = ["", "\n", " ", "- ", "#", '"']
ENDINGS = [".", "?", "\n", "!\n\n", " ", ")", "```", ""]


@dataclass(frozen=True)
class Row:
    """One row of tokens. labels: -100 where there is no loss."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    def trained_runs(self) -> list[tuple[int, int]]:
        edges = np.flatnonzero(np.diff(np.array([IGNORED, *self.labels, IGNORED]) != IGNORED))
        return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def row_of(ids: Sequence[int], labels: Sequence[int]) -> Row:
    return Row(tuple(ids), tuple(labels))


def sentence(draw: random.Random, *, plain: bool = False) -> str:
    words = " ".join(draw.choices(WORDS, k=draw.randint(3, 12)))
    return words if plain else draw.choice(BEGINNINGS) + words + draw.choice(ENDINGS)


def conversation(draw: random.Random, *, system: bool) -> list[dict[str, Any]]:
    """Questions with white space and marks at their edges; answers without, since prompts must not merge with them."""
    messages: list[dict[str, Any]] = []
    if system and draw.random() < 0.5:
        messages.append({"role": "system", "content": sentence(draw)})
    for _ in range(draw.randint(1, 4)):
        messages.append({"role": "user", "content": sentence(draw)})
        messages.append({"role": "assistant", "content": sentence(draw, plain=True)})
    return messages


def with_tools(draw: random.Random) -> dict[str, Any]:
    name = draw.choice(["get_weather", "search", "add2"])
    function = {"name": name, "description": sentence(draw), "parameters": {"type": "object", "properties": {}}}
    call = {"type": "function", "function": {"name": name, "arguments": {"x": sentence(draw)}}}
    messages = [
        {"role": "user", "content": sentence(draw)},
        {"role": "assistant", "content": draw.choice(["", "Let me see."]), "tool_calls": [call]},
        {"role": "tool", "content": sentence(draw), "name": name},
        {"role": "assistant", "content": sentence(draw, plain=True)},
    ]
    if draw.random() < 0.5:
        messages += conversation(draw, system=False)
    return {"messages": messages, "tools": [{"type": "function", "function": function}]}


def built(folder: Path, rows: Sequence[dict[str, Any]], *handlers: Any, **options: Any) -> list[Row]:
    """The rows that a run makes of some rows; it must keep all."""
    source = write_jsonl(folder / "rows.jsonl", rows)
    manifest = preprocess(folder / "out", dataset(source, data_handlers=handlers), engine="reference", **options)
    assert manifest.rows_written == len(rows), manifest.dropped
    return [row_of(row["input_ids"], row["labels"]) for row in written(folder / "out")]


MASKED_CHAT = handler("tokenize_and_apply_chat_template_with_masking")


def faults_of(rows: Sequence[Row], expectations: Expectations) -> Faults:
    ids = Ragged.from_lists([row.ids for row in rows])
    labels = Ragged.from_lists([row.labels for row in rows]).values
    return check_rows(ids, labels, labels != IGNORED, expectations)


def named(rows: Sequence[Row], expectations: Expectations) -> dict[str, list[int]]:
    """Rows by the rules that they break."""
    return {rule: sorted(set(fault.rows.tolist())) for rule, fault in faults_of(rows, expectations).items()}
