"""What all file formats have in common: columns, and groups of rows that are read one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from sftkit.core.error_text import first_line
from sftkit.core.rows import Offsets
from sftkit.errors import SourceError
from sftkit.storage.paths import AnyPath

_CANNOT_READ = (OSError, ValueError, OverflowError, MemoryError, RecursionError, pa.ArrowException)
"""What numpy, Arrow and file systems raise for content that is damaged."""


class RowFile(ABC):
    """A file of rows that is open for reading.

    Rows come in groups of a size that fits in memory: the row groups of Parquet, the record batches of Arrow, and
    ranges of rows of other formats.
    """

    kind = ""
    """What messages call the format."""

    def __init__(self, path: AnyPath, schema: pa.Schema, group_rows: Sequence[int]) -> None:
        """Keep what is known of a file before its rows are read.

        Raises:
            SourceError: two columns have one name.
        """
        self.path = path
        self.schema = schema
        self.group_rows = group_rows
        """Rows of each group."""
        duplicate = next((name for name, count in Counter(schema.names).items() if count > 1), None)
        if duplicate is not None:
            raise SourceError(f"{path}: has two columns named {duplicate!r}; column names must be unique")

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.group_rows)

    @property
    def largest_id(self) -> int | None:
        """The largest of its `input_ids`; None when that is not known without reading them."""
        return None

    def read_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns (all, if None) of the group with an index.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            return self._read(number, list(self.schema.names if columns is None else columns))
        except _CANNOT_READ as error:
            reason = first_line(error).rstrip(".")
            raise SourceError(f"{self.path}: row group {number} cannot be read: {reason}") from None

    def iter_groups(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[pa.Table]:
        """Yield columns of the groups from index `first` on, one in memory at a time. Raises as `read_group`."""
        for number in range(first, len(self.group_rows)):
            yield self.read_group(number, columns)

    @abstractmethod
    def _read(self, number: int, columns: list[str]) -> pa.Table:
        """Read columns of a group; exceptions of numpy, Arrow and file systems are turned into errors."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def broken(self, problem: str) -> SourceError:
        """Return the error for a file that its format does not allow."""
        return SourceError(f"{self.path}: is not a valid {self.kind} file: {problem}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def cut_groups(sizes: Offsets, most: int) -> Offsets:
    """Divide rows into groups of at most `most` units, or of one row that is larger.

    Args:
        sizes: tokens or bytes of each row, int64, shape (rows,).
        most: the most that a group may have.

    Returns:
        The index of the first row of each group, and the number of rows, shape (groups + 1,).

    Example:
        >>> cut_groups(np.array([3, 3, 9, 1, 1]), 6).tolist()
        [0, 2, 3, 5]
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    bounds = [0]
    while bounds[-1] < len(ends):
        before = int(ends[bounds[-1] - 1]) if bounds[-1] else 0
        bounds.append(max(bounds[-1] + 1, int(np.searchsorted(ends, before + most, side="right"))))
    return np.array(bounds, np.int64)
