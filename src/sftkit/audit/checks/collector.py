"""The audit of rows batch by batch, as a work unit produces them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from sftkit.audit.checks.duplicates import Digests, row_digests
from sftkit.audit.checks.row_checks import check_rows
from sftkit.audit.expectations.expected import Expectations
from sftkit.audit.findings import EXAMPLES, RULES
from sftkit.core.rows import IGNORE_INDEX, Offsets, Ragged

_TOKENS_AT_ONCE = 1 << 17


class AuditCollector:
    """Collects what is wrong with rows. Small batches are checked together, which costs less per token."""

    def __init__(self, expectations: Expectations) -> None:
        self._expectations = expectations
        self._faulty: dict[str, list[Offsets]] = {}
        self._numbers: list[Offsets] = []
        self._digests: list[Digests] = []
        self._pending: list[tuple[Ragged, Ragged, Offsets]] = []

    @property
    def rows(self) -> int:
        """Number of rows that were checked."""
        return sum(map(len, self._numbers))

    @property
    def digests(self) -> Digests:
        """Digests of the ids of each row, uint64, shape (rows,)."""
        self._check_pending()
        return np.concatenate([np.zeros(0, np.uint64), *self._digests])

    def add(self, ids: Ragged, labels: Ragged, numbers: Offsets) -> None:
        """Check some rows.

        Args:
            ids: their tokens.
            labels: their labels, of the same shape.
            numbers: their row numbers in the source, int64, shape (rows,), ascending.
        """
        self._numbers.append(numbers)
        self._pending.append((ids, labels, numbers))
        if sum(len(each.values) for each, _, _ in self._pending) >= _TOKENS_AT_ONCE:
            self._check_pending()

    def _check_pending(self) -> None:
        if not self._pending:
            return
        ids, labels, numbers = self._pending[0]
        if len(self._pending) > 1:
            lengths = np.concatenate([each.lengths for each, _, _ in self._pending])
            ids = Ragged.from_lengths(np.concatenate([each.values for each, _, _ in self._pending]), lengths)
            labels = Ragged(np.concatenate([each.values for _, each, _ in self._pending]), ids.offsets)
            numbers = np.concatenate([each for _, _, each in self._pending])
        self._pending = []
        for rule, fault in check_rows(ids, labels.values, labels.values != IGNORE_INDEX, self._expectations).items():
            self._faulty.setdefault(rule, []).append(numbers[np.unique(fault.rows)])
        self._digests.append(row_digests(ids))

    def faulty(self, flagged: Mapping[str, Collection[int]]) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Count the rows that break each rule, and give the numbers of the first ones.

        Args:
            flagged: row numbers by rule that the pipeline itself found; rows that were dropped later are ignored.
        """
        self._check_pending()
        faulty = {rule: np.unique(np.concatenate(parts)) for rule, parts in self._faulty.items()}
        for rule, numbers in flagged.items():
            checked = np.concatenate([np.zeros(0, np.int64), *self._numbers])
            kept = np.intersect1d(np.array(sorted(numbers), np.int64), checked)
            faulty[rule] = np.union1d(faulty.get(rule, kept), kept)
        return {
            rule: (len(faulty[rule]), tuple(faulty[rule][:EXAMPLES].tolist()))
            for rule in RULES
            if rule in faulty and len(faulty[rule])
        }
