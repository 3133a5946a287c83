"""Prints a verification: a line for each check that passed, each note and each difference."""

from __future__ import annotations

from rich.console import Console
from rich.style import Style
from rich.text import Text

from sftkit.cli.console.text_lines import note_of, print_text
from sftkit.core.escape import escape_to_one_line
from sftkit.inspection.verify.outcome import Difference, Verification

_HEADING = Style(bold=True)
_RIGHT = Style(color="green")
_WRONG = Style(color="red")
_INDENT = 4


def print_verification(found: Verification, console: Console) -> None:
    """Print a verification; the differences and their number come last."""
    print_text(console, Text(escape_to_one_line(found.location), style=_HEADING))
    for sentence in found.verified:
        print_text(console, Text("verified: ", style=_RIGHT), Text(escape_to_one_line(sentence)))
    for sentence in found.notes:
        print_text(console, note_of(sentence))
    for difference in found.differences:
        _print_difference(difference, console)
    count = len(found.differences)
    if count:
        print_text(console, Text(f"{count:,} difference{'s' if count > 1 else ''}", style=_WRONG))
    else:
        print_text(console, Text("nothing differs from the manifest", style=_RIGHT))


def _print_difference(difference: Difference, console: Console) -> None:
    text = f"{escape_to_one_line(difference.place)}: {escape_to_one_line(difference.what)}"
    print_text(console, Text("differs: ", style=_WRONG), Text(text))
    for line in difference.details:
        print_text(console, Text(escape_to_one_line(line)), indent=_INDENT)
