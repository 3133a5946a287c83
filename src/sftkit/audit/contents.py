"""Contents of made-up messages: as many as may merge with the text around them in other ways."""

from __future__ import annotations

import re

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
