"""The packing strategies by name, and packing as the options of a run ask for it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from sftkit.config.schema.option_values import NO_PACKING
from sftkit.config.schema.order_choice import SHUFFLED, read_row_order
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.plugins import Registry, find_built_in, subclass_problem
from sftkit.core.rows import Ids, Offsets
from sftkit.errors import ConfigError, DataError
from sftkit.ordering import strategies
from sftkit.ordering.pack_count import divide_packs
from sftkit.ordering.packing_strategy import PackingStrategy, Packs, join_packs

PACKING_STRATEGIES: Registry[type[PackingStrategy]] = Registry(
    "packing", find_built_in(strategies, PackingStrategy), partial(subclass_problem, base=PackingStrategy)
)

_MULTIPLES = ("pad_pack_to_multiple_of", "pack_count_multiple_of")


def is_packed(options: DataOptions) -> bool:
    """Whether rows are packed."""
    return options.packing != NO_PACKING


def pack_length_of(options: DataOptions) -> int | None:
    """The most tokens that a pack may hold; None if rows are not packed."""
    return options.pack_length or options.max_seq_length if is_packed(options) else None


def keeps_rows_whole(packing: object) -> bool:
    """Whether a kind of packing, as configs and manifests name it, cuts no row.

    False for a strategy that is not installed here, because nothing is known about it.

    Example:
        >>> keeps_rows_whole("bfd"), keeps_rows_whole("wrapped"), keeps_rows_whole("none")
        (True, False, True)
    """
    if packing in (None, NO_PACKING):
        return True
    name = str(packing)
    return name in PACKING_STRATEGIES and PACKING_STRATEGIES[name]().keeps_rows_whole


def cuts_inside_packs(packing: object) -> bool:
    """Whether a kind of packing may put pieces of rows anywhere in a pack; False for one that is not installed here.

    Example:
        >>> cuts_inside_packs("bfd_split"), cuts_inside_packs("wrapped")
        (True, False)
    """
    name = str(packing)
    return name in PACKING_STRATEGIES and PACKING_STRATEGIES[name].cuts_inside_packs


def keeps_order(options: DataOptions) -> bool:
    """Whether packs are in the order of their rows, so that they must not be shuffled."""
    return options.pack_window is not None or PACKING_STRATEGIES[options.packing].keeps_order


def check_packing(options: DataOptions) -> None:
    """Raise `ConfigError` if the packing strategy cannot be used, or would undo the order of rows that is asked for."""
    if not is_packed(options):
        return
    _ = PACKING_STRATEGIES[options.packing]
    order = read_row_order(options.dataprocessor.order)
    if order is not None and order.kind != SHUFFLED and not keeps_order(options):
        raise ConfigError(
            f"order={order} is lost in packs of packing={options.packing}, which are shuffled; set packing=next_fit, "
            "which keeps the order of rows, or pack_window to pack some rows after the other"
        )


def packing_identity(options: DataOptions) -> list[Any]:
    """What decides which rows share a pack, as JSON can hold it; [] if rows are not packed."""
    if not is_packed(options):
        return []
    identity = [options.packing, pack_length_of(options), options.overflow]
    plugin = PACKING_STRATEGIES.identity(options.packing)
    window = [] if options.pack_window is None else [options.pack_window]
    multiples = [{key: value} for key in _MULTIPLES if (value := getattr(options, key)) != 1]
    return [*identity, *window, *([] if plugin is None else [plugin]), *multiples]


def make_packs(lengths: Offsets | Ids, options: DataOptions, multiple: int = 1) -> Packs:
    """Pack rows as the options ask for it.

    Args:
        lengths: tokens of each row, shape (rows,).
        options: with a `packing` that is not `none`.
        multiple: each row takes the room of a multiple of so many tokens, for formats that pad it. Only for strategies
            that keep rows whole.

    Raises:
        DataError: a strategy of another package lost or repeated tokens, or exceeded the pack length; or there are too
            few sequences for a multiple of `pack_count_multiple_of` packs.
    """
    capacity = pack_length_of(options)
    assert capacity is not None
    strategy = PACKING_STRATEGIES[options.packing]()
    full = lengths
    if strategy.keeps_rows_whole:
        lengths = np.minimum(lengths, capacity)  # longer rows were dropped, or are cut when they are written
    room = lengths if multiple == 1 else -(-lengths.astype(np.int64) // multiple) * multiple
    packs = _packs_of_windows(strategy, room, capacity, options.pack_window)
    if PACKING_STRATEGIES.identity(options.packing) is not None:
        problem = _problem_with(packs, np.asarray(room, np.int64), capacity, strategy)
        if problem is not None:
            raise DataError(f"packing={options.packing}: {problem}; this must be fixed in the package that provides it")
    if multiple != 1:
        packs = replace(packs, lengths=np.asarray(lengths, packs.lengths.dtype)[packs.rows])
    packs = divide_packs(packs, options.pack_count_multiple_of)
    if strategy.keeps_rows_whole and options.overflow == "truncate_left":
        starts = np.asarray(full, np.int64)[packs.rows] - packs.lengths
        return replace(packs, starts=starts.astype(np.int32))
    return packs


def _packs_of_windows(strategy: PackingStrategy, lengths: Offsets | Ids, capacity: int, window: int | None) -> Packs:
    """Pack the rows of each window by themselves, and put the packs of a window in the order of their first rows."""
    if window is None:
        return strategy.pack(lengths, capacity)
    parts = []
    for start in range(0, len(lengths), window):
        packs = strategy.pack(lengths[start : start + window], capacity)
        packs = packs.take(np.argsort(np.minimum.reduceat(packs.rows, packs.offsets[:-1]), kind="stable"))
        parts.append(replace(packs, rows=packs.rows + np.int32(start)))
    return join_packs(parts)


def _problem_with(packs: Packs, lengths: Offsets, capacity: int, strategy: PackingStrategy) -> str | None:
    """Say what is wrong with packs; None if they hold every token once and are not too long."""
    offsets, pieces = packs.offsets, len(packs.rows)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != pieces or (np.diff(offsets) < 1).any():
        return "a pack has no rows, or rows that no pack has"
    if pieces and not 0 <= packs.rows.min() <= packs.rows.max() < len(lengths):
        return "a pack has a row that does not exist"
    if len(packs) and packs.sizes.max() > capacity:
        return f"a pack has {packs.sizes.max()} tokens, more than pack_length={capacity}"
    order = np.lexsort((packs.starts, packs.rows))
    rows, starts, sizes = packs.rows[order], packs.starts[order], packs.lengths[order]
    begins_row = np.diff(rows, prepend=-1) != 0
    expected = np.where(begins_row, 0, np.append(0, (starts + sizes)[:-1]))
    tokens = np.bincount(packs.rows, weights=packs.lengths, minlength=len(lengths))
    if (sizes < 1).any() or (starts != expected).any() or not np.array_equal(tokens, lengths):
        return "a token of some row is in no pack or in several"
    if strategy.keeps_rows_whole and not begins_row.all():
        return "a row is cut, although the strategy keeps rows whole"
    cut_start = packs.starts > 0
    cut_end = packs.starts + packs.lengths < lengths[packs.rows]
    cut_start[packs.offsets[:-1]] = cut_end[packs.offsets[1:] - 1] = False
    if (cut_start | cut_end).any() and not strategy.cuts_inside_packs:
        return "a row is cut in the middle of a pack"
    return None
