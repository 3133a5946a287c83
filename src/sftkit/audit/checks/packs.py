"""The boundaries of sequences in packed rows, and which sequences may be cut at the edges of packs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import Mask, Offsets, Ragged, lengths_to_offsets, ragged_where


@dataclass(frozen=True)
class Packing:
    """How rows were packed, as far as that is known."""

    length: int | None = None
    """Maximum number of tokens in a pack; None if unknown."""
    may_cut_rows: bool = False
    """Rows may have been cut at the edges of packs: the first sequence may lack its start, the last one its end."""
    cuts_inside_packs: bool = False
    """Any sequence may lack its start, and one that fills a pack its end."""

    @property
    def which_rows_are_cut(self) -> str:
        """Name the rows that may be cut, for messages."""
        return "rows longer than a pack are cut" if self.cuts_inside_packs else "rows may be cut at the edges of packs"


@dataclass(frozen=True)
class PackBoundaries:
    """The sequences of some packs."""

    offsets: Offsets
    """Start of each sequence among all tokens, int64, shape (sequences + 1,)."""
    rows: Offsets
    """The pack of each sequence, ascending, int64, shape (sequences,)."""
    numbers: Offsets
    """The index of each sequence in its pack, from 0, int64, shape (sequences,)."""
    mismatched: Mask
    """Packs whose sequence lengths are invalid, bool, shape (rows,). Such a pack counts as one
    sequence here, as does an empty pack."""
    too_long: Mask
    """Packs with more tokens than allowed, bool, shape (rows,)."""
    cut_start: Mask
    """Sequences that may continue one of the previous pack, bool, shape (sequences,)."""
    cut_end: Mask
    """Sequences that may continue in the next pack, bool, shape (sequences,)."""

    def __len__(self) -> int:
        return len(self.rows)


def pack_boundaries(ids: Ragged, lengths: Ragged, packing: Packing) -> PackBoundaries:
    """Find the sequences of some packs.

    Args:
        ids: the packs.
        lengths: tokens of each sequence, pack by pack; valid ones are at least 1 and sum to the tokens of the pack.
        packing: how the rows were packed.
    """
    sums = np.concatenate(([0], np.cumsum(lengths.values, dtype=np.int64)))
    totals = sums[lengths.offsets[1:]] - sums[lengths.offsets[:-1]]
    mismatched = (totals != ids.lengths) | (lengths.count_per_row(lengths.values < 1) > 0)
    as_one = mismatched | (lengths.lengths == 0)
    if as_one.any():
        whole_packs = Ragged.from_lengths(
            ids.lengths[as_one].astype(np.int32), np.ones(np.count_nonzero(as_one), np.int64)
        )
        lengths = ragged_where(as_one, whole_packs, lengths.filter(~as_one))
    counts = lengths.lengths
    is_full = lengths.values == packing.length if packing.length is not None else np.ones(len(lengths.values), np.bool_)
    rows = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(rows)) - lengths.offsets[rows]
    return PackBoundaries(
        offsets=lengths_to_offsets(lengths.values.astype(np.int64)),
        rows=rows,
        numbers=numbers,
        mismatched=mismatched,
        too_long=ids.lengths > packing.length if packing.length is not None else np.zeros(len(ids), np.bool_),
        cut_start=np.full(len(rows), True) if packing.cuts_inside_packs else (numbers == 0) & packing.may_cut_rows,
        cut_end=is_full if packing.cuts_inside_packs else (numbers == counts[rows] - 1) & packing.may_cut_rows,
    )
