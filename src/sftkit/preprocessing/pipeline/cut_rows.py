"""Cuts rows that are longer than `max_seq_length`, at either end, and records what they lose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sftkit.core.accounting.cuts import cut_after_answer, cut_before_answer, find_long_rows, find_long_rows_at_end
from sftkit.core.row_log import RowLog
from sftkit.core.rows import IGNORE_INDEX, LABELS, TOKEN_COLUMNS, Batch, Offsets, Ragged
from sftkit.core.token_kinds import TOKEN_KINDS, TokenKind
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS

_CUT = frozenset({*TOKEN_COLUMNS, TOKEN_KINDS, LOSS_WEIGHTS})
_UNTRAINED = {LABELS: IGNORE_INDEX, TOKEN_KINDS: int(TokenKind.UNTRAINED), LOSS_WEIGHTS: 0}


def keep_start(batch: Batch, limit: int, log: RowLog) -> Batch:
    """Keep the first `limit` tokens of each row."""
    log.cut(batch.numbers, find_long_rows(batch.tokens[LABELS], limit), cut_before_answer(limit))
    return _cut(batch, limit, Ragged.truncate)


def keep_end(batch: Batch, limit: int, log: RowLog) -> Batch:
    """Keep the last `limit` tokens of each row. The first of them carries no loss, because nothing predicts it."""
    long = find_long_rows_at_end(batch.tokens[LABELS], limit)
    log.cut(batch.numbers, long, cut_after_answer(limit))
    cut = _cut(batch, limit, Ragged.keep_last)
    for name in _UNTRAINED.keys() & cut.tokens.keys():
        column = cut.tokens[name]
        values = column.values.copy()
        values[column.offsets[:-1][long.rows]] = _UNTRAINED[name]
        cut = cut.with_tokens(**{name: Ragged(values, column.offsets)})
    return cut


def _cut(batch: Batch, limit: int, cut: Callable[[Ragged, Offsets], Ragged]) -> Batch:
    limits = np.full(len(batch), limit, np.int64)
    return batch.with_tokens(**{name: cut(column, limits) for name, column in batch.tokens.items() if name in _CUT})
