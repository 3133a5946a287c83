"""Lines and tables: lines are indented, and wrapped only on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from sftkit.audit.findings import ERROR
from sftkit.cli.console.fitted_table import FittedTable
from sftkit.core.escape import escape_to_one_line

_NOTE = Style(color="yellow")
_LEVELS = {ERROR: Style(color="red")}
_OTHER_LEVEL = Style(color="yellow")
_TAB = 8
_SECOND_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def print_text(console: Console, *parts: Text, indent: int = 0) -> None:
    """Print text, indented by `indent` columns. Only a terminal wraps lines, so that a pipe receives whole lines."""
    text = Text.assemble(*parts)
    if console.is_terminal:
        console.print(
            Padding(text, (0, 0, 0, indent), expand=False) if indent else text, overflow="fold", highlight=False
        )
        return
    if indent:
        text.expand_tabs(_TAB)  # a tab's width depends on its column
        margin = Text(" " * indent)
        lines = (margin + line if line.plain else line for line in text.split("\n", allow_blank=True))
        text = Text("\n").join(lines)
    console.print(text, soft_wrap=True, highlight=False)


def note_of(sentence: str) -> Text:
    """Return a note as a line; names from the data in it are escaped."""
    return Text(f"note: {escape_to_one_line(sentence)}", style=_NOTE)


def level_style(level: str) -> Style:
    """Return the colour of a finding's level."""
    return _LEVELS.get(level, _OTHER_LEVEL)


def percent(part: int | None, whole: int | None) -> str:
    """Format a share to follow a count, as in ` (44.2%)`; an empty text if either is unknown or the whole is 0."""
    return f" ({part / whole:.1%})" if part is not None and whole else ""


def duration(seconds: float) -> str:
    """Format a time with its two largest units.

    Example:
        >>> duration(4320), duration(59.96)
        ('1 h 12 min', '60 s')
    """
    for position, (size, unit) in enumerate(_SECOND_UNITS):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            below, name = _SECOND_UNITS[position + 1] if position + 1 < len(_SECOND_UNITS) else (1, "s")
            return f"{whole:,.0f} {unit} {rest // below:.0f} {name}"
    return f"{seconds:.3g} s"


def new_table(*left: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table with headings, aligned to the left or to the right."""
    table = FittedTable(box=None, pad_edge=False, header_style="bold")
    for heading in (*left, *right):
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table
