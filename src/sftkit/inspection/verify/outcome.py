"""The results of verification."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """Something that does not match the manifest."""

    place: str
    """The file, or the part of the manifest."""
    what: str
    """How it differs."""
    details: tuple[str, ...] = ()
    """Lines that show the difference."""


@dataclass(frozen=True)
class CheckOutcome:
    """The result of some checks, one sentence for each entry."""

    verified: tuple[str, ...] = ()
    """What was checked and matches the manifest."""
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be checked, or is no fault of the data set (changed sources, other versions)."""


@dataclass(frozen=True)
class Verification:
    """The result of all checks of a data set; the fields are those of `CheckOutcome`."""

    location: str
    verified: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def combine(parts: Iterable[CheckOutcome]) -> CheckOutcome:
    """Concatenate the results of several checks."""
    outcomes = list(parts)
    return CheckOutcome(
        verified=tuple(sentence for outcome in outcomes for sentence in outcome.verified),
        differences=tuple(difference for outcome in outcomes for difference in outcome.differences),
        notes=tuple(note for outcome in outcomes for note in outcome.notes),
    )


def format_value(value: object) -> str:
    """Format a value for a message: integers with thousands separators.

    Example:
        >>> format_value(1234), format_value("a")
        ('1,234', "'a'")
    """
    return f"{value:,}" if isinstance(value, int) else repr(value)
