"""Sequences picked from staged units -> Arrow tables as they go into shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from sftkit.errors import DataError
from sftkit.rows import IGNORE_INDEX, LABELS, Offsets, Ragged, offsets_of
from sftkit.shards.arrays import flat_array, list_array
from sftkit.shards.layout import Layout
from sftkit.shards.sequences import Sequences
from sftkit.shards.staged_reading import StagedReader

T = TypeVar("T")


@dataclass(frozen=True)
class Gathered:
    """Rows of a shard, and how many tokens (0 for text) and trained tokens are in them."""

    table: pa.Table
    tokens: int
    trained_tokens: int


class Gatherer:
    """Reads the staged units of a layout, each looked into when it is first needed, once. No file is held open."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._bases = np.concatenate(([0], np.cumsum(layout.rows)))
        self._readers: dict[int, StagedReader] = {}

    def gather(self, sequences: Sequences) -> Gathered:
        """The rows of the shard that these sequences make.

        Raises:
            OSError: a staged unit cannot be read.
        """
        layout, packs = self._layout, sequences.packs
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
            texts = _in_order(units, places, lambda unit, some: self._reader(unit).texts(column_name, some))
            columns.append(pa.array(texts))
        if len(layout.extras):
            extras = _in_order(units, places, lambda unit, some: self._reader(unit).extras(some))
            for field in layout.concrete_extras:
                values = _retained([row.get(field.name) for row in extras], field)
                columns.append(values if packs is None else _lists(values, packs))
        return Gathered(pa.Table.from_arrays(columns, schema=layout.schema), tokens, trained)

    def _reader(self, unit: int) -> StagedReader:
        if unit not in self._readers:
            self._readers[unit] = StagedReader(self._layout.paths[unit], self._layout.token_columns)
        return self._readers[unit]

    def _tokens(self, name: str, units: Offsets, rows: Offsets, sequences: Sequences) -> Ragged:
        """Read sequences out of their units; neighbours that were staged as neighbours are read in one go."""
        places, lengths = np.empty(len(units), np.int64), np.empty(len(units), np.int64)
        for unit, chosen in _by_unit(units):
            places[chosen], lengths[chosen] = self._reader(unit).places(name, rows[chosen])
        if sequences.packs is not None:
            lengths = sequences.sizes.astype(np.int64)
        if sequences.starts is not None:
            places += sequences.starts.astype(np.int64) * np.dtype(np.int32).itemsize
        offsets = offsets_of(lengths)
        values = np.empty(int(offsets[-1]), np.int32)
        breaks = np.flatnonzero((np.diff(units) != 0) | (np.diff(places) != lengths[:-1] * values.itemsize)) + 1
        runs = np.stack([np.append(0, breaks), np.append(breaks, len(units))], axis=1)
        for unit, chosen in _by_unit(units[runs[:, 0]]):
            mine = runs[chosen].tolist()
            self._reader(unit).read_tokens((int(places[a]), values[offsets[a] : offsets[b]]) for a, b in mine)
        return Ragged(values, offsets)


def _retained(values: list[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        kind = f"column {field.name!r} is {field.type} as a whole"
        raise DataError(f"retain_columns: {kind}, but: {reason}; give it as text") from None


def _lists(values: pa.Array, packs: Offsets) -> pa.Array:
    return pa.ListArray.from_arrays(flat_array(packs.astype(np.int32)), values)


def _by_unit(units: Offsets) -> Iterator[tuple[int, Offsets]]:
    """Each unit among these and where it stands there, ascending. One pass, however many units there are."""
    order = np.argsort(units, kind="stable")
    ordered = units[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    for places in np.split(order, begins[1:]) if len(units) else ():
        yield int(units[places[0]]), places


def _in_order(units: Offsets, places: Offsets, fetch: Callable[[int, Offsets], list[T]]) -> list[T]:
    """Fetch rows unit by unit and put them back in order."""
    result: dict[int, T] = {}
    for unit, positions in _by_unit(units):
        result.update(zip(positions.tolist(), fetch(unit, places[positions]), strict=True))
    return [result[position] for position in range(len(units))]
