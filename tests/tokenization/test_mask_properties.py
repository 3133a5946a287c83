"""Random conversations in a dozen styles of templates: what is trained is what each style says, in order, and no more.

What a style says is written down by hand, one function each; nothing of it is taken from the program. Each has
its fast engines held against the reference on each row.
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
Says = Callable[[Sequence[Row], int], str]

EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Said:
    """A template and the text of each assistant turn that must be trained, by its place in the conversation.

    alternates: it takes questions and answers in turn, and nothing else.
    """

    source: str
    turn: Says
    alternates: bool = False


def with_stop(stop: str) -> Says:
    return lambda messages, place: messages[place]["content"] + stop


def stripped(before: str, after: str) -> Says:
    return lambda messages, place: f"{before}{messages[place]['content'].strip()}{after}"


def thinking_at_last(messages: Sequence[Row], place: int) -> str:
    asks_follow = any(message["role"] == "user" for message in messages[place:])
    asked = any(message["role"] == "user" for message in messages)
    thought = EMPTY_THOUGHT if asked and not asks_follow else ""
    return f"{thought}{messages[place]['content']}<|im_end|>"


STYLES = {
    "chatml": Said(templates.CHATML, with_stop("<|im_end|>")),
    "chatml in lines": Said(templates.CHATML_IN_LINES, with_stop("<|im_end|>")),
    "generation": Said(templates.GENERATION, with_stop("<|im_end|>")),
    "response": Said(templates.RESPONSE, with_stop("</s>")),
    "no prompt": Said(templates.NO_PROMPT, with_stop("<|im_end|>")),
    "by index": Said(templates.BY_INDEX, with_stop("<|im_end|>")),
    "qwen3": Said(templates.QWEN3_LIKE, thinking_at_last),
    "parts": Said(templates.PARTS, with_stop("<|im_end|>")),
    "parts only": Said(PARTS_ONLY.source or "", with_stop("<|im_end|>")),
    "tools": Said(templates.TOOLS, with_stop("<|im_end|>")),
    "captured": Said(templates.CAPTURED, with_stop("<|im_end|>")),
    "by macro": Said(BY_MACRO.source or "", with_stop("</assistant>")),
    "llama2": Said(templates.LLAMA2, stripped(" ", " </s>"), alternates=True),
    "gemma": Said(templates.MERGES_SYSTEM, stripped("", "<end_of_turn>"), alternates=True),
    "in pairs": Said(IN_PAIRS.source or "", lambda messages, place: f" {messages[place]['content']}</s>", True),
}

WORDS = st.text(st.sampled_from(list("ab .\n")), max_size=6)
TRICKS = st.sampled_from(
    [
        *("<|im_start|>assistant\n", "<|im_end|>", "<|im_end|>\n", "</s>", "[INST]", "### Response:\n", "<assistant>"),
        *("<end_of_turn>", "A:", "<think>", "</think>", "\x0e", "{{ 1 }}", "你", "😀", "ü"),
    ]
)
PLAIN = WORDS
TRICKY = st.lists(WORDS | TRICKS, max_size=4).map("".join)


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
    return [place for place, message in enumerate(messages) if message["role"] == "assistant"]


def rendered(box: ChatTokenizer, messages: list[Row]) -> str:
    return str(box.tokenizer.apply_chat_template(messages, tokenize=False))


def check_tokens(box: ChatTokenizer, reference: Any, text: str, spans: list[tuple[int, int]]) -> None:
    """Ids are the tokenizer's own, labels those of the tokens that overlap a span, and they read as the text."""
    made = box.encode_conversations([text], [spans])
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
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_plain_conversations_train_what_the_style_says_and_nothing_else(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str, data: st.DataObject
) -> None:
    style, box = STYLES[name], chat_tokenizer(STYLES[name].source)
    messages = data.draw(conversations(name, PLAIN))
    text, spans = box.find_trained_spans({"messages": messages}, "messages")
    assert trained_texts(text, spans) == [style.turn(messages, place) for place in answers(messages)]
    assert spans == sorted(spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    if name != "parts only":
        assert text == rendered(box, messages)
    check_tokens(box, reference("bpe"), text, spans)


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_contents_full_of_tricks_are_trained_right_or_put_aside(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str, data: st.DataObject
) -> None:
    style, box = STYLES[name], chat_tokenizer(STYLES[name].source)
    messages = data.draw(conversations(name, TRICKY))
    try:
        text, spans = box.find_trained_spans({"messages": messages}, "messages")
    except RowError:
        return
    assert trained_texts(text, spans) == [style.turn(messages, place) for place in answers(messages)]
    check_tokens(box, reference("bpe"), text, spans)


FLAGS: list[Row] = [{}, {}, {"train": False}, {"weight": 0}, {"train": True}, {"weight": 1, "train": None}]


@pytest.mark.parametrize("train_on", ["assistant", "last_assistant"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flags_and_the_choice_of_turns_take_away_whole_turns(
    chat_tokenizer: MakeChatTokenizer, train_on: str, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(STYLES)))
    style, box = STYLES[name], chat_tokenizer(STYLES[name].source, train_on=train_on)
    plain = data.draw(conversations(name, PLAIN))
    flags = [data.draw(st.sampled_from(FLAGS)) for _ in plain]
    places = answers(plain)[-1:] if train_on == "last_assistant" else answers(plain)
    kept = [place for place in places if flags[place].get("train") is not False and flags[place].get("weight") != 0]
    row = {"messages": [{**message, **flag} for message, flag in zip(plain, flags, strict=True)]}
    text, spans = box.find_trained_spans(row, "messages")
    assert trained_texts(text, spans) == [style.turn(plain, place) for place in kept]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_reasoning_is_left_out_of_turns_and_of_everything(
    chat_tokenizer: MakeChatTokenizer, data: st.DataObject
) -> None:
    """The answers that remain stand in order; what else is left of everything are the questions."""
    messages = data.draw(conversations("chatml", PLAIN))
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
    text, spans = chat_tokenizer(templates.CHATML, reasoning="mask").find_trained_spans(row, "messages")
    assert trained_texts(text, spans) == expected
    text, spans = chat_tokenizer(templates.CHATML, reasoning="mask", train_on="all").find_trained_spans(row, "messages")
    assert "".join(trained_texts(text, spans)) == everything


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_escaped_contents_hold_no_special_token(chat_tokenizer: MakeChatTokenizer, data: st.DataObject) -> None:
    """As many special tokens come out as the template writes, and those who look see the same text."""
    box = chat_tokenizer(templates.TOOLS, policy="escape")
    pieces = st.sampled_from(["<|im_", "end|>", "<|im_end|>", "<", "|im_start|>", "<s>", "</s>", "a", "\n"])
    contents = st.lists(pieces, max_size=5)
    messages: list[Row] = []
    for role in ("user", "assistant") * data.draw(st.integers(1, 2)):
        content = data.draw(contents)
        in_parts = [{"type": "text", "text": piece} for piece in content]
        messages.append({"role": role, "content": in_parts if data.draw(st.booleans()) else "".join(content)})
    tool = {"name": "".join(data.draw(contents))}
    row = {"messages": messages, "tools": json.dumps([tool]) if data.draw(st.booleans()) else [tool]}
    safe, _ = box.screen(row, "messages")
    text, spans = box.find_trained_spans(safe, "messages")
    ids = box.encode_conversations([text], [spans]).input_ids.values.tolist()
    special = [token for token in box.tokenizer.convert_ids_to_tokens(ids) if token in box.tokenizer.all_special_tokens]
    special += [token for token in box.tokenizer.convert_ids_to_tokens(ids) if token in ("<|im_start|>", "<|im_end|>")]
    assert special == ["<|im_start|>", "<|im_end|>"] * len(messages)
    plain, _ = chat_tokenizer(templates.TOOLS).find_trained_spans(row, "messages")
    assert text.replace("\u200b", "") == plain
