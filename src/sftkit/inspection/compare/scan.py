"""Reads a split of a data set once, for the keys of all its sequences."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from sftkit.audit.checks.packs import Packing
from sftkit.core.progress import Progress
from sftkit.core.rows import IGNORE_INDEX
from sftkit.inspection.columns.column_layout import ColumnLayout, iter_row_groups, read_layout
from sftkit.inspection.columns.token_values import split_packing
from sftkit.inspection.compare.keys import Keys, sequence_keys
from sftkit.inspection.compare.sequences import sequence_batches
from sftkit.shards.readers.open_file import open_shard_file
from sftkit.shards.reading import ShardSet
from sftkit.storage.paths import relative_name

T = TypeVar("T")
U = TypeVar("U")

_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ScannedGroup:
    """A row group of a file."""

    layout: ColumnLayout
    shard: str
    """Name of the file, relative to the data set."""
    number: int
    """Its index in the file."""
    first_row: int
    """Index of its first row in the file."""
    first: int
    """Index of its first sequence in the split."""
    sequences: int


@dataclass(frozen=True)
class ScannedSplit:
    """The keys of the sequences of a split: 16 bytes a sequence."""

    name: str
    groups: tuple[ScannedGroup, ...]
    packing: Packing
    by_ids: Keys
    """A hash of the ids of each sequence, shape (sequences,)."""
    by_all: Keys
    """A hash of its ids, labels and loss weights, shape (sequences,)."""
    tokens: int
    trained_tokens: int | None
    """Tokens that carry a loss; None where labels are not compared."""
    misfit_rows: int
    """Rows whose labels (or masks) or `seq_lengths` do not match their ids."""

    def __len__(self) -> int:
        return len(self.by_ids)

    @property
    def is_packed(self) -> bool:
        """Whether rows are packs."""
        return any(group.layout.packed for group in self.groups)

    def group_of(self, sequence: int) -> ScannedGroup:
        """Return the row group that a sequence is in, given by its index in the split."""
        return self.groups[bisect_right(self.groups, sequence, key=lambda group: group.first + group.sequences)]


def open_layouts(shards: ShardSet, fields: Sequence[str]) -> dict[str, list[ColumnLayout]]:
    """Find the columns of all files, by split. Raises `SourceError` as `read_layout`."""
    return {split: [read_layout(path, fields) for path in paths] for split, paths in shards.splits.items()}


def scan_split(
    shards: ShardSet, split: str, layouts: Sequence[ColumnLayout], progress: Progress, *, labels: bool
) -> ScannedSplit:
    """Hash the sequences of a split.

    Args:
        shards: the data set.
        split: a split; one that the data set lacks has no sequences.
        layouts: its files.
        progress: receives rows and tokens.
        labels: whether labels are compared.

    Raises:
        SourceError: a file cannot be read.
    """
    packing = split_packing(shards.manifest, split)
    lock = threading.Lock()

    def scan(layout: ColumnLayout) -> tuple[list[ScannedGroup], list[Keys], list[Keys], int, int, int]:
        groups: list[ScannedGroup] = []
        by_ids: list[Keys] = []
        by_all: list[Keys] = []
        tokens = trained = row = misfits = 0
        if not labels:
            layout = replace(layout, supervision=(), weights=False)
        name = relative_name(layout.path, shards.root)
        for number, table in enumerate(iter_row_groups(layout)):
            count = 0
            for batch in sequence_batches(table, layout, packing):
                first, second = sequence_keys(batch.ids, batch.labels, batch.weights)
                by_ids.append(first)
                by_all.append(second)
                count += len(first)
                tokens += len(batch.ids.values)
                misfits += batch.misfit_rows
                if batch.labels is not None:
                    trained += int(np.count_nonzero(batch.labels != IGNORE_INDEX))
            groups.append(ScannedGroup(layout, name, number, row, 0, count))
            row += table.num_rows
            with lock:
                progress.advance(table.num_rows, rows=table.num_rows, tokens=0)
        return groups, by_ids, by_all, tokens, misfits, trained

    scanned = list(map_in_threads(scan, layouts))
    groups, first = [], 0
    for part in scanned:
        for group in part[0]:
            groups.append(replace(group, first=first))
            first += group.sequences
    none = np.zeros(0, np.uint64)
    return ScannedSplit(
        name=split,
        groups=tuple(groups),
        packing=packing,
        by_ids=np.concatenate([none, *(keys for part in scanned for keys in part[1])]),
        by_all=np.concatenate([none, *(keys for part in scanned for keys in part[2])]),
        tokens=sum(part[3] for part in scanned),
        trained_tokens=sum(part[5] for part in scanned) if labels else None,
        misfit_rows=sum(part[4] for part in scanned),
    )


def map_in_threads(function: Callable[[T], U], parts: Iterable[T]) -> Iterator[U]:
    """Apply a function to parts of data in a few threads; Arrow and numpy run in parallel there."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(function, parts)


def row_count(layouts: Sequence[ColumnLayout]) -> int:
    """Return the rows of some files."""
    total = 0
    for layout in layouts:
        with open_shard_file(layout.path) as file:
            total += file.rows
    return total
