"""Tables on narrow terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from sftkit.cli.console.text_lines import new_table

PATH = "/data/of/a/user/who/likes/long/names/conversations.jsonl"


def lines_at(width: int) -> list[str]:
    table = new_table("source", "data set", right=("rows kept", "train tokens", "copies"))
    table.add_row(Text(PATH), "talks", "1,234,567", "60,930,111 (86.5%)", "2-3")
    table.add_row("all", "", "2,345,678", "70,416,222 (100.0%)", "1-3", style="bold")
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_wide_terminal_has_a_line_for_each_row() -> None:
    lines = lines_at(130)
    assert len(lines) == 3
    assert lines[1].split() == [PATH, "talks", "1,234,567", "60,930,111", "(86.5%)", "2-3"]


@pytest.mark.parametrize("width", [60, 70, 80, 100, 110])
def test_only_names_are_folded(width: int) -> None:
    lines = lines_at(width)
    words = " ".join(lines).split()
    assert max(map(len, lines)) <= width
    assert {"1,234,567", "60,930,111", "(86.5%)", "2-3", "2,345,678", "(100.0%)", "talks", "train", "kept"} <= {*words}


def test_rows_that_do_not_fit_are_paragraphs() -> None:
    assert lines_at(50) == [
        *(PATH[:50], f"{PATH[50:]}  talks"),
        "    rows kept: 1,234,567, train tokens: 60,930,111",
        "    (86.5%), copies: 2-3",
        "all",
        "    rows kept: 2,345,678, train tokens: 70,416,222",
        "    (100.0%), copies: 1-3",
    ]
