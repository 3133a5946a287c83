"""What the audit found, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.text import Text

from sftkit.audit.findings import ERROR, RULES
from sftkit.inspection.visible import one_line


class Found(Protocol):
    """A finding, of a manifest or of an audit just made."""

    @property
    def rule(self) -> str:
        """Its name."""

    @property
    def level(self) -> str:
        """error or warning."""

    @property
    def rows(self) -> int:
        """How many rows break it."""

    @property
    def examples(self) -> tuple[str, ...]:
        """The first of them."""


def print_findings(rows: int, findings: Sequence[Found], console: Console) -> None:
    """Each finding: how many rows, what is wrong, which ones, what to do."""
    if not findings:
        _print(Text(f"audit: {rows:,} rows checked, nothing found"), console)
        return
    _print(Text(f"audit: {rows:,} rows checked"), console)
    for found in findings:
        rule = RULES.get(found.rule)
        style = "red" if found.level == ERROR else "yellow"
        title = Text(f"  {found.level}: {found.rule}, {found.rows:,} row{'s' if found.rows > 1 else ''}", style)
        if rule is not None:
            title.append(f": {rule.what}")
        _print(title, console)
        more = ", ..." if found.rows > len(found.examples) else ""
        _print(Text(f"    in {', '.join(map(one_line, found.examples))}{more}", "dim"), console)
        if rule is not None:
            _print(Text(f"    {rule.advice}"), console)


def _print(text: Text, console: Console) -> None:
    """One line in a pipe, wrapped on a terminal."""
    console.print(text, soft_wrap=not console.is_terminal, highlight=False)
