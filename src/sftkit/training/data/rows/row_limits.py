"""The longest sequence of a run, and what becomes of longer ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftkit.config.schema.option_values import SPLIT_TURNS
from sftkit.core.rows import Ragged
from sftkit.errors import DataError
from sftkit.training.data.rows.row_groups import RowGroup, RowGroupLocation, keep_sequences


@dataclass(frozen=True)
class RowLimit:
    """The longest sequence, and what happens to longer ones."""

    tokens: int

    overflow: str
    """`truncate`, `truncate_left`, `drop` or `error`; tokens cannot be split into turns, so this is an error."""


def apply_limit(limit: RowLimit, group: RowGroup, location: RowGroupLocation) -> tuple[RowGroup, int]:
    """Truncate or remove sequences that are too long.

    Returns:
        The row group, and how many sequences were too long.

    Raises:
        DataError: one is too long, and that is an error; its row is named as `path:row`.
    """
    fits = group.input_ids.lengths <= limit.tokens
    too_long = int((~fits).sum())
    if not too_long:
        return group, 0
    if limit.overflow in ("error", SPLIT_TURNS):
        sequence = int(fits.argmin())
        row = location.first_row + int(np.searchsorted(group.row_offsets, sequence, side="right")) - 1
        raise DataError(
            f"{location.path}:{row}: {group.input_ids.lengths[sequence]} tokens, more than"
            f" max_seq_length={limit.tokens}; set overflow=truncate or overflow=drop to train on the rest"
        )
    if limit.overflow == "drop":
        return keep_sequences(group, fits), too_long
    cut = Ragged.keep_last if limit.overflow == "truncate_left" else Ragged.truncate
    limits = np.full(len(fits), limit.tokens)
    ids, labels = (cut(column, limits) for column in (group.input_ids, group.labels))
    everywhere = np.arange(len(group.input_ids.values), dtype=np.int32)
    kept = cut(Ragged(everywhere, group.input_ids.offsets), limits).values
    return RowGroup(ids, labels, group.row_offsets, group.details.at(kept)), too_long
