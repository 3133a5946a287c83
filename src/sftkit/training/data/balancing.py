"""Divide the rows of a step over processes and micro-batches so that all processes compute about as many tokens."""

from __future__ import annotations

import heapq

import numpy as np

from sftkit.core.rows import Ids, Offsets

_MOST_EXCHANGES = 200  # of a step; a few dozen are usual


def divide_step(sizes: Offsets, processes: int, batches: int, most: int, *, padded: bool) -> list[list[int]]:
    """Divide the rows of a step into the micro-batches of all processes.

    Processes wait for each other at the end of a step (and where weights are sharded, in every micro-batch). So rows
    are divided first over processes, as evenly as possible, and then over the micro-batches of each. These are sorted,
    largest first, so that processes compute micro-batches of similar size at the same time. Where rows are padded,
    those of similar lengths share a micro-batch instead, and micro-batches are dealt out in turn.

    Args:
        sizes: tokens of each row, shape (rows,).
        processes: that train together.
        batches: micro-batches of each process.
        most: the most rows of a micro-batch.
        padded: prefer rows of similar length over micro-batches of equal size.

    Returns:
        The indices of the rows of each micro-batch; number m * processes + p is micro-batch m of process p.

    Example:
        >>> divide_step(np.array([9, 5, 4, 2, 1, 1]), processes=2, batches=2, most=2, padded=False)
        [[0], [1, 5], [3], [2, 4]]
    """
    if padded or processes == 1:
        parts = processes * batches
        return _largest_first(sizes, split_by_length(sizes, parts) if padded else balance_by_size(sizes, parts, most))
    shares = exchange_rows(sizes, balance_by_size(sizes, processes, batches * most))
    divided = [_divide_share(sizes, np.array(share, np.int64), batches, most) for share in shares]
    return [of_process[number] for number in range(batches) for of_process in divided]


def balance_by_size(sizes: Offsets, parts: int, most: int) -> list[list[int]]:
    """Divide rows into parts of nearly equal size: largest row first, each to the smallest part.

    This is Graham's LPT rule (1969): the largest part is at most 4/3 of the best possible, unless `most` interferes.

    Args:
        sizes: tokens of each row, shape (rows,), at most parts * most rows.
        parts: how many parts.
        most: the most rows of a part.

    Returns:
        The indices of the rows of each part, in order.

    Example:
        >>> balance_by_size(np.array([9, 1, 1, 9]), parts=2, most=2)
        [[0, 1], [2, 3]]
    """
    heap = [(0, part) for part in range(parts)]
    divided: list[list[int]] = [[] for _ in range(parts)]
    for row in np.argsort(-sizes, kind="stable").tolist():
        size, part = heapq.heappop(heap)
        divided[part].append(row)
        if len(divided[part]) < most:
            heapq.heappush(heap, (size + int(sizes[row]), part))
    return [sorted(part) for part in divided]


def exchange_rows(sizes: Offsets, parts: list[list[int]]) -> list[list[int]]:
    """Make parts more equal without changing how many rows each has.

    The largest part exchanges a row for a smaller one of another part, the two for which the larger of both parts gets
    smallest, until no exchange makes the largest part smaller.

    Args:
        sizes: tokens of each row, shape (rows,).
        parts: the indices of the rows of each part; every row is in one of them.

    Example:
        >>> exchange_rows(np.array([9, 8, 5, 2]), [[0, 1], [2, 3]])
        [[1, 2], [0, 3]]
    """
    part_of: Ids = np.empty(len(sizes), np.int32)
    for number, part in enumerate(parts):
        part_of[part] = number
    totals = np.bincount(part_of, sizes, len(parts)).astype(np.int64)
    for _ in range(_MOST_EXCHANGES):
        largest = int(np.argmax(totals))
        own, others = np.flatnonzero(part_of == largest), np.flatnonzero(part_of != largest)
        moved = sizes[own][:, None] - sizes[others]
        larger = np.maximum(totals[largest] - moved, totals[part_of[others]] + moved)
        if not larger.size or larger.min() >= totals[largest]:
            break
        given, taken = np.unravel_index(int(np.argmin(larger)), larger.shape)
        first, second = own[given], others[taken]
        tokens = sizes[first] - sizes[second]
        totals[largest] -= tokens
        totals[part_of[second]] += tokens
        part_of[[first, second]] = part_of[[second, first]]
    return [np.flatnonzero(part_of == number).tolist() for number in range(len(parts))]


def split_by_length(sizes: Offsets, parts: int) -> list[list[int]]:
    """Divide rows into parts of nearly equally many rows, each of similar lengths.

    Example:
        >>> split_by_length(np.array([9, 1, 1, 9]), parts=2)
        [[0, 3], [1, 2]]
    """
    return [sorted(part.tolist()) for part in np.array_split(np.argsort(-sizes, kind="stable"), parts)]


def _divide_share(sizes: Offsets, share: Offsets, batches: int, most: int) -> list[list[int]]:
    """Divide the rows of a process into its micro-batches, largest first."""
    own = sizes[share]
    return [share[part].tolist() for part in _largest_first(own, balance_by_size(own, batches, most))]


def _largest_first(sizes: Offsets, parts: list[list[int]]) -> list[list[int]]:
    return sorted(parts, key=lambda part: -int(sizes[part].sum()))
