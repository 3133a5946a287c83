"""Chooses the rows that a report shows, and reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.findings import Finding
from sftkit.inspection.page.measurements import Measurements
from sftkit.inspection.page.row_candidates import DRAWN, EXTREMES, Candidate, CandidateCollector, order_name
from sftkit.inspection.view.decoding import TokenDecoder
from sftkit.inspection.view.read_rows import read_rows
from sftkit.inspection.view.selection import RowLocation
from sftkit.inspection.view.shown_row import ShownRow, with_page_sequences
from sftkit.shards.readers.open_file import open_shard_file
from sftkit.shards.reading import ShardSet
from sftkit.storage.paths import relative_name

_REFERENCE = re.compile(r"(?P<shard>.+):(?P<row>\d+)(?: \(sequence (?P<sequence>\d+)\))?")
_PER_FINDING = 3
_PER_ORDER = 2


@dataclass(frozen=True)
class SampledRow:
    """A row that a report shows, and why."""

    row: ShownRow
    reasons: tuple[str, ...]
    """`longest`, `drawn`, ... and the rules that it is an example of."""


def choose_rows(
    shards: ShardSet, measured: Measurements, findings: Sequence[Finding], limit: int
) -> list[tuple[RowLocation, tuple[str, ...]]]:
    """Choose at most `limit` rows.

    They are examples of findings and of rare orders of roles, the extremes, then rows of all sources and lengths, drawn
    at random.

    Returns:
        Their locations in the order of splits and rows, each with the reasons for it. `hits` are the sequences of a
        pack that are examples of findings.
    """
    places = _Places(shards)
    chosen: dict[tuple[str, int, int], list[str]] = {}
    sequences: dict[tuple[str, int, int], set[int]] = {}
    for name, key, sequence in _wanted(places, measured, findings):
        if key not in chosen and len(chosen) == limit:
            continue
        names = chosen.setdefault(key, [])
        names += [name] if name not in names else []
        if sequence is not None:
            sequences.setdefault(key, set()).add(sequence)
    order = {split: number for number, split in enumerate(shards.splits)}
    keys = sorted(chosen, key=lambda key: (order[key[0]], *key[1:]))
    return [
        (replace(places.location(*key), hits=tuple(sorted(sequences.get(key, ())))), tuple(chosen[key])) for key in keys
    ]


def read_sample(
    chosen: Sequence[tuple[RowLocation, tuple[str, ...]]],
    shards: ShardSet,
    decoder: TokenDecoder | None,
    expectations: Expectations | None,
    fields: Sequence[str],
) -> list[SampledRow]:
    """Read chosen rows; only their row groups are read. The other arguments are those of `read_rows`.

    Raises:
        SourceError: a file cannot be read.
    """
    rows = read_rows([location for location, _ in chosen], shards, decoder, expectations, fields)
    return [
        SampledRow(_with_sequences(row, location), reasons)
        for row, (location, reasons) in zip(rows, chosen, strict=True)
    ]


def _with_sequences(row: ShownRow, location: RowLocation) -> ShownRow:
    """Choose the sequences of a pack to show: those of `inspect-shards`, and the examples of findings."""
    usual = with_page_sequences(row, replace(location, hits=None), is_requested=False)
    examples = [number for number in location.hits or () if number < len(row.seq_lengths)]
    return replace(usual, on_page=tuple(sorted({*usual.on_page, *examples})))


def _wanted(
    places: _Places, measured: Measurements, findings: Sequence[Finding]
) -> Iterable[tuple[str, tuple[str, int, int], int | None]]:
    """Yield reasons, rows (split, file, row), and sequences of packs, the most important first."""
    for turn in range(_PER_FINDING):
        for finding in findings:
            found = places.of_reference(finding.examples[turn]) if turn < len(finding.examples) else None
            if found is not None:
                yield finding.rule, *found
    candidates = measured.candidates
    for split in places.splits:
        for order in measured.splits[split].rare_orders():
            for candidate in candidates.extremes(split, order_name(order))[:_PER_ORDER]:
                yield order_name(order), _key(candidate), candidate.sequence if candidate.sequence >= 0 else None
    for turn in range(2):
        for split in places.splits:
            for kind in EXTREMES:
                for candidate in candidates.extremes(split, kind)[turn : turn + 1]:
                    yield kind, _key(candidate), None
    yield from _drawn(places, candidates)


def _drawn(places: _Places, candidates: CandidateCollector) -> Iterable[tuple[str, tuple[str, int, int], int | None]]:
    """Yield the rows that are drawn at random, one of each split in turn."""
    drawn = [list(candidates.drawn(split)) for split in places.splits]
    for turn in range(max(map(len, drawn), default=0)):
        for candidate in (rows[turn] for rows in drawn if turn < len(rows)):
            yield DRAWN, _key(candidate), candidate.sequence if candidate.sequence >= 0 else None


def _key(candidate: Candidate) -> tuple[str, int, int]:
    return candidate.split, candidate.file, candidate.shard_row


class _Places:
    """Finds row groups of rows; reads footers only, and only of files that hold a chosen row."""

    def __init__(self, shards: ShardSet) -> None:
        self.splits = tuple(shards.splits)
        self._shards = shards
        self._files = {
            relative_name(path, shards.root): (split, number)
            for split, paths in shards.splits.items()
            for number, path in enumerate(paths)
        }
        self._rows: dict[tuple[str, int], list[int]] = {}

    def of_reference(self, text: str) -> tuple[tuple[str, int, int], int | None] | None:
        """Return (split, file, row) and sequence of `shard:row (sequence n)`; None for a row of a source."""
        match = _REFERENCE.fullmatch(text)
        if match is None or match["shard"] not in self._files:
            return None
        split, file = self._files[match["shard"]]
        row = int(match["row"])
        if row >= sum(self._groups(split, file)):
            return None
        return (split, file, row), None if match["sequence"] is None else int(match["sequence"]) - 1

    def location(self, split: str, file: int, row: int) -> RowLocation:
        """Return the location of a row of a file."""
        before = sum(sum(self._groups(split, number)) for number in range(file))
        place = RowLocation(split, self._shards.splits[split][file], before + row, row, 0, row)
        for group, rows in enumerate(self._groups(split, file)):
            if place.group_row < rows:
                return replace(place, group=group)
            place = replace(place, group_row=place.group_row - rows)
        raise IndexError(row)

    def _groups(self, split: str, file: int) -> list[int]:
        """Return the rows of each row group of a file."""
        if (split, file) not in self._rows:
            with open_shard_file(self._shards.splits[split][file]) as opened:
                self._rows[split, file] = list(opened.group_rows)
        return self._rows[split, file]
