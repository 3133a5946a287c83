"""Made-up conversations that show what a chat template writes around contents."""

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
"""What contents begin and end with: characters that tokenizers may merge with the surrounding text."""

WORDS = ("alpha", "get_x", "Zoo", "b1", "run", "my_tool", "Q", "list", "ask")
"""Names of tools and arguments."""

MARKER = re.compile(r"sftkit(\d+)q")
"""Finds markers; the group is the index of the message."""


def marker(place: int) -> str:
    """A unique word in the content of the message at a place."""
    return f"sftkit{place}q"


def content_of(place: int, variant: int) -> str:
    """The content of the message at a place in one variant of a probe."""
    begin, end = EDGES[(variant + place) % len(EDGES)]
    return f"{begin}{marker(place)}{end}"


def contents() -> list[str]:
    """The content of the first message in every variant."""
    return [content_of(0, variant) for variant in range(len(EDGES))]


USER, SYSTEM, ASSISTANT, TOOL = "user", "system", "assistant", "tool"
CALL, SAID_CALL, REASONED = "call", "said and call", "reasoned"
ANSWERS = frozenset(
    {ASSISTANT, CALL, SAID_CALL, REASONED, "assistant_tool_call", "function_call", "model", "gpt", "ai", "chatbot"}
)
"""Names in shapes for messages that the model writes."""

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
    """The shape of one conversation."""

    shape: tuple[str, ...]
    """Roles, or kinds of assistant messages."""
    tools: bool
    """Whether the conversation has tools."""
    asks: bool = False
    """Whether it ends with a generation prompt."""
    word: str = ""
    """A last word for the first message, for templates that look for it there."""


@dataclass(frozen=True)
class RenderedProbe:
    """The renderings of one probe with several contents, as tokens."""

    probe: Probe
    """The shape."""
    specials: tuple[int, ...]
    """The special tokens in order, the same for all contents."""
    gaps: tuple[tuple[tuple[int, ...], ...], ...]
    """The ids before, between and after the special tokens: for each gap one tuple per content."""
    texts: tuple[str, ...]
    """The renderings."""
