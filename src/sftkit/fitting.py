"""Rows that are longer than a pack, before they are split and mixed: cut, dropped or quarantined, as `overflow` says.

Whole rows alone need to fit (`packing=bfd`); where rows are laid end to end (`wrapped`) any will do. Rows are staged
without regard to the length of packs, so that another length needs no tokenizing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from sftkit.config.schema import PreprocessConfig
from sftkit.finishing import NO_TRAINED_TOKEN
from sftkit.packing import BFD, pack_length_of
from sftkit.rows import IGNORE_INDEX, LABELS, UNREAD, BadRow, Offsets, Row, RowLog
from sftkit.shards.staged_reading import StagedReader
from sftkit.shards.staging import StagedUnit
from sftkit.sources.units import Unit, read_unit

_log = logging.getLogger(__name__)

_TOKENS_AT_ONCE = 4 << 20

PACKING = "packing"
"""Who drops rows that fit no pack, in the account."""


def fitted(staged: Sequence[StagedUnit], config: PreprocessConfig) -> list[StagedUnit]:
    """The same units, with the rows that fit no pack counted as dropped or quarantined, and marked as not to be used.

    A row that is cut loses what is past the pack when it is gathered; one that has no trained token left is dropped.
    """
    length = pack_length_of(config)
    if length is None or config.packing != BFD:
        return list(staged)
    made: list[StagedUnit] = []
    cut = 0
    for each in staged:
        long = np.flatnonzero(each.sizes > length)
        if not len(long):
            made.append(each)
        elif config.overflow == "drop":
            made.append(_without(each, long, f"longer than pack_length={length}"))
        elif config.overflow == "error":
            made.append(replace(each, unfit=long, unfit_reasons={f"more tokens than pack_length={length}": len(long)}))
        else:
            untrained = long[~_keep_a_loss(each, long, length)]
            made.append(_without(each, untrained, NO_TRAINED_TOKEN))
            cut += len(long) - len(untrained)
    if cut:
        _log.warning("%d rows are longer than pack_length=%d and are cut there (overflow=truncate)", cut, length)
    return made


def misfits(staged: StagedUnit, unit: Unit, length: int) -> Iterator[BadRow]:
    """The rows of a unit that are quarantined because they fit no pack, in order, with what they are in their source:
    staged rows are tokens, and a person wants to see what they were. The source is read again, as far as rows are asked
    for.

    Raises:
        SourceError: the source can no longer be read.
    """
    if not staged.unfit_reasons:
        return
    numbers = staged.numbers(staged.unfit.tolist())
    found = _contents(unit, frozenset(numbers))
    place, content = next(found, (0, None))
    for number, size in zip(numbers, staged.sizes[staged.unfit].tolist(), strict=True):
        log = RowLog()
        log.quarantine(number, f"{size} tokens, more than pack_length={length}", content if place == number else None)
        yield from log.bad
        if place == number:
            place, content = next(found, (0, None))


def _without(staged: StagedUnit, rows: Offsets, reason: str) -> StagedUnit:
    if not len(rows):
        return staged
    return replace(staged, unfit=rows, drops={**staged.drops, PACKING: {reason: len(rows)}})


def _contents(unit: Unit, numbers: Collection[int]) -> Iterator[tuple[int, Row | None]]:
    """Rows of a source by their numbers, in order."""
    for batch in read_unit(unit, RowLog(kind=UNREAD, put_aside=lambda *_: None)):
        for number, row in zip(batch.numbers.tolist(), batch.rows, strict=True):
            if number in numbers:
                yield number, row


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
