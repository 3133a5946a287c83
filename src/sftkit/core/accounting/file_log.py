"""Row accounting of one file of a work unit that has several."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sftkit.core.accounting.cuts import Cuts


@dataclass
class FileLog:
    """What became of the rows of one file."""

    rows_before: int
    """Subtract it from the number of a row in the unit to get its number in the file."""
    read: int = 0
    """Rows read, including quarantined ones."""
    added: int = 0
    """Rows that rows were split into, beyond the first of each."""
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of dropped rows by (handler, reason)."""
    bad: list[str] = field(default_factory=list)
    """The reasons of the quarantined rows."""
    cuts: Cuts = field(default_factory=Cuts)
    """What was cut off rows."""
    not_rendered: Counter[str] = field(default_factory=Counter)
    """As in `RowLog`."""
    unused_columns: Counter[str] = field(default_factory=Counter)
    """Number of rows in which a column is filled, for columns that are not used."""
