"""How evenly the tokens of a step are divided over processes: `python -m benchmarks.balance [SHARDS ...]`.

Prints the tokens of the process that has most, over the mean of all processes: the mean and the worst of some steps of
shuffled rows. `in turn` is the simple way to divide a step, for comparison: rows are divided over all micro-batches at
once (LPT), and these are dealt out in turn, largest first. `possible` is 1, or the longest row over the mean where that
is more: no way to divide a step can do better. `work` counts the square of lengths, as attention does.

Rows are those of shards (their train split, packs as they are), or without shards log-normal lengths like those of
conversations, and packs of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import numpy as np

from sftkit.core.rows import INPUT_IDS, Offsets
from sftkit.core.splits import TRAIN
from sftkit.ordering.strategies.best_fit import pack_bfd
from sftkit.shards.reading import open_shards
from sftkit.training.data.balancing import balance_by_size, divide_step

_CASES = ((2, 1, 8), (4, 1, 8), (8, 1, 8), (8, 4, 4), (8, 8, 1), (2, 16, 1), (8, 1, 16))
"""(processes, micro-batches of each in a step, rows of a micro-batch)."""
_STEPS = 60
_PACK, _MEDIAN, _SPREAD, _ROWS, _SEED = 4096, 450, 0.9, 20_000, 7

Divide = Callable[[Offsets, int, int, int], list[list[int]]]


def main() -> None:
    """Print a line for each kind of rows and case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="*")
    for name, sizes in _rows(parser.parse_args().shards):
        sys.stdout.write(f"{name}: {len(sizes):,} rows of {sizes.mean():,.0f} tokens\n")
        for processes, batches, most in _CASES:
            if len(sizes) >= processes * batches * most:
                _print_case(sizes, processes, batches, most)


def _print_case(sizes: Offsets, processes: int, batches: int, most: int) -> None:
    order = np.random.default_rng(_SEED).permutation(len(sizes))
    rows = processes * batches * most
    steps = [sizes[order[start : start + rows]] for start in range(0, len(sizes) - rows + 1, rows)][:_STEPS]
    shown = []
    for name, divide in (("in turn", _in_turn), ("sftkit", _balanced)):
        shares = [_shares(divide(step, processes, batches, most), processes) for step in steps]
        tokens = [_uneven(step, of_step) for step, of_step in zip(steps, shares, strict=True)]
        work = [_uneven(step**2, of_step) for step, of_step in zip(steps, shares, strict=True)]
        shown.append(f"{name} {np.mean(tokens):.3f} (worst {max(tokens):.3f}, work {np.mean(work):.2f})")
    possible = [max(1, step.max() * processes / step.sum()) for step in steps]
    shown.append(f"possible {np.mean(possible):.3f} (worst {max(possible):.3f})")
    sys.stdout.write(f"  {processes} processes, {batches:2} x {most:2} rows each: {', '.join(shown)}\n")


def _in_turn(sizes: Offsets, processes: int, batches: int, most: int) -> list[list[int]]:
    parts = balance_by_size(sizes, processes * batches, most)
    return sorted(parts, key=lambda part: -int(sizes[part].sum()))


def _balanced(sizes: Offsets, processes: int, batches: int, most: int) -> list[list[int]]:
    return divide_step(sizes, processes, batches, most, padded=False)


def _shares(divided: Sequence[Sequence[int]], processes: int) -> list[list[int]]:
    """The rows of each process in a step."""
    return [[row for part in divided[process::processes] for row in part] for process in range(processes)]


def _uneven(sizes: Offsets, shares: Sequence[Sequence[int]]) -> float:
    totals = [int(sizes[share].sum()) for share in shares]
    return max(totals) / float(np.mean(totals))


def _rows(shards: Sequence[str]) -> list[tuple[str, Offsets]]:
    if shards:
        return [(name, _sizes_in(name)) for name in shards]
    chance = np.random.default_rng(_SEED)
    sizes = np.clip(chance.lognormal(np.log(_MEDIAN), _SPREAD, _ROWS), 8, _PACK).astype(np.int64)
    return [("log-normal", sizes), (f"packs of {_PACK:,}", pack_bfd(sizes, _PACK).sizes)]


def _sizes_in(shards: str) -> Offsets:
    tables = open_shards(shards).tables(TRAIN, [INPUT_IDS])
    return np.concatenate(
        [np.asarray(table.column(0).combine_chunks().value_lengths(), np.int64) for _, table in tables]
    )


if __name__ == "__main__":
    main()
