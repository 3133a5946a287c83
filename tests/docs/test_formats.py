"""The examples of docs/formats.md: each row becomes the messages and the tokens that the page shows.

A `json` block with an object is a row, one with a list the messages that it becomes. A `text` block is the text of its
tokens; the paragraph before it may name options, and says if the tokenizer has no chat template.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftkit.config.commands import PreprocessConfig
from sftkit.config.loading import load_config
from sftkit.core.progress import SilentProgress
from sftkit.core.row_log import RowLog
from sftkit.core.rows import IGNORE_INDEX, Batch, Row
from sftkit.handlers.registry import build_handlers
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import chat_tokenizer_spec
from support import dataset, handler, write_jsonl, written

from .pages import ROOT

PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
MODEL = ROOT / "src" / "sftkit" / "sample" / "model"


@dataclass(frozen=True)
class Example:
    """A block that shows what a row becomes."""

    line: int
    row: Row
    before: str
    """The paragraph before the block."""
    shown: Any
    """Messages, or the text of the tokens."""


def examples_of(page: str) -> list[Example]:
    found = []
    row: Row = {}
    for match in re.finditer(r"((?:^(?!`)[^\n]+\n)*)\n```(json|text)\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL):
        shown = json.loads(match[3]) if match[2] == "json" else match[3]
        if isinstance(shown, dict):
            row = shown
            continue
        found.append(Example(page.count("\n", 0, match.start(3)) + 1, row, match[1].replace("\n", " "), shown))
    return found


EXAMPLES = examples_of(PAGE)


def parameters(kind: type) -> list[Any]:
    return [pytest.param(each, id=f"line {each.line}") for each in EXAMPLES if isinstance(each.shown, kind)]


@pytest.mark.parametrize("example", parameters(list))
def test_rows_become_the_messages_that_are_shown(example: Example) -> None:
    config = PreprocessConfig(output_dir="out", model_name_or_path="sample:model")
    [convert] = build_handlers(dataset("unused", data_handlers=[handler("convert_to_messages")]), 0)
    log = RowLog()
    made = convert.bind(ChatTokenizer(chat_tokenizer_spec(config, 0)))(Batch([example.row], np.array([1])), log)
    assert log.bad == []
    assert made.rows[0]["messages"] == example.shown


@pytest.mark.parametrize("example", parameters(str))
def test_rows_become_the_tokens_that_are_shown(example: Example, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    has_template = "Without a chat template" not in example.before
    model = tmp_path / "model"
    shutil.copytree(MODEL, model, ignore=None if has_template else shutil.ignore_patterns("*.jinja"))
    words = [word for option in re.findall(r"`(--[^`]+)`", example.before) for word in shlex.split(option)]
    words += ["--training_data_path", str(write_jsonl(tmp_path / "rows.jsonl", [example.row]))]
    words += ["--model_name_or_path", str(model), "--output_dir", str(tmp_path / "out"), "--num_workers", "1"]
    run(plan(load_config(PreprocessConfig, words)), SilentProgress())
    [row] = written(tmp_path / "out")
    assert marked(AutoTokenizer.from_pretrained(model), row) == example.shown


def marked(tokenizer: Any, row: Row) -> str:
    """The text of a row, with its trained tokens in « », without the line break at its end."""
    parts: list[tuple[bool, list[int]]] = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (token, IGNORE_INDEX)
        if not parts or parts[-1][0] != (label == token):
            parts.append((label == token, []))
        parts[-1][1].append(token)
    texts = [(trained, tokenizer.decode(tokens)) for trained, tokens in parts]
    return "".join(f"«{text}»" if trained else text for trained, text in texts).rstrip("\n")


def test_every_format_has_an_example() -> None:
    from sftkit.handlers.formats.recognition import FORMATS, recognize

    shown = {found.name for example in EXAMPLES if (found := recognize(example.row)) is not None}
    assert shown == {each.name for each in FORMATS}
