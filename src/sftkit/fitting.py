"""Rows that are longer than a pack, before they are split and mixed: cut, dropped or quarantined, as `overflow` says.

Whole rows alone need to fit (`packing=bfd`); where rows are laid end to end (`wrapped`) any will do. Rows are staged
without regard to the length of packs, so that another length needs no tokenizing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from sftkit.config.schema import PreprocessConfig
from sftkit.finishing import NO_TRAINED_TOKEN
from sftkit.packing import BFD, pack_length_of
from sftkit.rows import IGNORE_INDEX, LABELS, BadRow, Offsets, Row, RowLog
from sftkit.shards.staged_reading import StagedReader
from sftkit.shards.staging import StagedUnit, row_numbers
from sftkit.sources.units import Unit, read_unit

_log = logging.getLogger(__name__)

_TOKENS_AT_ONCE = 4 << 20


def fitted(
    staged: Sequence[StagedUnit], units: Sequence[Unit], config: PreprocessConfig, most_bad: int
) -> list[StagedUnit]:
    """The same units, with the rows that fit no pack counted as dropped or quarantined, and marked as not to be used.

    A row that is cut loses what is past the pack when it is gathered; one that has no trained token left is dropped.

    Args:
        staged: in the order of their numbers.
        units: where they come from, in the same order.
        config: of the run.
        most_bad: so many rows are read again from their sources to be quarantined; one more unit with any is not.

    Raises:
        SourceError: a source can no longer be read.
    """
    length = pack_length_of(config)
    if length is None or config.packing != BFD:
        return list(staged)
    made: list[StagedUnit] = []
    cut = bad = 0
    for each, unit in zip(staged, units, strict=True):
        long = np.flatnonzero(each.sizes > length)
        if not len(long) or bad > most_bad:
            made.append(each)
        elif config.overflow == "drop":
            made.append(_without(each, long, f"longer than pack_length={length}"))
        elif config.overflow == "error":
            made.append(_quarantined(each, long, unit, length))
            bad += len(long)
        else:
            untrained = long[~_keep_a_loss(each, long, length)]
            made.append(_without(each, untrained, NO_TRAINED_TOKEN))
            cut += len(long) - len(untrained)
    if cut:
        _log.warning("%d rows are longer than pack_length=%d and are cut there (overflow=truncate)", cut, length)
    return made


def _without(staged: StagedUnit, rows: Offsets, reason: str) -> StagedUnit:
    dropped = Counter(staged.dropped)
    if len(rows):
        dropped[reason] += len(rows)
    return replace(staged, unfit=rows, dropped=dropped)


def _quarantined(staged: StagedUnit, rows: Offsets, unit: Unit, length: int) -> StagedUnit:
    numbers = row_numbers(staged.path, rows.tolist())
    contents = _contents(unit, frozenset(numbers))
    log = RowLog(bad=list(staged.bad))
    for number, size in zip(numbers, staged.sizes[rows].tolist(), strict=True):
        log.quarantine(number, f"{size} tokens, more than pack_length={length}", contents.get(number))
    log.bad.sort(key=_number)
    return replace(staged, unfit=rows, bad=tuple(log.bad))


def _number(row: BadRow) -> int:
    return row.number


def _contents(unit: Unit, numbers: Collection[int]) -> dict[int, Row]:
    """Rows of a source by their numbers: staged rows are tokens, and a person wants to see what they were."""
    found: dict[int, Row] = {}
    for batch in read_unit(unit, RowLog()):
        for number, row in zip(batch.numbers.tolist(), batch.rows, strict=True):
            if number in numbers:
                found[number] = row
    return found


def _keep_a_loss(staged: StagedUnit, rows: Offsets, length: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows, cut to a length, have a trained token behind their first, bool, shape (rows,)."""
    reader = StagedReader(staged.path, (LABELS,))
    places, _ = reader.places(LABELS, rows)
    kept = np.zeros(len(rows), np.bool_)
    at_once = max(1, _TOKENS_AT_ONCE // length)
    labels = np.empty((min(at_once, len(rows)), length), np.int32)
    for start in range(0, len(rows), at_once):
        some = places[start : start + at_once].tolist()
        reader.read_tokens(zip(some, labels, strict=False))
        kept[start : start + len(some)] = (labels[: len(some), 1:] != IGNORE_INDEX).any(axis=1)
    return kept
