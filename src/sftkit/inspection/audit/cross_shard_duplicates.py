"""Finds rows that are identical to an earlier row, over all shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.audit.checks.duplicates import Digests, repeated_rows, row_digests
from sftkit.audit.checks.packs import PackBoundaries
from sftkit.audit.findings import EXAMPLES, RuleCount
from sftkit.core.rows import Offsets, Ragged, lengths_to_offsets
from sftkit.inspection.columns.text_columns import row_reference


@dataclass(frozen=True)
class RowDigests:
    """Hashes of the rows of one shard, or of the sequences in its packs."""

    shard: str
    digests: Digests
    """uint64, shape (rows,) or (sequences,)."""
    rows: Offsets | None
    """In packs: the row of each sequence within the file, from 0; None where digest i is that of row i."""
    numbers: Offsets | None
    """In packs: the number of each sequence within its pack, from 0."""

    def reference(self, index: int) -> str:
        """Return the printed reference of the row or sequence with digest `index`."""
        if self.rows is None or self.numbers is None:
            return row_reference(self.shard, index)
        return row_reference(self.shard, int(self.rows[index]), int(self.numbers[index]))


class DigestCollector:
    """Hashes the rows of a shard, batch by batch."""

    def __init__(self, shard: str) -> None:
        self._shard = shard
        self._digests: list[Digests] = [np.zeros(0, np.uint64)]
        self._positions: list[tuple[Offsets, Offsets]] = []

    def add(self, ids: Ragged, packs: PackBoundaries | None, first: int) -> None:
        """Hash some rows.

        In packs, sequences that may be parts of longer ones are left out, since short parts may well be equal; so are
        packs whose sequences are unknown.

        Args:
            ids: the rows.
            packs: their sequences, where rows are packed.
            first: index of the first row within the file.
        """
        if packs is None:
            self._digests.append(row_digests(ids))
            return
        complete = ~(packs.cut_start | packs.cut_end | packs.mismatched[packs.rows])
        self._digests.append(row_digests(Ragged(ids.values, packs.offsets))[complete])
        self._positions.append((packs.rows[complete] + first, packs.numbers[complete]))

    def result(self) -> RowDigests:
        """Return the digests of all rows so far."""
        rows, numbers = zip(*self._positions, strict=True) if self._positions else (None, None)
        return RowDigests(
            self._shard,
            np.concatenate(self._digests),
            np.concatenate(rows) if rows is not None else None,
            np.concatenate(numbers) if numbers is not None else None,
        )


def find_duplicates(shards: Sequence[RowDigests], expected: int) -> RuleCount:
    """Count rows that are identical to an earlier row, beyond the `expected` number of intended repetitions."""
    duplicates = repeated_rows(np.concatenate([shard.digests for shard in shards]))
    duplicates = duplicates[: max(0, len(duplicates) - expected)]
    bounds = lengths_to_offsets(np.array([len(shard.digests) for shard in shards], np.int64))
    examples = []
    for duplicate in duplicates[:EXAMPLES].tolist():
        shard = int(np.searchsorted(bounds, duplicate, side="right")) - 1
        examples.append(shards[shard].reference(duplicate - int(bounds[shard])))
    return RuleCount(len(duplicates), tuple(examples))
