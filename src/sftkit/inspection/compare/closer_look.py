"""Reads again those sequences that have no equal on the other side: for their anchors, or the values of a column."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.error_text import first_line
from sftkit.core.progress import Progress
from sftkit.core.rows import PADDING, SEQ_LENGTHS, Mask, Offsets, Ragged
from sftkit.errors import SourceError
from sftkit.inspection.columns.column_layout import iter_row_groups
from sftkit.inspection.compare.anchors import sequence_anchors, sequence_pieces
from sftkit.inspection.compare.keys import Keys, sequence_keys
from sftkit.inspection.compare.pieces import Pieces
from sftkit.inspection.compare.scan import ScannedGroup, ScannedSplit, map_in_threads
from sftkit.inspection.compare.sequences import sequence_batches, text_bytes
from sftkit.shards.pack_padding import remove_padding
from sftkit.shards.readers.open_file import open_shard_file

MOST_PIECES = 1 << 24
"""Pieces of each side that are kept in memory, 16 bytes each."""


class Anchors:
    """The anchors of some sequences, in a temporary file: they take more memory than all keys."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._file = tempfile.TemporaryFile(prefix="sftkit-compare-")  # noqa: SIM115 - `close` closes it
        self._lock = threading.Lock()

    def write(self, start: int, anchors: Keys) -> None:
        """Write the anchors, shape (ANCHORS, n), of the sequences from `start` on. Threads may do so at once."""
        with self._lock:
            for number, row in enumerate(anchors):
                self._file.seek((number * self._count + start) * 8)
                self._file.write(np.ascontiguousarray(row).data)

    def read(self, number: int) -> Keys:
        """Return an anchor of all sequences, shape (sequences,)."""
        with self._lock:
            self._file.seek(number * self._count * 8)
            found: Keys = np.fromfile(self._file, np.uint64, self._count)
        return found

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


def find_anchors(split: ScannedSplit, wanted: Offsets, progress: Progress) -> Anchors:
    """Compute the anchors of some sequences.

    Args:
        split: the split.
        wanted: indices of sequences, ascending.
        progress: receives sequences.

    Raises:
        SourceError: a file cannot be read.
    """
    anchors = Anchors(len(wanted))

    def read(part: tuple[ScannedGroup, int, int]) -> None:
        start = part[1]
        for ids in _read_again(split, wanted, *part):
            anchors.write(start, sequence_anchors(ids))
            start += len(ids)
        progress.advance(part[2] - part[1], rows=part[2] - part[1])

    try:
        for _ in map_in_threads(read, _groups_of(split, wanted)):
            pass
    except BaseException:
        anchors.close()
        raise
    return anchors


def find_pieces(split: ScannedSplit, wanted: Offsets, progress: Progress) -> Pieces | None:
    """Hash all pieces of some sequences; None if they are too many. Owners are indices into `wanted`, ascending.

    Args:
        split: the split.
        wanted: indices of sequences, ascending.
        progress: receives sequences.

    Raises:
        SourceError: a file cannot be read.
    """
    if len(wanted) * (split.tokens / max(1, len(split))) > MOST_PIECES:
        return None
    found = [Pieces(np.zeros(0, np.uint64), np.zeros(0, np.int64))]
    count = 0
    for group, start, stop in _groups_of(split, wanted):
        progress.advance(stop - start, rows=stop - start)
        for ids in _read_again(split, wanted, group, start, stop):
            hashes, owners = sequence_pieces(ids)
            found.append(Pieces(hashes, owners + start))
            start += len(ids)
            count += len(hashes)
            if count > MOST_PIECES:
                return None
    return Pieces(np.concatenate([each.hashes for each in found]), np.concatenate([each.owners for each in found]))


def _read_again(split: ScannedSplit, wanted: Offsets, group: ScannedGroup, start: int, stop: int) -> Iterator[Ragged]:
    """Yield the ids of wanted[start:stop], which are in one row group, batch by batch."""
    layout = replace(group.layout, supervision=(), kinds=False, weights=False, sources=False)
    first, at = group.first, start
    for batch in sequence_batches(next(iter_row_groups(layout, group.number)), layout, split.packing):
        chosen = np.zeros(len(batch.ids), np.bool_)
        until = at + int(np.searchsorted(wanted[at:stop], first + len(batch.ids)))
        chosen[wanted[at:until] - first] = True
        yield batch.ids.filter(chosen)
        first, at = first + len(batch.ids), until


def column_keys_of(split: ScannedSplit, wanted: Offsets, column: str) -> tuple[Keys, Mask]:
    """Hash the value that some sequences have in a column; a pack has a list of values, one for each sequence.

    Args:
        split: the split.
        wanted: indices of sequences, ascending.
        column: the column.

    Returns:
        The hashes, shape (wanted,), and where there is a value.

    Raises:
        SourceError: a file has no such column, or not a text or number for each sequence.
    """
    keys, filled = np.zeros(len(wanted), np.uint64), np.zeros(len(wanted), np.bool_)
    for group, start, stop in _groups_of(split, wanted):
        values = _column_values(group, column)
        chosen = values.take(pa.array(wanted[start:stop] - group.first))
        keys[start:stop], _ = sequence_keys(text_bytes(chosen), None)
        filled[start:stop] = np.asarray(pc.is_valid(chosen))
    return keys, filled


def _groups_of(split: ScannedSplit, wanted: Offsets) -> Iterator[tuple[ScannedGroup, int, int]]:
    """Yield the row groups that hold wanted sequences, and which of them: wanted[start:stop]."""
    for group in split.groups:
        start, stop = np.searchsorted(wanted, [group.first, group.first + group.sequences]).tolist()
        if stop > start:
            yield group, start, stop


def _column_values(group: ScannedGroup, column: str) -> pa.Array:
    """Return the values of a column for the sequences of a row group, as large_string."""
    layout = group.layout
    if column not in layout.names:
        raise SourceError(f"{layout.path}: has no column {column!r}; columns there: {', '.join(layout.names)}")
    padding = [SEQ_LENGTHS, PADDING] if layout.padded else []
    with open_shard_file(layout.path) as file:
        table = remove_padding(file.read_group(group.number, [column, *padding]), layout.path)
    values = table.column(column)
    try:
        if layout.packed:
            values = pc.list_flatten(values)
        values = values.cast(pa.large_string())
    except (pa.ArrowException, NotImplementedError) as error:
        each = "a text or number for each sequence" if layout.packed else "texts or numbers"
        raise SourceError(f"{layout.path}: column {column!r} must hold {each}: {first_line(error)}") from None
    if len(values) != group.sequences:
        raise SourceError(
            f"{layout.path}: column {column!r} has {len(values):,} values for {group.sequences:,} sequences "
            f"(row group {group.number}); it must have one for each"
        )
    return values.combine_chunks()
