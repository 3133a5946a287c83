"""Prints the help of a command: its options in groups, each name whole, with its type, meaning and default."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.style import Style
from rich.text import Text

from sftkit.cli.console.option import Option

_HEADING = Style(bold=True)
_NAME = Style(color="cyan", bold=True)
_KIND = Style(color="yellow")

_WIDEST, _WITHOUT_TERMINAL = 110, 80
"""Columns of a line: longer ones are hard to read; a pipe has no width, and may end in a narrow terminal."""

_NARROW = 80
_NAME_COLUMNS = {False: 34, True: 30}
"""Columns left of the texts, by whether the terminal is narrow; a longer name has a line of its own."""

_GROUPS = (
    *("Preview", "Data", "Tokenizer", "Rows", "Output"),
    *("Training", "Evaluation", "Model", "Batches", "Adapters", "Tracking", "Run"),
)
"""Order of the groups; others come after these, in the order of their options."""


def print_help(usage: str, description: str, options: Sequence[Option], notes: Iterable[str]) -> None:
    """Print the help of a command on standard output.

    Args:
        usage: the line after "Usage: ".
        description: paragraphs; an indented one is a command and is not wrapped.
        options: the options, grouped by their `panel`.
        notes: paragraphs for the end.
    """
    width = min(shutil.get_terminal_size((_WITHOUT_TERMINAL, 24)).columns, _WIDEST)
    console = Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(Text.assemble(("Usage: ", _HEADING), usage))
    for paragraph in description.split("\n\n"):
        is_command = paragraph.lstrip().startswith("sftkit ")
        lines = [f"  {paragraph.strip()}"] if is_command else _wrapped(paragraph, width)
        console.print(Text("\n".join(["", *lines])))
    for group, members in _grouped(options).items():
        console.print(Text.assemble("\n", (group, _HEADING)))
        for option in members:
            console.print(_option_lines(option, width))
    for note in notes:
        console.print(Text("\n".join(["", *_wrapped(note, width)])))


def _grouped(options: Sequence[Option]) -> dict[str, list[Option]]:
    found: dict[str, list[Option]] = {}
    for option in options:
        found.setdefault(option.panel, []).append(option)
    return {group: found[group] for group in (*_GROUPS, *found) if group in found}


def _option_lines(option: Option, width: int) -> Text:
    """Return the name and type of an option, and its text in a column at the right."""
    column = _NAME_COLUMNS[width <= _NARROW]
    name = f"--{option.shown_name}"
    line = Text.assemble("  ", (name, _NAME), " ", (option.kind, _KIND))
    texts = _wrapped(option.full_help, width - column)
    if len(line) + 2 <= column and texts:
        line.append(" " * (column - len(line)) + texts.pop(0))
    return Text("\n").join([line, *(Text(" " * column + text) for text in texts)])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), max(width - 1, 20), break_long_words=True, break_on_hyphens=False)
