"""The column `token_kinds` of rows that no conversation was rendered for: as given, or from ids and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sftkit.core.rows import INPUT_IDS, LABELS, Batch, Ragged, ragged_where
from sftkit.core.token_kinds import KIND_NUMBERS, TOKEN_KINDS, kinds_for_labels

_NUMBERS = frozenset(KIND_NUMBERS.values())


def with_kinds(batch: Batch, kinds_of: Callable[[Ragged, Ragged], Ragged], *, reads_rows: bool) -> Batch:
    """Return rows of tokens and labels with their kinds.

    Rows may bring kinds of their own, as those of shards do. They are ignored where they do not fit the tokens.

    Args:
        batch: the rows; if they already have a token column with kinds, it stays.
        kinds_of: tells kinds from ids and labels.
        reads_rows: read the column of the rows: it is about these tokens.
    """
    if TOKEN_KINDS in batch.tokens:
        return batch
    ids, labels = batch.tokens[INPUT_IDS], batch.tokens[LABELS]
    kinds = kinds_of(ids, labels)
    if any(TOKEN_KINDS in row for row in batch.rows):
        given = [row.get(TOKEN_KINDS) if reads_rows else None for row in batch.rows]
        used = np.fromiter(map(_fits, given, ids.lengths.tolist()), np.bool_, len(batch))
        of_rows = Ragged.from_lists([values or [] for values, is_used in zip(given, used, strict=True) if is_used])
        kinds = kinds_for_labels(ragged_where(used, of_rows, kinds.filter(~used)), labels)
        rows = [{name: value for name, value in row.items() if name != TOKEN_KINDS} for row in batch.rows]
        batch = batch.with_rows(rows)
    return batch.with_tokens(**{TOKEN_KINDS: kinds})


def _fits(kinds: Any, length: int) -> bool:
    """Return whether a value is a list of kinds for so many tokens."""
    return (
        isinstance(kinds, list)
        and len(kinds) == length
        and all(type(kind) is int and kind in _NUMBERS for kind in kinds)
    )
