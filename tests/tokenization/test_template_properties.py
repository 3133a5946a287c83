"""Random templates with random conversations: both engines render and record the same.

SFTKIT_EXAMPLES=100 in the environment tries a hundred times as many examples, new ones each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from random_conversations import ConversationMaker
from random_templates import TemplateWriter
from sftkit.core.row_log import RowError
from sftkit.errors import TokenizerError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.rendering.compiled_renderer import CompiledRenderer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from sftkit.tokenization.templates.recording import Recording
from support import EFFORT, examples

USUAL, ODD = 3, 2
"""How many conversations each template renders."""

Pair = tuple[ReferenceRenderer, CompiledRenderer]


@pytest.fixture(scope="session")
def pair(tokenizer_path: Callable[[str], str]) -> Pair:
    tokenizer = load_tokenizer(TokenizerSpec(tokenizer_path("bpe"), chat_template="{{ messages }}"))
    reference = ReferenceRenderer(tokenizer, "2024-07-26")
    return reference, CompiledRenderer(tokenizer, reference)


def outcome(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return what a function returns, or which of the expected errors it raises."""
    try:
        made = function(*arguments, **options)
    except (RowError, TokenizerError) as error:
        return type(error)
    return (made.text, made.blocks) if isinstance(made, Recording) else made


def check(pair: Pair, source: str, conversation: Conversation, *, prompt: bool) -> str:
    """Compare the engines; return what happened: "same", "refused" by the fast engine alone, or "error"."""
    reference, fast = pair
    options: dict[str, Any] = {"template": source, "add_generation_prompt": prompt}
    text = outcome(reference.render, conversation, **options)
    recorded = outcome(reference.record, conversation, **options)
    fast_recorded = outcome(fast.record, conversation, **options)
    where = f"{source}\n{conversation}"
    if isinstance(recorded, tuple):
        assert text == recorded[0], where
    elif isinstance(conversation.messages, list):
        assert text is recorded, where
    if isinstance(fast_recorded, tuple):
        assert text == fast_recorded[0], where
        assert not isinstance(recorded, tuple) or recorded[1] == fast_recorded[1], where
        return "same"
    assert fast_recorded in ((RowError,) if isinstance(text, str) else (RowError, text)), where
    return "refused" if isinstance(text, str) else "error"


def check_templates(pair: Pair, numbers: range) -> Counter[str]:
    """Compare the engines on the templates of some numbers; return how often everything happened."""
    seen: Counter[str] = Counter()
    for number in numbers:
        random = Random(number)
        source = TemplateWriter(random).template()
        if outcome(pair[0].can_record, source) is not True:
            seen["unrecordable"] += 1
            continue
        make = ConversationMaker(random)
        for conversation in [*(make.usual() for _ in range(USUAL)), *(make.odd() for _ in range(ODD))]:
            seen[check(pair, source, conversation, prompt=random.random() < 0.5)] += 1
    return seen


def test_random_templates_are_rendered_and_recorded_the_same(pair: Pair) -> None:
    first = Random().randrange(10**9) if EFFORT > 1 else 0
    seen = check_templates(pair, range(first, first + examples(100)))
    assert seen["same"] > seen["error"] / 3  # most templates render
    assert seen["refused"] <= 3 + seen["same"] / 50
    assert seen["unrecordable"] <= 3 + seen["same"] / 50


@pytest.mark.slow
def test_many_random_templates_are_rendered_and_recorded_the_same(pair: Pair) -> None:
    check_templates(pair, range(10**9, 10**9 + examples(2000)))
