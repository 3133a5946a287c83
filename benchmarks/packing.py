"""Time and fill rate of packing on one core: `python -m benchmarks.packing [ROWS]`.

Lengths are log-normal, like those of conversations, and, for the longest packs, also uniform, where few rows have the
same length and can be packed together. The floor is the time numpy takes to sort the same lengths, which any best-fit
decreasing has to do first.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from sftkit.core.rows import Ids
from sftkit.ordering.packing_strategy import Packs
from sftkit.ordering.strategies.best_fit import pack_bfd
from sftkit.ordering.strategies.best_fit_split import pack_bfd_split
from sftkit.ordering.strategies.next_fit import pack_next_fit
from sftkit.ordering.strategies.wrapped import pack_wrapped

T = TypeVar("T")

_ROWS = 10_000_000
_CASES = (
    ("log-normal", 2048),
    ("log-normal", 4096),
    ("log-normal", 32_768),
    ("log-normal", 131_072),
    ("even", 131_072),
)
_STRATEGIES = (
    ("bfd", pack_bfd),
    ("bfd_split", pack_bfd_split),
    ("next_fit", pack_next_fit),
    ("wrapped", pack_wrapped),
)
_MEDIAN, _SPREAD = 450, 0.9
_SEED = 7


def main() -> None:
    """Print a line per case: seconds, rows per second, fill rate, and the time compared with the floor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="?", type=int, default=_ROWS)
    rows = parser.parse_args().rows
    sys.stdout.write(f"{rows:,} rows; floor: np.argsort(kind='stable') of their lengths\n")
    for kind, capacity in _CASES:
        lengths = _lengths(kind, rows, capacity)
        floor, _ = _timed(lambda column: np.argsort(column, kind="stable"), lengths)
        for name, pack in _STRATEGIES:
            seconds, packs = _timed(partial(_packed, pack, capacity), lengths)
            sys.stdout.write(
                f"{name:10}{capacity:8,} {kind:11}{seconds:7.2f} s {rows / seconds / 1e6:6.1f} M rows/s "
                f"{_fill(packs, lengths, capacity):8.2%} full, floor {floor:.2f} s ({seconds / floor:.1f} times)\n"
            )
    sys.stdout.write(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB\n")


def _packed(pack: Callable[[Ids, int], Packs], capacity: int, lengths: Ids) -> Packs:
    return pack(lengths, capacity)


def _lengths(kind: str, rows: int, capacity: int) -> Ids:
    chance = np.random.default_rng(_SEED)
    if kind == "even":
        return chance.integers(1, capacity + 1, rows).astype(np.int32)
    median = _MEDIAN if capacity < 1 << 15 else 4 * _MEDIAN
    return np.clip(chance.lognormal(np.log(median), _SPREAD, rows), 8, capacity).astype(np.int32)


def _timed(work: Callable[[Ids], T], lengths: Ids) -> tuple[float, T]:
    began = time.process_time()
    result = work(lengths)
    return time.process_time() - began, result


def _fill(packs: Packs, lengths: Ids, capacity: int) -> float:
    return float(lengths.sum(dtype=np.int64)) / (len(packs) * capacity)


if __name__ == "__main__":
    main()
