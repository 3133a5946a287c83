"""Builds the Arrow tables of shards from sequences that are picked, in any order, from staged units."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.rows import IGNORE_INDEX, LABELS, Offsets, Ragged, lengths_to_offsets, ragged_where
from sftkit.core.token_kinds import TOKEN_KINDS, TokenKind
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.core.weights.weighted_tokens import default_weights, scaled
from sftkit.shards.arrow_arrays import list_array, number_array
from sftkit.shards.pack_padding import add_padding
from sftkit.shards.retained_columns import RETAINED, retained_array
from sftkit.shards.staging.row_index import build_row_index
from sftkit.shards.staging.staged_unit import STAGED_TEXT, Int32Array
from sftkit.shards.staging.unit_reader import UnitReader
from sftkit.shards.staging.unit_record import read_row_index
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.storage.paths import AnyPath, RemotePath

_UNTRAINED = {LABELS: IGNORE_INDEX, TOKEN_KINDS: int(TokenKind.UNTRAINED), LOSS_WEIGHTS: 0}
"""What token columns hold where there is no loss."""

_REQUESTS = 16  # concurrent, per process


@dataclass(frozen=True)
class SequenceSelection:
    """Sequences picked from staged rows, in the order of the shards, and how they form rows.

    A sequence is a staged row, or (in wrapped packs, and where a row is longer than a pack) a part of one.
    """

    rows: Offsets
    """The staged row of each sequence, as an index into the rows of all units, shape (sequences,)."""
    sizes: Int32Array
    """Tokens of each sequence (characters of text), shape (sequences,)."""
    starts: Int32Array | None = None
    """Index of each sequence's first token within its row, shape (sequences,); None when all start at 0."""
    pack_offsets: Offsets | None = None
    """Pack i holds the sequences `pack_offsets[i]` to `pack_offsets[i + 1]` (exclusive), shape (packs + 1,); None when
    every sequence is a row by itself."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_sizes(self) -> Int32Array | Offsets:
        """Tokens of each row of the shards (of each pack, if packed), shape (shard rows,)."""
        if self.pack_offsets is None:
            return self.sizes
        return np.diff(lengths_to_offsets(self.sizes.astype(np.int64))[self.pack_offsets])

    @property
    def parts(self) -> tuple[Int32Array | None, Int32Array | None]:
        """The tokens of each sequence, and its first one within its row; None where these are those of the row."""
        return None if self.pack_offsets is None else self.sizes, self.starts

    def slice(self, start: int, stop: int) -> SequenceSelection:
        """Return the sequences of the shard rows (packs, if packed) from start to stop, exclusive."""
        if self.pack_offsets is None:
            pack_offsets, first, last = None, start, stop
        else:
            first, last = int(self.pack_offsets[start]), int(self.pack_offsets[stop])
            pack_offsets = self.pack_offsets[start : stop + 1] - first
        starts = None if self.starts is None else self.starts[first:last]
        return SequenceSelection(self.rows[first:last], self.sizes[first:last], starts, pack_offsets)


def concatenate_sequences(parts: Sequence[SequenceSelection]) -> SequenceSelection:
    """Return the rows, or packs, of several selections in succession; all are packed, or none is.

    Example:
        >>> one = SequenceSelection(np.array([0, 1]), np.array([5, 6], np.int32))
        >>> concatenate_sequences([one, one]).rows.tolist()
        [0, 1, 0, 1]
    """
    if len(parts) == 1:
        return parts[0]
    starts = [each.starts for each in parts if each.starts is not None]
    packs = [each.pack_offsets for each in parts if each.pack_offsets is not None]
    return SequenceSelection(
        np.concatenate([each.rows for each in parts]),
        np.concatenate([each.sizes for each in parts]),
        np.concatenate(starts) if starts else None,
        lengths_to_offsets(np.concatenate([np.diff(each) for each in packs])) if packs else None,
    )


@dataclass(frozen=True)
class GatheredRows:
    """Some rows of a shard."""

    table: pa.Table
    tokens: int
    """Without padding; 0 for text."""
    trained_tokens: int


class RowGatherer:
    """Reads rows from the staged units of a layout. It indexes each unit once, on first use, and keeps no file open."""

    def __init__(self, layout: ShardLayout) -> None:
        self._layout = layout
        self._first_rows = np.concatenate(([0], np.cumsum(layout.unit_rows)))
        self._readers: dict[int, UnitReader] = {}

    def gather(self, sequences: SequenceSelection) -> GatheredRows:
        """Build the table of the shard rows that some sequences form.

        Raises:
            OSError: a staged unit cannot be read.
            DataError: a retained column cannot be converted to its type.
        """
        layout, packs = self._layout, sequences.pack_offsets
        units = np.searchsorted(self._first_rows, sequences.rows, side="right") - 1
        rows = sequences.rows - self._first_rows[units]
        columns: list[pa.Array] = []
        tokens = trained = 0
        labels: Ragged | None = None
        for name in layout.token_columns:
            if name == LOSS_WEIGHTS:
                assert labels is not None
                column = self._loss_weights(units, rows, sequences, labels)
            else:
                column = self._tokens(name, units, rows, *sequences.parts)
            if name in _UNTRAINED and packs is not None:
                # The first token of a sequence cannot be predicted from the unrelated sequence before it in the pack.
                column.values[column.offsets[:-1][column.lengths > 0]] = _UNTRAINED[name]
            if name == LABELS:
                labels = column
                tokens, trained = len(column.values), int(np.count_nonzero(column.values != IGNORE_INDEX))
            lists = list_array(column if packs is None else Ragged(column.values, column.offsets[packs]))
            columns.append(lists.cast(layout.schema.field(name).type) if name == TOKEN_KINDS else lists)
        if packs is not None:
            columns.append(list_array(Ragged(sequences.sizes.astype(np.int32), packs)))
        if layout.unit_sources:
            sources = np.array(layout.unit_sources, np.int32)[units]
            columns.append(number_array(sources) if packs is None else list_array(Ragged(sources, packs)))
        if layout.text_column is not None:
            columns.append(pa.array(self._texts(STAGED_TEXT, units, rows)))
        if len(layout.retained):
            retained = [json.loads(text) for text in self._texts(RETAINED, units, rows)]
            for field in layout.retained_fields:
                values = retained_array([row.get(field.name) for row in retained], field)
                columns.append(values if packs is None else _lists(values, packs))
        table = pa.Table.from_arrays(columns, schema=replace(layout, padding=None).schema)
        if layout.padding is not None:
            table = add_padding(table, layout.padding).cast(layout.schema)
        return GatheredRows(table, tokens, trained)

    def _reader(self, unit: int) -> UnitReader:
        if unit not in self._readers:
            self._readers[unit] = open_unit_reader(self._layout.unit_paths[unit], self._layout.staged_columns(unit))
        return self._readers[unit]

    def _tokens(
        self,
        name: str,
        units: Offsets,
        rows: Offsets,
        sizes: Int32Array | None,
        starts: Int32Array | None,
        dtype: type[np.int32 | np.float32] = np.int32,
    ) -> Ragged:
        """Read a token column of sequences, given the unit of each, its row within the unit, and the part of the row.

        The part has `sizes` tokens (None: all) from `starts` (None: 0) on.
        """
        positions, lengths = self._locate(name, units, rows)
        if sizes is not None:
            lengths = sizes.astype(np.int64)
        if starts is not None:
            positions += starts.astype(np.int64) * np.dtype(dtype).itemsize
        values = np.empty(int(lengths.sum()), dtype)
        return Ragged(values, self._fill(values, units, positions, lengths))

    def _loss_weights(self, units: Offsets, rows: Offsets, sequences: SequenceSelection, labels: Ragged) -> Ragged:
        """Return the loss weights of sequences: those that are staged, or else 1 where there is a loss."""
        staged = np.isin(units, list(self._layout.weighted_units))
        if staged.any():
            staged[staged] = self._locate(LOSS_WEIGHTS, units[staged], rows[staged])[1] > 0
        weights = default_weights(labels)
        if staged.any():
            sizes, starts = (None if each is None else each[staged] for each in sequences.parts)
            own = self._tokens(LOSS_WEIGHTS, units[staged], rows[staged], sizes, starts, np.float32)
            weights = ragged_where(staged, own, weights.filter(~staged))
        return scaled(weights, np.array(self._layout.unit_loss_weights, np.float32)[units])

    def _texts(self, name: str, units: Offsets, rows: Offsets) -> list[str]:
        """Read a text column, given the unit of each row and its index within the unit."""
        positions, lengths = self._locate(name, units, rows)
        values = np.empty(int(lengths.sum()), np.uint8)
        offsets = self._fill(values, units, positions, lengths).tolist()
        data = values.tobytes()
        return [data[start:stop].decode() for start, stop in pairwise(offsets)]

    def _locate(self, name: str, units: Offsets, rows: Offsets) -> tuple[Offsets, Offsets]:
        """Return the byte offset of each row in its unit's file, and its length in values."""
        positions, lengths = np.empty(len(units), np.int64), np.empty(len(units), np.int64)

        def locate(unit: int, chosen: Offsets) -> None:
            positions[chosen], lengths[chosen] = self._reader(unit).locate(name, rows[chosen])

        self._for_each_unit(locate, _group_by_unit(units))
        return positions, lengths

    def _fill(self, values: npt.NDArray[Any], units: Offsets, positions: Offsets, lengths: Offsets) -> Offsets:
        """Read rows into an array, concatenated, and return their offsets in it, shape (rows + 1,).

        Neighbours that are contiguous in the same file are read together.
        """
        offsets = lengths_to_offsets(lengths)
        breaks = np.flatnonzero((np.diff(units) != 0) | (np.diff(positions) != lengths[:-1] * values.itemsize)) + 1
        runs = np.stack([np.append(0, breaks), np.append(breaks, len(units))], axis=1)

        def read(unit: int, chosen: Offsets) -> None:
            bounds = runs[chosen].tolist()
            requests = ((int(positions[a]), values[offsets[a] : offsets[b]]) for a, b in bounds)
            self._reader(unit).read(requests)

        self._for_each_unit(read, _group_by_unit(units[runs[:, 0]]) if len(units) else ())
        return offsets

    def _for_each_unit(self, act: Callable[[int, Offsets], None], parts: Iterable[tuple[int, Offsets]]) -> None:
        """Call `act` for each unit: one after the other, or concurrently where units are remote."""
        if not isinstance(self._layout.unit_paths[0], RemotePath):
            for unit, chosen in parts:
                act(unit, chosen)
            return
        with ThreadPoolExecutor(_REQUESTS) as pool:
            for done in [pool.submit(act, unit, chosen) for unit, chosen in parts]:
                done.result()


def open_unit_reader(path: AnyPath, columns: Sequence[str]) -> UnitReader:
    """Open some columns of a staged unit for reading.

    The row index of a local file is built from the file; that of a remote one is read from the unit record, to avoid
    downloading the file.

    Raises:
        OSError: the file or the record cannot be read.
    """
    index = read_row_index(path, columns) if isinstance(path, RemotePath) else build_row_index(path, columns)
    return UnitReader(path, index)


def _lists(values: pa.Array, packs: Offsets) -> pa.Array:
    return pa.ListArray.from_arrays(number_array(packs.astype(np.int32)), values)


def _group_by_unit(units: Offsets) -> Iterator[tuple[int, Offsets]]:
    """Yield each distinct unit, ascending, with the indices at which it occurs. Takes one pass over `units`."""
    order = np.argsort(units, kind="stable")
    ordered = units[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    for indices in np.split(order, starts[1:]) if len(units) else ():
        yield int(units[indices[0]]), indices
