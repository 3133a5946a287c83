"""Trained texts of about a hundred chat templates, each with conversations of every kind.

The expected texts are what the model has to produce at inference. They were worked out by hand, not copied from the
output of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

from sftkit.core.accounting.row_notes import MESSAGE_NOT_RENDERED
from sftkit.core.row_log import RowError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from support import trained_texts
from template_zoo import CASES
from template_zoo.model import Case, OrQuarantined, Quarantined, Style

FAST = EnginePolicy(frozenset(), verify_fraction=0.0)
REFERENCE = EnginePolicy(frozenset({ENCODER, RENDERER}), verify_fraction=0.0)

LEAVING_OUT_MESSAGES = {
    *("mistral-v3-system", "phi3-first-system", "orion-system", "teleflm-system", "rejectattr-system"),
    *("loop-controls-system", "loop-controls-late_system", "alpaca-single-multi", "continued-tool"),
    *("last-three-multi", "last-three-same", "last-three-lookalike"),
}
"""Cases of which the template really leaves out a message or a call."""

MakeTokenizer = Callable[[Style, EnginePolicy], ChatTokenizer]


@pytest.fixture(scope="module")
def make_tokenizer(tokenizer_path: Callable[[str], str]) -> MakeTokenizer:
    """Make the `ChatTokenizer` of a style, with the given engines."""

    @lru_cache(maxsize=4)  # tokenizers are big, and cases in order of style
    def make(style: Style, engines: EnginePolicy) -> ChatTokenizer:
        spec = TokenizerSpec(tokenizer_path(style.tokenizer), style.source, style.special)
        return ChatTokenizer(ChatTokenizerSpec(spec, "assistant", engines))

    return make


def outcome(tokenizer: ChatTokenizer, case: Case) -> tuple[str, list[tuple[int, int]]] | None:
    """Return text and spans of a case; None if the row is refused."""
    try:
        prepared = tokenizer.conversations.prepare(case.conversation.row, "messages")
    except RowError:
        return None
    assert (MESSAGE_NOT_RENDERED in prepared.notes.rules) is (str(case) in LEAVING_OUT_MESSAGES)
    return prepared.text, list(prepared.trained)


def adapted_messages(case: Case) -> list[dict[str, Any]]:
    """Return the messages with contents in the form that the template takes."""
    messages = case.conversation.messages
    if case.style.content == "both" or (case.style.content == "text" and case.name != "parts"):
        return messages
    contents = [message["content"] for message in messages]
    texts = [c if isinstance(c, str) else "".join(part["text"] for part in c) for c in contents]
    if case.style.content == "text":
        return [{**message, "content": text} for message, text in zip(messages, texts, strict=True)]
    taken = [[{"type": "text", "text": c}] if isinstance(c, str) else c for c in contents]
    return [{**message, "content": content} for message, content in zip(messages, taken, strict=True)]


def rendered(tokenizer: ChatTokenizer, case: Case) -> str:
    """Return the text that transformers renders."""
    source = case.style.source
    if case.style.reads_row and source is not None:
        source = source.replace("messages['messages']", "messages")
    return str(
        tokenizer.tokenizer.apply_chat_template(
            adapted_messages(case), chat_template=source, tokenize=False, **template_variables(case)
        )
    )


def template_variables(case: Case) -> dict[str, Any]:
    """Return all variables of the template but the messages."""
    return {"tools": case.conversation.tools, "documents": case.conversation.documents, **case.conversation.variables}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_expected_texts_are_trained(make_tokenizer: MakeTokenizer, case: Case) -> None:
    tokenizer = make_tokenizer(case.style, FAST)
    found = outcome(tokenizer, case)
    if tokenizer.engines_used["renderer"] != "jinja2":  # else both results are of the reference
        assert outcome(make_tokenizer(case.style, REFERENCE), case) == found, "the fast engine finds other spans"
    if found is None:
        assert case.expected is Quarantined or isinstance(case.expected, OrQuarantined), f"refused, not {case.expected}"
        return
    text, spans = found
    assert spans == sorted(spans)
    trained = [piece for piece in trained_texts(text, spans) if piece]
    assert trained == (case.expected.texts if isinstance(case.expected, OrQuarantined) else case.expected)
    assert text == rendered(tokenizer, case)


WITH_GENERATION_BLOCKS = [case for case in CASES if "generation %}" in (case.style.source or "")]


@pytest.mark.parametrize("case", WITH_GENERATION_BLOCKS, ids=str)
def test_generation_blocks_give_the_mask_of_transformers(make_tokenizer: MakeTokenizer, case: Case) -> None:
    tokenizer = make_tokenizer(case.style, FAST)
    text, spans = tokenizer.conversations.find_trained_spans(case.conversation.row, "messages")
    made = tokenizer.encode_conversations([text], [spans])
    expected = tokenizer.tokenizer.apply_chat_template(
        adapted_messages(case),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        add_special_tokens=False,
        **template_variables(case),
    )
    assert made.input_ids.values.tolist() == expected["input_ids"]
    assert [int(label != -100) for label in made.labels.values] == expected["assistant_masks"]
