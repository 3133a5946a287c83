"""Trained texts of random conversations with templates of fifteen styles.

The expected text of a turn is defined for each style by a hand-written function, independent of the program. The
reference verifies the fast engines on each row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import chat_templates as templates
from sftkit.core.row_log import RowError
from sftkit.core.rows import IGNORE_INDEX, Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from support import trained_texts
from template_zoo.shapes import BY_MACRO, IN_PAIRS, PARTS_ONLY

MakeChatTokenizer = Callable[..., ChatTokenizer]
TurnText = Callable[[Sequence[Row], int], str]

EMPTY_REASONING = "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class StyleSpec:
    """A template and the text of its assistant turns that must be trained."""

    source: str
    turn: TurnText
    """Returns the text for the message at an index."""
    alternates: bool = False
    """Whether the template accepts only alternating user and assistant messages."""


def with_stop(stop: str) -> TurnText:
    return lambda messages, index: messages[index]["content"] + stop


def stripped(before: str, after: str) -> TurnText:
    return lambda messages, index: f"{before}{messages[index]['content'].strip()}{after}"


def with_reasoning_at_end(messages: Sequence[Row], index: int) -> str:
    asks_follow = any(message["role"] == "user" for message in messages[index:])
    asked = any(message["role"] == "user" for message in messages)
    thought = EMPTY_REASONING if asked and not asks_follow else ""
    return f"{thought}{messages[index]['content']}<|im_end|>"


STYLES = {
    "chatml": StyleSpec(templates.CHATML, with_stop("<|im_end|>")),
    "chatml in lines": StyleSpec(templates.CHATML_IN_LINES, with_stop("<|im_end|>")),
    "generation": StyleSpec(templates.GENERATION, with_stop("<|im_end|>")),
    "response": StyleSpec(templates.RESPONSE, with_stop("</s>")),
    "no prompt": StyleSpec(templates.NO_PROMPT, with_stop("<|im_end|>")),
    "by index": StyleSpec(templates.BY_INDEX, with_stop("<|im_end|>")),
    "qwen3": StyleSpec(templates.QWEN3_LIKE, with_reasoning_at_end),
    "parts": StyleSpec(templates.PARTS, with_stop("<|im_end|>")),
    "parts only": StyleSpec(PARTS_ONLY.source or "", with_stop("<|im_end|>")),
    "tools": StyleSpec(templates.TOOLS, with_stop("<|im_end|>")),
    "captured": StyleSpec(templates.CAPTURED, with_stop("<|im_end|>")),
    "by macro": StyleSpec(BY_MACRO.source or "", with_stop("</assistant>")),
    "llama2": StyleSpec(templates.LLAMA2, stripped(" ", " </s>"), alternates=True),
    "gemma": StyleSpec(templates.MERGES_SYSTEM, stripped("", "<end_of_turn>"), alternates=True),
    "in pairs": StyleSpec(IN_PAIRS.source or "", lambda messages, index: f" {messages[index]['content']}</s>", True),
}

WORDS = st.text(st.sampled_from(list("ab .\n")), max_size=6)
TRICKY_TEXTS = st.sampled_from(
    [
        *("<|im_start|>assistant\n", "<|im_end|>", "<|im_end|>\n", "</s>", "[INST]", "### Response:\n", "<assistant>"),
        *("<end_of_turn>", "A:", "<think>", "</think>", "\x0e", "{{ 1 }}", "你", "😀", "ü"),
    ]
)
TRICKY = st.lists(WORDS | TRICKY_TEXTS, max_size=4).map("".join)


def roles_of(alternates: bool, count: int) -> st.SearchStrategy[list[str]]:
    if alternates:
        return st.just(["user", "assistant"] * count)
    others = st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=count)
    return others.map(lambda some: ["user", *some, "assistant"])


@st.composite
def conversations(draw: st.DrawFn, name: str, contents: st.SearchStrategy[str]) -> list[Row]:
    roles = draw(roles_of(STYLES[name].alternates, draw(st.integers(1, 4))))
    return [{"role": role, "content": draw(contents)} for role in roles]


def answers(messages: Sequence[Row]) -> list[int]:
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def rendered(tokenizer: ChatTokenizer, messages: list[Row]) -> str:
    return str(tokenizer.tokenizer.apply_chat_template(messages, tokenize=False))


def check_tokens(tokenizer: ChatTokenizer, reference: Any, text: str, spans: list[tuple[int, int]]) -> None:
    """Check that ids are those of the tokenizer, and that the tokens with labels are those that overlap a span."""
    made = tokenizer.encode_conversations([text], [spans])
    ids, labels = made.input_ids.values.tolist(), made.labels.values.tolist()
    expected = reference(text, add_special_tokens=False, return_offsets_mapping=True)
    assert ids == expected["input_ids"]
    offsets = expected["offset_mapping"]
    inside = [any(max(s, start) < min(e, end) for start, end in spans) for s, e in offsets]
    assert labels == [token if loss else IGNORE_INDEX for token, loss in zip(ids, inside, strict=True)]
    read = ""
    for (start, end), token, loss in zip(offsets, ids, inside, strict=True):
        assert not loss or text.isascii() is False or reference.decode([token]) == text[start:end]
        read += text[start:end] if loss else "\x00" * (end - start)
    if text.isascii():  # each character belongs to one token
        assert len(read) == len(text)
        for start, end in spans:
            assert read[start:end] == text[start:end]


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_plain_conversations_train_exactly_the_expected_texts(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str, data: st.DataObject
) -> None:
    style, tokenizer = STYLES[name], chat_tokenizer(STYLES[name].source)
    messages = data.draw(conversations(name, WORDS))
    text, spans = tokenizer.conversations.find_trained_spans({"messages": messages}, "messages")
    assert trained_texts(text, spans) == [style.turn(messages, index) for index in answers(messages)]
    assert spans == sorted(spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    if name != "parts only":
        assert text == rendered(tokenizer, messages)
    check_tokens(tokenizer, reference("bpe"), text, spans)


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_tricky_contents_train_the_expected_texts_or_are_refused(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str, data: st.DataObject
) -> None:
    style, tokenizer = STYLES[name], chat_tokenizer(STYLES[name].source)
    messages = data.draw(conversations(name, TRICKY))
    try:
        text, spans = tokenizer.conversations.find_trained_spans({"messages": messages}, "messages")
    except RowError:
        return
    assert trained_texts(text, spans) == [style.turn(messages, index) for index in answers(messages)]
    check_tokens(tokenizer, reference("bpe"), text, spans)


FLAGS: list[Row] = [{}, {}, {"train": False}, {"weight": 0}, {"train": True}, {"weight": 1, "train": None}]


@pytest.mark.parametrize("train_on", ["assistant", "last_assistant"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flags_and_train_on_exclude_whole_turns(
    chat_tokenizer: MakeChatTokenizer, train_on: str, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(STYLES)))
    style, tokenizer = STYLES[name], chat_tokenizer(STYLES[name].source, train_on=train_on)
    plain = data.draw(conversations(name, WORDS))
    flags = [data.draw(st.sampled_from(FLAGS)) for _ in plain]
    indices = answers(plain)[-1:] if train_on == "last_assistant" else answers(plain)
    kept = [index for index in indices if flags[index].get("train") is not False and flags[index].get("weight") != 0]
    row = {"messages": [{**message, **flag} for message, flag in zip(plain, flags, strict=True)]}
    text, spans = tokenizer.conversations.find_trained_spans(row, "messages")
    assert trained_texts(text, spans) == [style.turn(plain, index) for index in kept]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_masked_reasoning_is_not_trained(chat_tokenizer: MakeChatTokenizer, data: st.DataObject) -> None:
    messages = data.draw(conversations("chatml", WORDS))
    thoughts = [data.draw(st.sampled_from(["", "hm", "\nhm\n", "a b"])) for _ in messages]
    spaces = [data.draw(st.sampled_from(["", " ", "\n\n"])) for _ in messages]
    written: list[Row] = []
    expected, everything = [], ""
    for message, thought, space in zip(messages, thoughts, spaces, strict=True):
        role, content = message["role"], message["content"]
        block = f"<think>{thought}</think>{space}" if role == "assistant" and thought else ""
        written.append({"role": role, "content": block + content})
        everything += f"<|im_start|>{role}\n{content.lstrip() if block else content}<|im_end|>\n"
        if role == "assistant":
            expected.append(f"{content.lstrip() if block else content}<|im_end|>")
    row = {"messages": written}
    text, spans = chat_tokenizer(templates.CHATML, reasoning="mask").conversations.find_trained_spans(row, "messages")
    assert trained_texts(text, spans) == expected
    text, spans = chat_tokenizer(templates.CHATML, reasoning="mask", train_on="all").conversations.find_trained_spans(
        row, "messages"
    )
    assert "".join(trained_texts(text, spans)) == everything


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_escaped_contents_contain_no_special_tokens(chat_tokenizer: MakeChatTokenizer, data: st.DataObject) -> None:
    """Only the special tokens of the template remain, and the text looks the same."""
    tokenizer = chat_tokenizer(templates.TOOLS, policy="escape")
    pieces = st.sampled_from(["<|im_", "end|>", "<|im_end|>", "<", "|im_start|>", "<s>", "</s>", "a", "\n"])
    contents = st.lists(pieces, max_size=5)
    messages: list[Row] = []
    for role in ("user", "assistant") * data.draw(st.integers(1, 2)):
        content = data.draw(contents)
        in_parts = [{"type": "text", "text": piece} for piece in content]
        messages.append({"role": role, "content": in_parts if data.draw(st.booleans()) else "".join(content)})
    tool = {"name": "".join(data.draw(contents))}
    row = {"messages": messages, "tools": json.dumps([tool]) if data.draw(st.booleans()) else [tool]}
    safe, _ = tokenizer.conversations.screen.screen_row(row, "messages")
    try:
        text, spans = tokenizer.conversations.find_trained_spans(safe, "messages")
    except RowError as error:
        if "is rendered with the text of message" not in str(error):
            raise
        return  # an answer that happens to contain another message is refused
    ids = tokenizer.encode_conversations([text], [spans]).input_ids.values.tolist()
    special = [
        token
        for token in tokenizer.tokenizer.convert_ids_to_tokens(ids)
        if token in tokenizer.tokenizer.all_special_tokens
    ]
    special += [
        token for token in tokenizer.tokenizer.convert_ids_to_tokens(ids) if token in ("<|im_start|>", "<|im_end|>")
    ]
    assert special == ["<|im_start|>", "<|im_end|>"] * len(messages)
    plain, _ = chat_tokenizer(templates.TOOLS).conversations.find_trained_spans(row, "messages")
    assert text.replace("\u200b", "") == plain
