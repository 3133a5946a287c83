"""Random templates traced on random plain conversations: the programs give the text of the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from random_templates import TemplateWriter
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.errors import TokenizerError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from sftkit.tokenization.templates.recording import Program
from sftkit.tokenization.tracing.trace import UntraceableError
from sftkit.tokenization.tracing.tracer import Tracer
from support import EFFORT, examples

DAY = "2024-07-26"
TEXTS = (
    *("hello", "", " ", "\n", " a\n", "a b", "user", "assistant", "content", "x", "y", "z", "a,b", "A", "0", "1"),
    *("None", "True", "<x>", "é", "it's", '"q"', "a", "b", "ab", "system", "tool", "<think>a</think>b"),
)
CONVERSATIONS = 8
"""How many conversations each program renders, beside the one that was traced."""


@pytest.fixture(scope="session")
def reference(tokenizer_path: Callable[[str], str]) -> ReferenceRenderer:
    return ReferenceRenderer(load_tokenizer(TokenizerSpec(tokenizer_path("bpe"), chat_template="{{ messages }}")), DAY)


def messages(random: Random, roles: list[str]) -> list[Row]:
    return [{"role": role, "content": "".join(random.choices(TEXTS, k=random.choice([1, 1, 2])))} for role in roles]


def traced(source: str, first: list[Row]) -> Program | None:
    """Return a program for a conversation; None if there is none."""
    try:
        return Tracer(source, DAY).trace(first, {"tools": None, "documents": None, "add_generation_prompt": False})
    except (Exception, UntraceableError):  # a template may raise anything
        return None


def rendered(reference: ReferenceRenderer, source: str, conversation: list[Row]) -> str | None:
    try:
        return reference.render(Conversation(conversation), template=source)
    except (RowError, TokenizerError):
        return None


def check_programs(reference: ReferenceRenderer, numbers: range) -> Counter[str]:
    """Compare programs of the templates of some numbers with the reference; return how often everything happened."""
    seen: Counter[str] = Counter()
    for number in numbers:
        random = Random(number)
        source = TemplateWriter(random).template()
        roles = [*random.choice([[], ["system"]]), *["user", "assistant"] * random.randint(1, 3)]
        first = messages(random, roles)
        program = traced(source, first)
        if program is None:
            seen["untraced"] += 1
            continue
        for conversation in [first, *(messages(random, roles) for _ in range(CONVERSATIONS))]:
            pieces = program.run([message["content"] for message in conversation])
            assert pieces is not None or conversation is not first, source
            if pieces is None:
                seen["other conditions"] += 1
                continue
            assert "".join(pieces) == rendered(reference, source, conversation), f"{source}\n{conversation}"
            seen["same"] += 1
    return seen


def test_programs_of_random_templates_give_the_text_of_the_reference(reference: ReferenceRenderer) -> None:
    first = Random().randrange(10**9) if EFFORT > 1 else 0
    seen = check_programs(reference, range(first, first + examples(150)))
    assert seen["same"] > seen["untraced"]


@pytest.mark.slow
def test_programs_of_many_random_templates_give_the_text_of_the_reference(reference: ReferenceRenderer) -> None:
    check_programs(reference, range(10**9, 10**9 + examples(1500)))
