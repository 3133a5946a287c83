"""Made-up conversations that show what a chat template writes around contents, whatever the contents are."""

from __future__ import annotations

import re
from dataclasses import dataclass

EDGES = (
    ("", ""),
    ("\n", "."),
    (" ", " "),
    ("(", ")"),
    ("你好", "。"),
    ("\n\n", "\n"),
    ("## ", ":"),
    ("7", "```\n\n"),
    ('"', "9"),
)
"""What contents begin and end with: all that may merge with the text around them."""

WORDS = ("alpha", "get_x", "Zoo", "b1", "run", "my_tool", "Q", "list", "ask")
"""Names of tools and arguments."""

MARKER = re.compile(r"sftkit(\d+)q")
"""Finds markers; the group is the place."""


def marker(place: int) -> str:
    """A word in the content of the message at a place that is nowhere else."""
    return f"sftkit{place}q"


def content_of(place: int, variant: int) -> str:
    """The content of the message at a place in one variant of a probe."""
    begin, end = EDGES[(variant + place) % len(EDGES)]
    return f"{begin}{marker(place)}{end}"


def contents() -> list[str]:
    """The contents of the first message in all variants."""
    return [content_of(0, variant) for variant in range(len(EDGES))]


USER, SYSTEM, ASSISTANT, TOOL = "user", "system", "assistant", "tool"
CALL, SAID_CALL, REASONED = "call", "said and call", "reasoned"
ANSWERS = frozenset(
    {ASSISTANT, CALL, SAID_CALL, REASONED, "assistant_tool_call", "function_call", "model", "gpt", "ai", "chatbot"}
)
"""What may stand in a shape for a message that the model writes."""

SHAPES: tuple[tuple[str, ...], ...] = (
    (USER, ASSISTANT),
    (SYSTEM, USER, ASSISTANT),
    (USER, ASSISTANT, USER, ASSISTANT),
    (SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER, ASSISTANT),
    (USER, REASONED),
    (USER, REASONED, USER, REASONED),
    (USER, ASSISTANT, ASSISTANT),
    (USER, USER, ASSISTANT),
)
TOOL_SHAPES: tuple[tuple[str, ...], ...] = (
    (USER, CALL, TOOL, ASSISTANT),
    (SYSTEM, USER, SAID_CALL, TOOL, TOOL, ASSISTANT, USER, ASSISTANT),
    (USER, CALL, TOOL, CALL, TOOL, SAID_CALL),
    (USER, CALL),
)


@dataclass(frozen=True)
class Probe:
    """One shape of a conversation.

    shape: roles, or kinds of assistant messages. tools: whether there are any. asks: ends with a generation prompt.
    word: ends the content of the first message, for a template that looks for it there.
    """

    shape: tuple[str, ...]
    tools: bool
    asks: bool = False
    word: str = ""


@dataclass(frozen=True)
class RenderedProbe:
    """What the template and the tokenizer make of one probe, over many contents.

    specials: the special tokens in order, the same for all contents. gaps: for each stretch before, between and behind
    them its ids, one tuple for each of the contents. texts: the renderings.
    """

    probe: Probe
    specials: tuple[int, ...]
    gaps: tuple[tuple[tuple[int, ...], ...], ...]
    texts: tuple[str, ...]
