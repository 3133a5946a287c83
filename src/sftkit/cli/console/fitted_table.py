"""A table that never breaks a number over two lines, however narrow the terminal is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

_GAP = 2  # columns of the terminal beside each column of the table
_NARROWEST = 16  # of a column of names or paths, which are folded
_INDENT = 4


class FittedTable(Table):
    """A table whose cells are texts. Columns of numbers are aligned to the right; the others may be folded.

    Where it does not fit even so, each row is written as a paragraph: its names, and below them headings and numbers.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Write the table, or its rows as paragraphs."""
        widest, narrowest = zip(*map(_widths, self.columns), strict=True)
        widths = fit_widths(widest, narrowest, options.max_width - _GAP * len(self.columns))
        if widths is None:
            yield from self._paragraphs()
            return
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options)

    def _paragraphs(self) -> Iterator[Text | Padding]:
        for row, cells in zip(self.rows, zip(*map(_texts, self.columns), strict=True), strict=True):
            named = [(column, cell) for column, cell in zip(self.columns, cells, strict=True) if cell.plain]
            names = [cell for column, cell in named if column.justify != "right"]
            yield Text("  ", style=row.style or "").join(names)
            values = [
                Text(f"{column.header}: ").append_text(cell) for column, cell in named if column.justify == "right"
            ]
            if values:
                yield Padding(Text(", ").join(values), (0, 0, 0, _INDENT))


def fit_widths(widest: Sequence[int], narrowest: Sequence[int], space: int) -> list[int] | None:
    """Choose the widths of columns: the widest ones are made narrower until all fit.

    Args:
        widest: the width of each column on one line.
        narrowest: the least width of each column.
        space: for all of them.

    Returns:
        The widths; None if the columns do not fit.

    Example:
        >>> fit_widths([30, 10], [16, 10], 36), fit_widths([30, 10], [16, 10], 20)
        ([26, 10], None)
    """
    if sum(narrowest) > space:
        return None
    widths = list(widest)
    while sum(widths) > space:
        spare = max(range(len(widths)), key=lambda column: (widths[column] > narrowest[column], widths[column]))
        widths[spare] -= 1
    return widths


def _texts(column: Column) -> list[Text]:
    """The cells of a column, all of which are texts."""
    return [cell if isinstance(cell, Text) else Text(str(cell)) for cell in column.cells]


def _widths(column: Column) -> tuple[int, int]:
    """Return the width of a column on one line, and the least that it can have."""
    lines = "\n".join([str(column.header), *(cell.plain for cell in _texts(column))]).split("\n")
    widest = max(map(cell_len, lines))
    if column.justify != "right":
        return widest, min(widest, _NARROWEST)
    return widest, max(cell_len(word) for line in lines for word in line.split() or [""])
