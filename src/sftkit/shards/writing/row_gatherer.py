"""Sequences picked from staged units -> Arrow tables as they go into shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.rows import IGNORE_INDEX, LABELS, Offsets, Ragged, lengths_to_offsets
from sftkit.shards.arrow_arrays import list_array, number_array
from sftkit.shards.retained_columns import RETAINED, retained_array
from sftkit.shards.staging.row_index import build_row_index
from sftkit.shards.staging.staged_unit import Int32Array
from sftkit.shards.staging.unit_reader import UnitReader
from sftkit.shards.staging.unit_record import read_row_index
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.storage.paths import AnyPath, RemotePath


@dataclass(frozen=True)
class SequenceSelection:
    """Some sequences, shape (sequences,) each.

    rows: the staged row of each, by index into all staged rows. sizes: its tokens (characters of text). starts: its
    first token within the row, None where all are whole. packs: pack i is the sequences from packs[i] to packs[i + 1],
    shape (packs + 1,); None where each is a row of its own.
    """

    rows: Offsets
    sizes: Int32Array
    starts: Int32Array | None = None
    pack_offsets: Offsets | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_sizes(self) -> Int32Array | Offsets:
        """Tokens of each row of the shards: of each pack, where sequences are packed."""
        if self.pack_offsets is None:
            return self.sizes
        return np.diff(lengths_to_offsets(self.sizes.astype(np.int64))[self.pack_offsets])

    def slice(self, start: int, stop: int) -> SequenceSelection:
        """Rows of the shards (packs, where sequences are packed) from start to stop."""
        if self.pack_offsets is None:
            packs, first, last = None, start, stop
        else:
            first, last = int(self.pack_offsets[start]), int(self.pack_offsets[stop])
            packs = self.pack_offsets[start : stop + 1] - first
        starts = None if self.starts is None else self.starts[first:last]
        return SequenceSelection(self.rows[first:last], self.sizes[first:last], starts, packs)


_REQUESTS = 16  # at the same time, of a process


@dataclass(frozen=True)
class GatheredRows:
    """Rows of a shard, and how many tokens (0 for text) and trained tokens are in them."""

    table: pa.Table
    tokens: int
    trained_tokens: int


class RowGatherer:
    """Reads the staged units of a layout, each looked into when it is first needed, once. No file is held open."""

    def __init__(self, layout: ShardLayout) -> None:
        self._layout = layout
        self._bases = np.concatenate(([0], np.cumsum(layout.unit_rows)))
        self._readers: dict[int, UnitReader] = {}

    def gather(self, sequences: SequenceSelection) -> GatheredRows:
        """The rows of the shard that these sequences make.

        Raises:
            OSError: a staged unit cannot be read.
        """
        layout, packs = self._layout, sequences.pack_offsets
        units = np.searchsorted(self._bases, sequences.rows, side="right") - 1
        places = sequences.rows - self._bases[units]
        columns: list[pa.Array] = []
        tokens = trained = 0
        for name in layout.token_columns:
            column = self._tokens(name, units, places, sequences)
            if name == LABELS and packs is not None:
                # nothing predicts the first token of a sequence, least of all what happens to stand before it
                column.values[column.offsets[:-1][column.lengths > 0]] = IGNORE_INDEX
            if name == LABELS:
                tokens, trained = len(column.values), int(np.count_nonzero(column.values != IGNORE_INDEX))
            columns.append(list_array(column if packs is None else Ragged(column.values, column.offsets[packs])))
        if packs is not None:
            columns.append(list_array(Ragged(sequences.sizes.astype(np.int32), packs)))
        if layout.text_column is not None:
            column_name = layout.text_column
            columns.append(pa.array(self._texts(column_name, units, places)))
        if len(layout.retained):
            extras = [json.loads(text) for text in self._texts(RETAINED, units, places)]
            for field in layout.retained_fields:
                values = retained_array([row.get(field.name) for row in extras], field)
                columns.append(values if packs is None else _lists(values, packs))
        return GatheredRows(pa.Table.from_arrays(columns, schema=layout.schema), tokens, trained)

    def _reader(self, unit: int) -> UnitReader:
        if unit not in self._readers:
            self._readers[unit] = open_unit_reader(self._layout.unit_paths[unit], self._layout.staged_columns)
        return self._readers[unit]

    def _tokens(self, name: str, units: Offsets, rows: Offsets, sequences: SequenceSelection) -> Ragged:
        """Read sequences out of their units."""
        places, lengths = self._places(name, units, rows)
        if sequences.pack_offsets is not None:
            lengths = sequences.sizes.astype(np.int64)
        if sequences.starts is not None:
            places += sequences.starts.astype(np.int64) * np.dtype(np.int32).itemsize
        values = np.empty(int(lengths.sum()), np.int32)
        return Ragged(values, self._fill(values, units, places, lengths))

    def _texts(self, name: str, units: Offsets, rows: Offsets) -> list[str]:
        """Read a column of text."""
        places, lengths = self._places(name, units, rows)
        values = np.empty(int(lengths.sum()), np.uint8)
        offsets = self._fill(values, units, places, lengths).tolist()
        data = values.tobytes()
        return [data[start:stop].decode() for start, stop in pairwise(offsets)]

    def _places(self, name: str, units: Offsets, rows: Offsets) -> tuple[Offsets, Offsets]:
        """The byte in its unit's file at which each row of a column begins, and its values."""
        places, lengths = np.empty(len(units), np.int64), np.empty(len(units), np.int64)

        def look(unit: int, chosen: Offsets) -> None:
            places[chosen], lengths[chosen] = self._reader(unit).locate(name, rows[chosen])

        self._for_each(look, _by_unit(units))
        return places, lengths

    def _fill(self, values: npt.NDArray[Any], units: Offsets, places: Offsets, lengths: Offsets) -> Offsets:
        """Read rows into an array, one behind the other, and tell where each begins there; neighbours that were staged
        as neighbours are read in one go.
        """
        offsets = lengths_to_offsets(lengths)
        breaks = np.flatnonzero((np.diff(units) != 0) | (np.diff(places) != lengths[:-1] * values.itemsize)) + 1
        runs = np.stack([np.append(0, breaks), np.append(breaks, len(units))], axis=1)

        def read(unit: int, chosen: Offsets) -> None:
            mine = runs[chosen].tolist()
            self._reader(unit).read((int(places[a]), values[offsets[a] : offsets[b]]) for a, b in mine)

        self._for_each(read, _by_unit(units[runs[:, 0]]) if len(units) else ())
        return offsets

    def _for_each(self, act: Callable[[int, Offsets], None], parts: Iterable[tuple[int, Offsets]]) -> None:
        """Do something for each unit: one after the other, or some at a time where each waits for a network."""
        if not isinstance(self._layout.unit_paths[0], RemotePath):
            for unit, chosen in parts:
                act(unit, chosen)
            return
        with ThreadPoolExecutor(_REQUESTS) as pool:
            for done in [pool.submit(act, unit, chosen) for unit, chosen in parts]:
                done.result()


def open_unit_reader(path: AnyPath, columns: Sequence[str]) -> UnitReader:
    """Reads some columns of a staged unit: a local file tells where its rows lie, of a remote one its account does.

    Raises:
        OSError: it cannot be looked into.
    """
    return UnitReader(
        path, read_row_index(path, columns) if isinstance(path, RemotePath) else build_row_index(path, columns)
    )


def _lists(values: pa.Array, packs: Offsets) -> pa.Array:
    return pa.ListArray.from_arrays(number_array(packs.astype(np.int32)), values)


def _by_unit(units: Offsets) -> Iterator[tuple[int, Offsets]]:
    """Each unit among these and where it stands there, ascending. One pass, however many units there are."""
    order = np.argsort(units, kind="stable")
    ordered = units[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    for places in np.split(order, begins[1:]) if len(units) else ():
        yield int(units[places[0]]), places
