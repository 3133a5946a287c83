"""What came of verifying something: what was found right, what differs, and what the reader should know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """Something that is not what the manifest says.

    place: the file, or the part of the manifest. what: how it differs. details: lines that show it.
    """

    place: str
    what: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckOutcome:
    """What some checks gave. right: what was checked and is as it should be, a sentence each."""

    right: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()


def combined(parts: Iterable[CheckOutcome]) -> CheckOutcome:
    """What several checks gave, in order."""
    every = list(parts)
    return CheckOutcome(
        right=tuple(each for part in every for each in part.right),
        differences=tuple(each for part in every for each in part.differences),
        notes=tuple(each for part in every for each in part.notes),
    )


def format_value(value: object) -> str:
    """A count as it is shown: with commas."""
    return f"{value:,}" if isinstance(value, int) else repr(value)
