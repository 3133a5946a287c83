"""Which sequences share the rows of packed data, and which of their edges are those of what they were made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Mask, Offsets, Ragged, lengths_to_offsets, ragged_where


@dataclass(frozen=True)
class Packing:
    """How rows were packed, as far as that is known.

    length: no pack has more tokens; None when unknown. wrapped: rows were laid end to end and cut into packs, so that
    the first sequence of a pack may lack its beginning, and the last one its end.
    """

    length: int | None = None
    wrapped: bool = False


@dataclass(frozen=True)
class PackBoundaries:
    """The sequences of some packs.

    offsets: where sequences begin among all tokens, int64, shape (sequences + 1,). rows: the pack of each, ascending,
    int64, shape (sequences,). numbers: which sequence of its pack each is, from 0, int64, shape (sequences,).
    mismatched: packs of which the lengths do not tell where sequences begin, bool, shape (rows,); each of them is one
    sequence here, as is a pack without tokens. too_long: packs with more tokens than a pack may have, bool, shape
    (rows,). cut_start, cut_end: sequences that may go on from the pack before or in the one behind, bool, shape
    (sequences,).
    """

    offsets: Offsets
    rows: Offsets
    numbers: Offsets
    mismatched: Mask
    too_long: Mask
    cut_start: Mask
    cut_end: Mask

    def __len__(self) -> int:
        return len(self.rows)


def pack_boundaries(ids: Ragged, lengths: Ragged, packing: Packing) -> PackBoundaries:
    """The sequences of some packs.

    Args:
        ids: the packs.
        lengths: tokens of the sequences of each; right ones are at least 1 and sum to the tokens of the pack.
        packing: how they were packed.
    """
    sums = np.concatenate(([0], np.cumsum(lengths.values, dtype=np.int64)))
    totals = sums[lengths.offsets[1:]] - sums[lengths.offsets[:-1]]
    mismatched = (totals != ids.lengths) | (lengths.count_per_row(lengths.values < 1) > 0)
    alone = mismatched | (lengths.lengths == 0)
    if alone.any():
        one_each = Ragged.from_lengths(ids.lengths[alone].astype(np.int32), np.ones(np.count_nonzero(alone), np.int64))
        lengths = ragged_where(alone, one_each, lengths.filter(~alone))
    counts = lengths.lengths
    rows = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(rows)) - lengths.offsets[rows]
    return PackBoundaries(
        offsets=lengths_to_offsets(lengths.values.astype(np.int64)),
        rows=rows,
        numbers=numbers,
        mismatched=mismatched,
        too_long=ids.lengths > packing.length if packing.length is not None else np.zeros(len(ids), np.bool_),
        cut_start=(numbers == 0) & packing.wrapped,
        cut_end=(numbers == counts[rows] - 1) & packing.wrapped,
    )
