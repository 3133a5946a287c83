"""Every word of every column of every format is in the tokens, or its column is named as not used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.core.progress import Stopwatch
from sftkit.core.row_log import RowLog
from sftkit.preprocessing.planning import plan
from support import write_jsonl

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}"
)

ROWS: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [{"role": "user", "content": "word-a"}, {"role": "assistant", "content": "word-b"}],
    },
    "messages with a system turn": {
        "messages": [
            {"role": "system", "content": "word-a"},
            {"role": "user", "content": "word-b"},
            {"role": "assistant", "content": "word-c"},
        ],
    },
    "sharegpt": {"conversations": [{"from": "human", "value": "word-a"}, {"from": "gpt", "value": "word-b"}]},
    "sharegpt with a system turn": {
        "conversations": [
            {"from": "system", "value": "word-a"},
            {"from": "human", "value": "word-b"},
            {"from": "gpt", "value": "word-c"},
        ],
    },
    "alpaca": {"instruction": "word-a", "input": "word-b", "output": "word-c"},
    "dolly": {"instruction": "word-a", "context": "word-b", "response": "word-c"},
    "prompt and completion": {"prompt": "word-a", "completion": "word-b"},
    "lists of messages": {
        "prompt": [{"role": "user", "content": "word-a"}],
        "completion": [{"role": "assistant", "content": "word-b"}],
    },
    "prompt and response": {"prompt": "word-a", "response": "word-b"},
    "query and response": {"query": "word-a", "response": "word-b"},
    "question and answer": {"question": "word-a", "answer": "word-b"},
    "input and output": {"input": "word-a", "output": "word-b"},
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": "word-a"}]},
            {"role": "model", "parts": [{"text": "word-b"}]},
        ],
    },
    "chat": {"chat": [{"role": "user", "content": "word-a"}, {"role": "assistant", "content": "word-b"}]},
    "segments": {"segments": [{"label": False, "text": "word-a"}, {"label": True, "text": "word-b"}]},
    "text": {"text": "word-a"},
}
"""A row of each format that is recognized without a data config."""

TOOL = {"type": "function", "function": {"name": "word-x", "parameters": {}}}

OTHERS: dict[str, Any] = {
    **dict.fromkeys(("instruction", "input", "output", "system", "system_prompt", "context", "question"), "word-x"),
    **dict.fromkeys(("answer", "query", "prompt", "response", "completion", "text", "documents", "id"), "word-x"),
    "history": [["word-x", "word-y"]],
    "tools": [TOOL],
    "functions": [TOOL["function"]],
    "messages": [{"role": "user", "content": "word-x"}, {"role": "assistant", "content": "word-y"}],
    "conversations": [{"from": "human", "value": "word-x"}, {"from": "gpt", "value": "word-y"}],
    "images": ["word-x.png"],
    "systemInstruction": {"parts": [{"text": "word-x"}]},
    "contents": [{"role": "user", "parts": [{"text": "word-x"}]}, {"role": "model", "parts": [{"text": "word-y"}]}],
    "chat": [{"role": "user", "content": "word-x"}, {"role": "assistant", "content": "word-y"}],
    "segments": [{"label": False, "text": "word-x"}, {"label": True, "text": "word-y"}],
}
"""Columns that other rows have, each of which is added to the rows of every format."""


def words(value: object) -> set[str]:
    return {f"word-{letter}" for letter in "abcdefxy" if f"word-{letter}" in json.dumps(value)}


def lost(folder: Path, row: dict[str, Any], **options: Any) -> Iterator[tuple[str, str]]:
    """Process a row alone, and with each other column; yield the columns whose words are neither used nor named."""
    rows = [row, *({**row, name: value} for name, value in OTHERS.items() if name not in row)]
    path = write_jsonl(folder / "rows.jsonl", rows)
    config = PreprocessConfig(
        output_dir=str(folder / "out"),
        training_data_path=(str(path),),
        model_name_or_path="sample:model",
        unit_size=1,  # each row is processed alone, as the first row of its data set is
        dataprocessor=ProcessorConfig(chat_template=TEMPLATE),
        **options,
    )
    planned = plan(config)
    tokenizer = planned.pipeline.chat_tokenizer.tokenizer
    for made, unit in zip(rows, planned.units, strict=True):
        log = RowLog()
        texts = [
            (text_field and batch.rows[0][text_field]) or tokenizer.decode(batch.tokens["input_ids"][0])
            for batch, text_field in planned.pipeline.process(unit, log, Stopwatch())
            if len(batch)
        ]
        if log.bad or log.drops:  # the row is accounted for
            assert made is not row
            continue
        [text] = texts
        for name, value in made.items():
            if name not in log.unused_columns and not words(value) <= words(text):
                yield next(reversed(made)), name


@pytest.mark.parametrize("name", ROWS)
def test_every_word_is_in_the_tokens_or_its_column_is_named(tmp_path: Path, name: str) -> None:
    assert list(lost(tmp_path, ROWS[name])) == []
