"""Conversations in the formats of other tools give the tokens and labels of hand-written messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conversation_formats import FORMATS, Format
from sftkit.core.rows import Row
from support import dataset, handler, preprocess, write_jsonl, written
from template_zoo.llama import LLAMA31
from template_zoo.qwen import QWEN25

Locate = Callable[[str], str]
Reference = Callable[[str], Any]

TEMPLATES = {
    "sample": ("sample:model", None, "<|im_start|>assistant\n", "<|im_end|>"),
    "llama3.1": ("bpe", LLAMA31.source, LLAMA31.header, LLAMA31.stop),
    "qwen2.5": ("bpe", QWEN25.source, "<|im_start|>assistant\n", "<|im_end|>"),
}
"""Tokenizer, template, and the marks around what the model says."""

MASKED = handler("tokenize_and_apply_chat_template_with_masking")


def expected_row(form: Format, template: str, reference: Reference) -> Row:
    """The tokens of the hand-written messages, and labels on the turns of the model that have no flag against it."""
    name, source, header, stop = TEMPLATES[template]
    tokenizer = reference(name)
    messages = [{key: value for key, value in message.items() if key != "loss"} for message in form.messages]
    text = tokenizer.apply_chat_template(messages, tools=form.tools, chat_template=source, tokenize=False)
    said = [match.span(1) for match in re.finditer(f"{re.escape(header)}(.*?{re.escape(stop)})", text, re.DOTALL)]
    turns = [message for message in form.messages if message["role"] == "assistant"]
    assert len(said) == len(turns)
    trained = [span for span, turn in zip(said, turns, strict=True) if turn.get("loss") is not False]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(start < stop and end > begin for begin, stop in trained) else -100
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    assert any(label != -100 for label in labels)
    return {"input_ids": encoded["input_ids"], "labels": labels}


def built(output: Path, source: Path, template: str, tokenizer_path: Locate, *handlers: Any) -> list[Row]:
    name, chat_template, _, _ = TEMPLATES[template]
    options: dict[str, Any] = {
        "model_name_or_path": tokenizer_path(name),
        "processor": {"chat_template": chat_template},
        "boundary": "joint",  # as `tokenizer(text)` encodes the text of prompts and answers
    }
    if handlers:
        preprocess(output, dataset(source, data_handlers=handlers), **options)
    else:
        preprocess(output, training_data_path=(str(source),), **options)
    return written(output)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_row_has_the_tokens_and_labels_of_its_messages(
    form: Format, template: str, tmp_path: Path, tokenizer_path: Locate, reference: Reference
) -> None:
    expected = [expected_row(form, template, reference)]
    source = write_jsonl(tmp_path / "rows.jsonl", [form.row])
    assert built(tmp_path / "simple", source, template, tokenizer_path) == expected
    if template == "sample":
        convert = handler("convert_to_messages")
        assert built(tmp_path / "configured", source, template, tokenizer_path, convert, MASKED) == expected


def in_arrow(row: Row) -> Row:
    """The row with contents of one type, as columns of Arrow have them."""
    turns: Any = row.get("messages")
    if form_of_contents(turns) != {str, list}:
        return row
    return {**row, "messages": [in_parts(turn) for turn in turns]}


def form_of_contents(turns: Any) -> set[type]:
    return {type(turn.get("content")) for turn in turns if isinstance(turn, dict)} if isinstance(turns, list) else set()


def in_parts(turn: Row) -> Row:
    content = turn["content"]
    return {**turn, "content": [{"type": "text", "text": content}] if isinstance(content, str) else content}


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_parquet_rows_give_the_same_although_arrow_fills_them_with_nulls(
    form: Format, tmp_path: Path, tokenizer_path: Locate, reference: Reference
) -> None:
    table = pa.Table.from_pylist([in_arrow(form.row)])
    pq.write_table(table, tmp_path / "rows.parquet")
    [row] = built(tmp_path / "shards", tmp_path / "rows.parquet", "qwen2.5", tokenizer_path)
    assert row == expected_row(form, "qwen2.5", reference)


def test_conversations_as_text_of_csv_files_are_read(
    tmp_path: Path, tokenizer_path: Locate, reference: Reference
) -> None:
    [form] = [each for each in FORMATS if each.name == "openai-as-json-text"]
    quoted = ['"' + form.row[name].replace('"', '""') + '"' for name in ("messages", "tools")]
    source = tmp_path / "rows.csv"
    source.write_text("messages,tools\n" + ",".join(quoted) + "\n", encoding="utf-8")
    assert built(tmp_path / "shards", source, "sample", tokenizer_path) == [expected_row(form, "sample", reference)]
