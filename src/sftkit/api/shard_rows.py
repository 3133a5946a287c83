"""`sftkit.open_shards`: the rows of shards as numpy arrays, read when they are needed."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import index as as_index
from typing import Any, overload

import numpy as np

from sftkit.core.rows import IGNORE_INDEX, Ids, Weights
from sftkit.errors import DataError
from sftkit.inspection.columns.column_layout import ColumnLayout, iter_row_groups, read_layout
from sftkit.inspection.columns.token_values import TokenColumns, token_columns
from sftkit.shards import reading
from sftkit.shards.footers import check_footers
from sftkit.shards.manifest import Manifest
from sftkit.storage.paths import AnyPath

_GROUPS_HELD = 8  # row groups; those of sftkit hold a few megabytes each


def open_shards(location: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Shards:
    """Open a directory of shards or one file, of sftkit or another tool: what `inspect-shards` reads with `input_ids`.

    Reads the manifest and the footers of the files; rows are read when they are asked for.

    Args:
        location: a local path or a URL.
        storage_options: options of the file system behind a URL, as in a config.

    Returns:
        The splits, by name.

    Raises:
        SourceError: there is nothing at `location`, or no file of shards.
        DataError: a file cannot be read, or shards are missing, truncated, or not those of the manifest.
        OutputError: the manifest cannot be read.

    Example:
        >>> import sftkit
        >>> shards = sftkit.open_shards("shards")
        >>> list(shards), len(shards["train"])
        (['train', 'validation'], 600)
        >>> row = shards["train"][0]
        >>> row.input_ids.dtype, row.labels.shape == row.input_ids.shape
        (dtype('int32'), True)
    """
    return Shards(reading.open_shards(os.fspath(location), storage_options))


@dataclass(frozen=True, eq=False)
class ShardRow:
    """One row of a split."""

    input_ids: Ids
    """Token ids, int32, shape (tokens,)."""

    labels: Ids | None
    """The token id where a token carries a loss, else -100, int32, shape (tokens,); None when no column says so."""

    seq_lengths: Ids | None
    """Tokens of each sequence of a pack, in order, int32, shape (sequences,); None when rows are not packed."""

    token_kinds: Ids | None = None
    """The kind of each token by its number in `manifest.token_kinds`, int32, shape (tokens,); None when there is no
    column `token_kinds`."""

    loss_weights: Weights | None = None
    """The weight of each token in the loss, float32, shape (tokens,); None when there is no column `loss_weights`."""

    source: Ids | None = None
    """The data set of each sequence, as an index into `manifest.source_names`, int32, shape (sequences,); a row that is
    no pack is one sequence. None when there is no column `source`."""


class ShardSplit(Sequence[ShardRow]):
    """The rows of one split, in order. Row groups are read when they are needed, and the last few are kept."""

    def __init__(self, name: str, files: Sequence[tuple[AnyPath, Sequence[int]]]) -> None:
        self.name = name
        self._groups = [(path, number) for path, counts in files for number in range(len(counts))]
        self._firsts = [first for _, counts in files for first in list(accumulate(counts, initial=1))[:-1]]
        self._ends = list(accumulate(count for _, counts in files for count in counts))
        self._layouts: dict[AnyPath, ColumnLayout] = {}
        self._held: dict[int, TokenColumns] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> ShardRow: ...

    @overload
    def __getitem__(self, place: slice) -> list[ShardRow]: ...

    def __getitem__(self, place: int | slice) -> ShardRow | list[ShardRow]:
        """One row, or a list of rows.

        Raises:
            IndexError: there is no such row.
            SourceError: the file cannot be read.
            DataError: the columns of the row differ in length.
        """
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = as_index(place)
        number += len(self) if number < 0 else 0
        if not 0 <= number < len(self):
            raise IndexError(f"row {place} of {len(self)} rows")
        group = bisect_right(self._ends, number)
        return self._row(group, number - (self._ends[group - 1] if group else 0))

    def __iter__(self) -> Iterator[ShardRow]:
        for group in range(len(self._groups)):
            begin = self._ends[group - 1] if group else 0
            yield from (self._row(group, number) for number in range(self._ends[group] - begin))

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self):,} rows>"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_held": {}}  # another process reads for itself

    def _row(self, group: int, number: int) -> ShardRow:
        tokens = self._tokens(group)
        if tokens.length_mismatch[number]:
            path, _ = self._groups[group]
            place = f"{path}:{self._firsts[group] + number}"
            raise DataError(f"{place}: labels (or masks) and input_ids differ in length")
        part = slice(*tokens.ids.offsets[number : number + 2])
        return ShardRow(
            input_ids=tokens.ids.values[part],
            labels=_labels(tokens, part),
            seq_lengths=None if tokens.seq_lengths is None else tokens.seq_lengths[number],
            token_kinds=None if tokens.kinds is None else tokens.kinds[part],
            loss_weights=None if tokens.weights is None else tokens.weights[part],
            source=None if tokens.sources is None else tokens.sources[number],
        )

    def _tokens(self, group: int) -> TokenColumns:
        """The rows of one row group, from memory or from their file. Threads may call it at the same time."""
        found = self._held.get(group)
        if found is None:
            path, number = self._groups[group]
            layout = self._layouts.get(path) or read_layout(path, ())
            self._layouts[path] = layout
            found = token_columns(next(iter_row_groups(layout, number)), layout)
            self._held = {**dict(list(self._held.items())[1 - _GROUPS_HELD :]), group: found}
        return found


class Shards(Mapping[str, ShardSplit]):
    """The splits of a data set, by name."""

    def __init__(self, found: reading.ShardSet) -> None:
        rows = {footer.path: footer.group_rows for footer in check_footers(found)}
        self.manifest: Manifest | None = found.manifest
        self._splits = {
            name: ShardSplit(name, [(path, rows[path]) for path in paths]) for name, paths in found.splits.items()
        }

    def __getitem__(self, split: str) -> ShardSplit:
        if split not in self._splits:
            raise KeyError(f"there is no {split} split; there is: {', '.join(self._splits)}")
        return self._splits[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)

    def __repr__(self) -> str:
        return f"Shards({', '.join(map(repr, self._splits.values()))})"


def _labels(tokens: TokenColumns, part: slice) -> Ids | None:
    if tokens.labels is not None:
        return tokens.labels[part]
    if tokens.trained is None:
        return None
    return np.where(tokens.trained[part], tokens.ids.values[part], np.int32(IGNORE_INDEX))
