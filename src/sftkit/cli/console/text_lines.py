"""Lines of a report: wrapped on a terminal, whole in a pipe, and where they stand, told from what the data wrote."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from sftkit.audit.findings import ERROR
from sftkit.core.escape import escape_to_one_line

_NOTE = Style(color="yellow")
_LEVELS = {ERROR: Style(color="red")}
_OTHER_LEVEL = Style(color="yellow")
_TAB = 8


def print_text(console: Console, *parts: Text, indent: int = 0) -> None:
    """Print text so many columns from the left. Lines are wrapped on a terminal only, so that a pipe gets the lines of
    the data.
    """
    text = Text.assemble(*parts)
    if console.is_terminal:
        console.print(
            Padding(text, (0, 0, 0, indent), expand=False) if indent else text, overflow="fold", highlight=False
        )
        return
    if indent:
        text.expand_tabs(_TAB)  # before it is moved
        margin = Text(" " * indent)
        lines = (margin + line if line.plain else line for line in text.split("\n", allow_blank=True))
        text = Text("\n").join(lines)
    console.print(text, soft_wrap=True, highlight=False)


def note_of(sentence: str) -> Text:
    """A note, which may hold names from the data."""
    return Text(f"note: {escape_to_one_line(sentence)}", style=_NOTE)


def level_style(level: str) -> Style:
    """The colour of a finding's level."""
    return _LEVELS.get(level, _OTHER_LEVEL)


def percent(part: float | None) -> str:
    """A share of 0 to 1 to stand behind a count: ` (44.2 %)`."""
    return f" ({100 * part:.1f} %)" if part is not None else ""
