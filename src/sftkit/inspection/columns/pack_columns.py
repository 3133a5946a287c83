"""The lengths of the sequences in packs, from columns in which other tools say where sequences begin."""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import POSITION_IDS, SEQ_LENGTHS, Mask, Offsets, Ragged

SEQ_START_ID = "seq_start_id"
"""The position of the first token of each sequence, starting with 0: packs of NeMo and Megatron-Bridge."""

CU_SEQLENS = ("cu_seqlens", "cu_seq_lens")
"""The same positions, and the number of tokens as the last one; -1 fills up."""


def sequence_lengths(column: Ragged, name: str, ids: Ragged) -> Ragged:
    """Return the tokens of each sequence, pack by pack.

    Args:
        column: the column that says where sequences begin.
        name: its name: `seq_lengths`, `seq_start_id`, one of `CU_SEQLENS`, or `position_ids`.
        ids: the packs.

    Example:
        >>> ids = Ragged.from_lists([[7, 8, 9, 7, 8], [7]])
        >>> starts = sequence_lengths(Ragged.from_lists([[0, 3], [0]]), "seq_start_id", ids)
        >>> cumulative = sequence_lengths(Ragged.from_lists([[0, 3, 5, -1], [0, 1]]), "cu_seqlens", ids)
        >>> positions = sequence_lengths(Ragged.from_lists([[0, 1, 2, 0, 1], [0]]), "position_ids", ids)
        >>> [each.values.tolist() for each in (starts, cumulative, positions)]
        [[3, 2, 1], [3, 2, 1], [3, 2, 1]]
    """
    if name == SEQ_LENGTHS:
        return column
    if name == POSITION_IDS:
        return _lengths_of_positions(column)
    if name == SEQ_START_ID:
        return _differences(column, ids.lengths)
    filled = column.select(column.values >= 0)
    last = np.maximum(filled.offsets[1:] - 1, 0)
    ends = np.where(filled.lengths > 0, filled.values[last] if len(filled.values) else 0, 0)
    lengths = _differences(filled, ends.astype(np.int64))
    return lengths.select(lengths.values != 0)


def restarts(positions: Ragged) -> bool:
    """Return whether a row has positions of several sequences.

    Example:
        >>> restarts(Ragged.from_lists([[0, 1, 2], [0, 1]])), restarts(Ragged.from_lists([[0, 1, 0]]))
        (False, True)
    """
    return bool(np.count_nonzero(_begins(positions)) > np.count_nonzero(positions.lengths))


def _differences(starts: Ragged, ends: Offsets) -> Ragged:
    """Return the distances from each start to the next one in its row, or to the end of the row (shape (rows,))."""
    following = np.append(starts.values[1:], 0).astype(np.int64)
    filled = starts.lengths > 0
    following[starts.offsets[1:][filled] - 1] = ends[filled]
    return Ragged((following - starts.values).astype(np.int32), starts.offsets)


def _lengths_of_positions(positions: Ragged) -> Ragged:
    begins = _begins(positions)
    places = np.append(np.flatnonzero(begins), len(begins))
    return Ragged.from_lengths(np.diff(places).astype(np.int32), positions.count_per_row(begins))


def _begins(positions: Ragged) -> Mask:
    """Return where a sequence begins, shape (tokens,): where a position is not larger than the one before it.

    Several zeros at the end of a row are the padding of LLaMA-Factory's packs, and count as one sequence.
    """
    values = positions.values
    begins = np.ones(len(values), np.bool_)
    begins[1:] = values[1:] <= values[:-1]
    firsts = positions.offsets[:-1][positions.lengths > 0]
    if not len(firsts):
        return begins
    begins[firsts] = True
    index = np.arange(len(values))
    last_nonzero = np.maximum.reduceat(np.where(values != 0, index, -1), firsts)
    last_nonzero = np.maximum(last_nonzero, firsts - 1)
    padding = index > np.repeat(last_nonzero + 1, positions.lengths[positions.lengths > 0])
    padding[firsts] = False
    begins[padding] = False
    return begins
