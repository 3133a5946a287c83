"""Chat templates of every style, crossed with conversations: what is trained, by its literal text, or a refusal.

The texts say what the model has to produce at inference; they were worked out by hand, never printed by the program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from sftkit.core.row_log import RowError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer, ChatTokenizerSpec
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy
from sftkit.tokenization.tokenizer_loading import TokenizerSpec
from support import trained_texts
from template_zoo import CASES
from template_zoo.model import Case, OrQuarantined, Quarantined, Style

FAST = EnginePolicy(frozenset(), verify_fraction=0.0)
REFERENCE = EnginePolicy(frozenset({ENCODER, RENDERER}), verify_fraction=0.0)

MakeBox = Callable[[Style, EnginePolicy], ChatTokenizer]


@pytest.fixture(scope="module")
def box(tokenizer_path: Callable[[str], str]) -> MakeBox:
    """The ChatTokenizer of a style, with engines."""

    @cache
    def make(style: Style, engines: EnginePolicy) -> ChatTokenizer:
        spec = TokenizerSpec(tokenizer_path(style.tokenizer), style.source, style.special)
        return ChatTokenizer(ChatTokenizerSpec(spec, "assistant", engines))

    return make


def outcome(box: ChatTokenizer, case: Case) -> tuple[str, list[tuple[int, int]]] | None:
    """Text and spans of a case, None when the row is refused."""
    try:
        text, spans = box.find_trained_spans(case.conversation.row, "messages")
    except RowError:
        return None
    return text, list(spans)


def as_taken(case: Case) -> list[dict[str, Any]]:
    """The messages as the template takes their contents."""
    messages = case.conversation.messages
    if case.style.content == "both" or (case.style.content == "text" and case.name != "parts"):
        return messages
    contents = [message["content"] for message in messages]
    texts = [c if isinstance(c, str) else "".join(part["text"] for part in c) for c in contents]
    if case.style.content == "text":
        return [{**message, "content": text} for message, text in zip(messages, texts, strict=True)]
    taken = [[{"type": "text", "text": c}] if isinstance(c, str) else c for c in contents]
    return [{**message, "content": content} for message, content in zip(messages, taken, strict=True)]


def rendered(box: ChatTokenizer, case: Case) -> str:
    """The whole text by transformers alone."""
    source = case.style.source
    if case.style.reads_row and source is not None:
        source = source.replace("messages['messages']", "messages")
    return str(box.tokenizer.apply_chat_template(as_taken(case), chat_template=source, tokenize=False, **given(case)))


def given(case: Case) -> dict[str, Any]:
    """What the template is given besides the messages."""
    return {"tools": case.conversation.tools, "documents": case.conversation.documents, **case.conversation.variables}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_trained(box: MakeBox, case: Case) -> None:
    tools = box(case.style, FAST)
    found = outcome(tools, case)
    if tools.engines_used["renderer"] != "jinja2":  # where the reference renders anyway, there is nothing to compare
        assert outcome(box(case.style, REFERENCE), case) == found, "the fast engine finds other spans"
    if found is None:
        assert case.expected is Quarantined or isinstance(case.expected, OrQuarantined), f"refused, not {case.expected}"
        return
    text, spans = found
    assert spans == sorted(spans)
    trained = [piece for piece in trained_texts(text, spans) if piece]
    assert trained == (case.expected.texts if isinstance(case.expected, OrQuarantined) else case.expected)
    assert text == rendered(tools, case)


WITH_GENERATION_BLOCKS = [case for case in CASES if "generation %}" in (case.style.source or "")]


@pytest.mark.parametrize("case", WITH_GENERATION_BLOCKS, ids=str)
def test_generation_blocks_give_the_tokens_that_transformers_gives(box: MakeBox, case: Case) -> None:
    tools = box(case.style, FAST)
    text, spans = tools.find_trained_spans(case.conversation.row, "messages")
    made = tools.encode_conversations([text], [spans])
    expected = tools.tokenizer.apply_chat_template(
        as_taken(case),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        add_special_tokens=False,
        **given(case),
    )
    assert made.input_ids.values.tolist() == expected["input_ids"]
    assert [int(label != -100) for label in made.labels.values] == expected["assistant_masks"]
