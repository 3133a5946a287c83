"""Collects rows that stand out, and rows drawn at random, without holding more than a few of each."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from zlib import crc32

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Offsets, Ragged
from sftkit.storage.paths import AnyPath

LONGEST, SHORTEST = "longest", "shortest"
MOST_TRAINED, LEAST_TRAINED = "most trained", "least trained"
DRAWN = "drawn"
EXTREMES = (LONGEST, SHORTEST, MOST_TRAINED, LEAST_TRAINED)

_PER_EXTREME = 3
_PER_STRATUM = 24
_FIRST_MESSAGES = 20
_BUCKETS = 64
_MOST_SOURCES = 64
"""Sources of the rows of a row group that are distinguished."""


def order_name(order: tuple[str, str]) -> str:
    """Return how an order of roles is called.

    Example:
        >>> order_name(("user", "assistant"))
        'user → assistant'
    """
    return " → ".join(order)


@dataclass(frozen=True)
class RowPlace:
    """A row group of a file."""

    split: str
    file: int
    """Index of the file within its split."""
    path: AnyPath
    group: int
    first: int
    """Index of its first row within the file."""


@dataclass(frozen=True, order=True)
class Candidate:
    """A row that may be shown. The lowest ranks are kept."""

    rank: float
    file: int
    shard_row: int
    """Index within the file."""
    split: str
    group: int
    group_row: int
    sequence: int = -1
    """Index of the sequence of a pack that it is about; -1 for none."""


class CandidateCollector:
    """Keeps for each category the rows of the lowest ranks.

    Categories are (split, extreme), (split, order of roles), and (split, DRAWN, source and bucket of lengths): rows of
    all sources and lengths have the same chance to be seen. The rank of a drawn row is a hash of the seed and its
    place, so that it does not matter in which order the files are read.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kept: dict[tuple[str, str, int], list[Candidate]] = {}

    def add(self, place: RowPlace, lengths: Offsets, trained: Offsets | None, sources: Ragged | None = None) -> None:
        """Add the rows of a row group.

        Args:
            place: the row group.
            lengths: tokens of its rows, shape (rows,).
            trained: trained tokens of its rows, shape (rows,); None if unknown.
            sources: the data set of each row, or of each sequence of each pack, as a number; None if unknown.
        """
        if not len(lengths):
            return
        rows = np.arange(len(lengths))
        self._keep(place, LONGEST, 0, rows, -lengths.astype(np.float64))
        filled = rows[lengths > 0]
        self._keep(place, SHORTEST, 0, filled, lengths[filled].astype(np.float64))
        if trained is not None:
            share = trained[filled] / lengths[filled]
            self._keep(place, MOST_TRAINED, 0, filled, -share)
            self._keep(place, LEAST_TRAINED, 0, filled, share)
        ranks = _hashes(self._seed, place, len(lengths))
        buckets = np.frexp(lengths.astype(np.float64))[1]
        for source, of_source, sequences in _by_source(sources, len(lengths)):
            for bucket in np.unique(buckets[of_source]).tolist():
                inside = buckets[of_source] == bucket
                found = of_source[inside]
                self._keep(place, DRAWN, source * _BUCKETS + bucket, found, ranks[found], sequences[inside])

    def add_order(
        self, place: RowPlace, order: tuple[str, str], rows: Offsets, sequences: Offsets | None = None
    ) -> None:
        """Add rows with a role that follows another one.

        Args:
            place: their row group.
            order: the role before, and the role.
            rows: indices of the rows in the group, ascending, shape (messages,).
            sequences: in packs, the indices of their sequences, shape (messages,).
        """
        found = {
            row: Candidate(0.0, place.file, place.first + row, place.split, place.group, row, sequence)
            for row, sequence in zip(
                rows[:_FIRST_MESSAGES].tolist(),
                [-1] * len(rows) if sequences is None else sequences[:_FIRST_MESSAGES].tolist(),
                strict=False,
            )
        }
        key = (place.split, order_name(order), 0)
        self._kept[key] = heapq.nsmallest(_PER_EXTREME, [*self._kept.get(key, []), *found.values()])

    def merge(self, other: CandidateCollector) -> None:
        """Add the candidates of another collector."""
        for key, candidates in other._kept.items():
            kept = [*self._kept.get(key, []), *candidates]
            self._kept[key] = heapq.nsmallest(_limit(key[1]), kept)

    def extremes(self, split: str, kind: str) -> list[Candidate]:
        """Return the rows of a split that are the most extreme in one way, the most extreme first."""
        return self._kept.get((split, kind, 0), [])

    def drawn(self, split: str) -> Iterator[Candidate]:
        """Yield the drawn rows of a split: one of each source in turn, and of each one of each bucket of lengths."""
        sources: dict[int, list[list[Candidate]]] = {}
        for key in sorted(self._kept):
            if key[:2] == (split, DRAWN):
                sources.setdefault(key[2] // _BUCKETS, []).append(self._kept[key])
        for every in zip_longest(*map(_in_turn, sources.values())):
            yield from (row for row in every if row is not None)

    def _keep(
        self,
        place: RowPlace,
        kind: str,
        bucket: int,
        rows: Offsets,
        ranks: npt.NDArray[np.float64],
        sequences: Offsets | None = None,
    ) -> None:
        if sequences is None:
            sequences = np.full(len(rows), -1)
        limit = _limit(kind)
        if len(ranks) > limit:
            best = np.lexsort((rows, ranks))[:limit] if len(ranks) < 4 * limit else _lowest(ranks, limit)
            rows, ranks, sequences = rows[best], ranks[best], sequences[best]
        key = (place.split, kind, bucket)
        found = [
            Candidate(rank, place.file, place.first + row, place.split, place.group, row, sequence)
            for row, rank, sequence in zip(rows.tolist(), ranks.tolist(), sequences.tolist(), strict=True)
        ]
        self._kept[key] = heapq.nsmallest(limit, [*self._kept.get(key, []), *found])


def _in_turn(buckets: Sequence[Sequence[Candidate]]) -> Iterator[Candidate]:
    """Yield one row of each bucket in turn."""
    for turn in range(_PER_STRATUM):
        yield from (bucket[turn] for bucket in buckets if turn < len(bucket))


def _by_source(sources: Ragged | None, rows: int) -> Iterator[tuple[int, Offsets, Offsets]]:
    """Yield each source with its rows, and the first sequence of each row that is of this source; -1 without packs."""
    everything = 0, np.arange(rows), np.full(rows, -1)
    if sources is None or len(sources) != rows:
        yield everything
        return
    numbers = np.unique(sources.values)
    if len(numbers) > _MOST_SOURCES:
        yield everything
        return
    owners = np.repeat(np.arange(rows), sources.lengths)
    places = np.arange(len(owners)) - np.repeat(sources.offsets[:-1], sources.lengths)
    has_packs = bool((sources.lengths != 1).any())
    for number in numbers.tolist():
        found = np.flatnonzero(sources.values == number)
        of_source, first = np.unique(owners[found], return_index=True)
        yield number, of_source, places[found[first]] if has_packs else np.full(len(first), -1)


def _limit(kind: str) -> int:
    return _PER_STRATUM if kind == DRAWN else _PER_EXTREME


def _lowest(ranks: npt.NDArray[np.float64], limit: int) -> npt.NDArray[np.int64]:
    """Return the indices of the `limit` lowest ranks; of equal ranks the first."""
    bound = np.partition(ranks, limit - 1)[limit - 1]
    below = np.flatnonzero(ranks < bound)
    equal = np.flatnonzero(ranks == bound)[: limit - len(below)]
    return np.concatenate((below, equal)).astype(np.int64)


def _hashes(seed: int, place: RowPlace, count: int) -> npt.NDArray[np.float64]:
    """Return a number from 0 to 1 for each row of a group, shape (count,): the finalizer of SplitMix64."""
    base = np.uint64((seed & 0xFFFFFFFF) << 32 | crc32(f"{place.split} {place.file}".encode()))
    values = np.arange(place.first + 1, place.first + 1 + count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        values = values * np.uint64(0x9E3779B97F4A7C15) + base
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        values ^= values >> np.uint64(31)
    return values.astype(np.float64) / float(1 << 64)
