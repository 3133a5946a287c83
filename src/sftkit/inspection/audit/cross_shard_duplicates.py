"""Rows that an earlier row equals, found over all shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.audit.checks.duplicates import Digests, repeated_rows, row_digests
from sftkit.audit.checks.packs import PackBoundaries
from sftkit.audit.findings import EXAMPLES, RuleCount
from sftkit.core.rows import Offsets, Ragged, lengths_to_offsets
from sftkit.inspection.parquet_columns import row_reference


@dataclass(frozen=True)
class RowDigests:
    """A digest of each row of one shard, or of each sequence of its packs.

    digests: uint64, shape (rows,) or (sequences,). rows, numbers: where they are in packs, the row counted within the
    file and the sequence within its pack, both from 0; None where digest i is of row i.
    """

    shard: str
    digests: Digests
    rows: Offsets | None
    numbers: Offsets | None

    def name(self, place: int) -> str:
        """What to call what the digest at a place is of."""
        if self.rows is None or self.numbers is None:
            return row_reference(self.shard, place)
        return row_reference(self.shard, int(self.rows[place]), int(self.numbers[place]))


class DigestCollector:
    """Digests of a shard, as its rows come by."""

    def __init__(self, shard: str) -> None:
        self._shard = shard
        self._digests: list[Digests] = [np.zeros(0, np.uint64)]
        self._places: list[tuple[Offsets, Offsets]] = []

    def add(self, ids: Ragged, packs: PackBoundaries | None, first: int) -> None:
        """Take some rows, of which the first is number `first` of the file.

        Of packs, pieces of longer sequences are left out, for short ones may well be equal, and those of which nobody
        knows where they begin.
        """
        if packs is None:
            self._digests.append(row_digests(ids))
            return
        whole = ~(packs.cut_start | packs.cut_end | packs.mismatched[packs.rows])
        self._digests.append(row_digests(Ragged(ids.values, packs.offsets))[whole])
        self._places.append((packs.rows[whole] + first, packs.numbers[whole]))

    def result(self) -> RowDigests:
        """The digests of all rows so far."""
        rows, numbers = zip(*self._places, strict=True) if self._places else (None, None)
        return RowDigests(
            self._shard,
            np.concatenate(self._digests),
            np.concatenate(rows) if rows is not None else None,
            np.concatenate(numbers) if numbers is not None else None,
        )


def find_duplicates(shards: Sequence[RowDigests], on_purpose: int) -> RuleCount:
    """Rows that an earlier one equals, but for so many that a mix repeats on purpose."""
    copies = repeated_rows(np.concatenate([each.digests for each in shards]))
    copies = copies[: max(0, len(copies) - on_purpose)]
    bounds = lengths_to_offsets(np.array([len(each.digests) for each in shards], np.int64))
    examples = []
    for copy in copies[:EXAMPLES].tolist():
        shard = int(np.searchsorted(bounds, copy, side="right")) - 1
        examples.append(shards[shard].name(copy - int(bounds[shard])))
    return RuleCount(len(copies), tuple(examples))
