"""Empty answers: found in every kind of rows, reported, and dropped on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_templates import CHATML
from sftkit.core.row_log import RowDroppedError
from sftkit.core.rows import Row
from sftkit.tokenization.empty_answers import EmptyAnswers
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.masking.turn_masks import TurnMasks
from support import dataset, handler, preprocess, write_jsonl, written

CALL = {"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}


def talk(*answers: Any) -> Row:
    """A conversation of questions and these answers, each a content or the fields of a message."""
    messages: list[Row] = []
    for answer in answers:
        fields = answer if isinstance(answer, dict) else {"content": answer}
        messages += [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", **fields}]
    return {"messages": messages}


@pytest.mark.parametrize(
    ("row", "options", "found"),
    [
        (talk("a"), {}, ""),
        (talk("a "), {}, ""),
        (talk(""), {}, "all"),
        (talk(" \n\t\u00a0"), {}, "all"),
        (talk({"content": None}), {}, "all"),
        (talk([{"type": "text", "text": " "}]), {}, "all"),
        (talk([{"type": "text", "text": "a"}]), {}, ""),
        (talk([{"type": "image", "url": "x"}]), {}, ""),
        (talk(CALL), {}, ""),
        (talk({"reasoning_content": "hm"}), {}, ""),
        (talk({"reasoning_content": "hm"}), {"reasoning": "mask"}, "all"),
        (talk("<think>hm</think>\n"), {}, ""),
        (talk("<think>hm</think>\n"), {"reasoning": "mask"}, "all"),
        (talk({"reasoning_content": "hm"}), {"reasoning": "last_only"}, ""),
        (talk({"reasoning_content": "hm"}, "a"), {"reasoning": "last_only"}, "some"),
        (talk({"reasoning_content": "hm"}, {"content": "a", "train": False}), {"reasoning": "last_only"}, ""),
        (talk("a", ""), {}, "some"),
        (talk("", "a"), {}, "some"),
        (talk("", "a"), {"train_on": "last_assistant"}, ""),
        (talk("a", ""), {"train_on": "last_assistant"}, "all"),
        (talk("a", ""), {"train_on": "all"}, "some"),
        (talk({"train": False}, "a"), {}, ""),
        (talk("", {"content": "a", "loss": "no"}), {}, "all"),
        ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}, {}, ""),
    ],
)
def test_empty_answers_of_conversations_are_found(row: Row, options: dict[str, Any], found: str) -> None:
    supervision = Supervision(options.get("train_on", "assistant"), TurnMasks(options.get("reasoning", "keep")))
    keeping, dropping = (EmptyAnswers(supervision, drops=drops) for drops in (False, True))
    assert keeping.check_messages(row["messages"]) is bool(found)
    if found == "all":
        with pytest.raises(RowDroppedError, match="empty answer"):
            dropping.check_messages(row["messages"])
    else:
        assert dropping.check_messages(row["messages"]) is bool(found)


PAIRS = [{"input": "q", "output": output} for output in ("a", "", " \n", "b")]
TEXTS = [{"text": text} for text in ("Q A: a</s>", "Q A:</s>", "Q A: \n</s>", "Q A: b")]
CHATS = [talk("a"), talk(""), talk(" "), talk("", "b")]


@pytest.mark.parametrize(
    ("rows", "name", "options", "empty"),
    [
        (PAIRS, "tokenize_and_apply_input_masking", {}, [2, 3]),
        (TEXTS, None, {"response_template": "A:"}, [2, 3]),
        (CHATS, "tokenize_and_apply_chat_template_with_masking", {}, [2, 3, 4]),
    ],
    ids=["pairs", "texts", "chats"],
)
def test_empty_answers_are_reported_with_their_rows_and_dropped_on_request(
    tmp_path: Path,
    tokenizer_path: Callable[[str], str],
    rows: list[Row],
    name: str | None,
    options: dict[str, Any],
    empty: list[int],
) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    arguments = {"input_field_name": "input", "output_field_name": "output"} if rows is PAIRS else {}
    data = dataset(path, data_handlers=[handler(name, **arguments)] if name else [])
    options = {**options, "model_name_or_path": tokenizer_path("bpe"), "processor": {"chat_template": CHATML}}
    manifest = preprocess(tmp_path / "kept", data, **options)
    assert manifest.audit is not None
    [finding] = [each for each in manifest.audit.findings if each.rule == "empty_answer"]
    assert (finding.rows, list(finding.examples)) == (len(empty), [f"{path}:{row}" for row in empty])
    assert len(written(tmp_path / "kept")) == 4
    manifest = preprocess(tmp_path / "dropped", data, drop_empty_answers=True, **options)
    assert manifest.dropped == {"empty answer": 2}
    assert json.loads((tmp_path / "dropped" / "manifest.json").read_text())["config"]["drop_empty_answers"] is True
    kept, dropped = (written(tmp_path / folder) for folder in ("kept", "dropped"))
    assert dropped == [kept[0], kept[3]]
