"""A picture: drawings of the same numbers, and the table of these numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

Cell = str | int | None


@dataclass(frozen=True)
class Drawing:
    """One way to draw the numbers."""

    name: str
    """What distinguishes it from the others; empty if it is the only one."""
    svg: Markup
    columns: tuple[str, ...]
    """Headings of its table."""
    rows: Sequence[tuple[Cell, ...]]
    """The numbers."""


@dataclass(frozen=True)
class Picture:
    """One picture of a report."""

    key: str
    """Part of its id in the page."""
    title: str
    drawings: tuple[Drawing, ...]
    note: str = ""
    """What else to know about it."""
