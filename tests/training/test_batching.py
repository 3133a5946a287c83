from __future__ import annotations

from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.training.data.balancing import balance_by_size, divide_step, split_by_length
from sftkit.training.data.batching import (
    Batcher,
    RowBatcher,
    StepLayout,
    TokenBatcher,
)
from sftkit.training.data.epoch_order import EpochOrder, Shuffling
from sftkit.training.data.rows.split_rows import SplitRows

from .material import open_rows, row_numbers

SHUFFLED = Shuffling(window_tokens=10_000, seed=3, shuffled=True)
LENGTHS = st.lists(st.integers(2, 30), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory) -> SplitRows:
    lengths = np.random.default_rng(0).integers(2, 40, 50).tolist()
    return open_rows(tmp_path_factory.mktemp("fifty"), lengths)


def epoch_of(batches: Batcher, rows: SplitRows, processes: int, epoch: int) -> list[list[list[int]]]:
    """The numbers of the rows of each micro-batch of each process."""
    return [
        [row_numbers(rows, batches.rows(epoch, number, process)) for process in range(processes)]
        for number in range(batches.batches_per_epoch)
    ]


@given(LENGTHS, st.integers(0, 3), st.sampled_from([10_000, 40]), st.booleans(), st.sampled_from([None, 8]))
@settings(max_examples=40)
def test_every_row_comes_once_in_an_epoch_started_at_any_position(
    lengths: list[int], epoch: int, window: int, shuffled: bool, block: int | None
) -> None:
    with TemporaryDirectory() as folder:
        rows = open_rows(Path(folder), lengths)
        shuffling = Shuffling(window, 5, shuffled, block)
        whole = EpochOrder(rows, shuffling, epoch).rows(0, len(lengths))
        assert sorted(row_numbers(rows, whole)) == list(range(len(lengths)))
        if not shuffled and block is None:
            assert row_numbers(rows, whole) == list(range(len(lengths)))
        cut = len(lengths) // 3
        fresh = EpochOrder(rows, shuffling, epoch)
        assert fresh.rows(cut, len(lengths)).tolist() == whole[cut:].tolist()
        assert fresh.rows(0, cut).tolist() == whole[:cut].tolist()


def test_the_order_depends_on_epoch_and_seed_and_is_reproducible(fifty: SplitRows) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return row_numbers(fifty, EpochOrder(fifty, Shuffling(10_000, seed, True), epoch).rows(0, 50))

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6


def test_rows_are_shuffled_within_windows_of_row_groups(tmp_path: Path) -> None:
    rows = open_rows(tmp_path, [10] * 48, group=4)  # row groups of 40 tokens
    order = EpochOrder(rows, Shuffling(100, 1, True), 0)
    assert [len(window) for window in order.windows] == [2] * 6
    for start in range(0, 48, 8):
        groups = {number // 4 for number in row_numbers(rows, order.rows(start, start + 8))}
        assert len(groups) == 2


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("processes", "accumulation", "rows_per_micro_batch"), [(1, 1, 8), (2, 1, 4), (1, 4, 2), (4, 2, 1)]
)
def test_a_step_has_the_same_rows_however_it_is_divided(
    fifty: SplitRows, processes: int, accumulation: int, rows_per_micro_batch: int, padded: bool
) -> None:
    layout = StepLayout(accumulation, processes, padded)
    batches = RowBatcher(fifty, SHUFFLED, layout, rows_per_micro_batch, drop_last=False)
    for epoch in (0, 1):
        made = epoch_of(batches, fifty, processes, epoch)
        assert all(len(part) <= rows_per_micro_batch for parts in made for part in parts)
        order = row_numbers(fifty, EpochOrder(fifty, SHUFFLED, epoch).rows(0, 50))
        for step in range(7):  # 50 rows, 8 per step: the last one has 2
            parts = made[step * accumulation : (step + 1) * accumulation]
            rows = sorted(row for micro in parts for part in micro for row in part)
            assert rows == sorted(order[step * 8 : step * 8 + 8])


@given(LENGTHS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.booleans(), st.booleans())
@settings(max_examples=40)
def test_row_batches_hold_every_row_once_unless_the_last_step_is_dropped(
    lengths: list[int], processes: int, accumulation: int, rows_per_micro_batch: int, padded: bool, drop_last: bool
) -> None:
    with TemporaryDirectory() as folder:
        rows = open_rows(Path(folder), lengths)
        layout = StepLayout(accumulation, processes, padded)
        batches = RowBatcher(rows, SHUFFLED, layout, rows_per_micro_batch, drop_last=drop_last)
        made = sorted(row for parts in epoch_of(batches, rows, processes, 1) for part in parts for row in part)
    step = rows_per_micro_batch * processes * accumulation
    dropped = len(lengths) % step if drop_last and len(lengths) >= step else 0  # never all rows
    assert len(made) == len(set(made)) == len(lengths) - dropped


@given(LENGTHS, st.integers(1, 3), st.integers(1, 2), st.integers(20, 90), st.booleans())
@settings(max_examples=40)
def test_token_batches_hold_every_row_once_and_no_more_tokens_than_allowed(
    lengths: list[int], processes: int, accumulation: int, tokens: int, padded: bool
) -> None:
    with TemporaryDirectory() as folder:
        rows = open_rows(Path(folder), lengths)
        layout = StepLayout(accumulation, processes, padded)
        batches = TokenBatcher(rows, SHUFFLED, layout, tokens, drop_last=False)
        epochs = [epoch_of(batches, rows, processes, epoch) for epoch in (0, 1)]
    for made in epochs:
        assert sorted(row for parts in made for part in parts for row in part) == list(range(len(lengths)))
        for part in (part for parts in made for part in parts if len(part) > 1):
            sizes = [lengths[row] for row in part]
            assert (max(sizes) * len(sizes) if padded else sum(sizes)) <= tokens
    if processes == 1 or padded:  # otherwise, the rows of a step are divided again
        shared = [sorted(sorted(part) for parts in made for part in parts if part) for made in epochs]
        assert shared[0] == shared[1]  # which rows share a batch is fixed, the order of batches is not


def test_processes_get_the_same_number_of_tokens_with_a_limit_of_tokens(tmp_path: Path) -> None:
    lengths = np.clip(np.random.default_rng(5).lognormal(3, 0.9, 2000), 2, 120).astype(int).tolist()
    rows = open_rows(tmp_path, lengths)
    batches = TokenBatcher(rows, SHUFFLED, StepLayout(2, 4, False), 400, drop_last=True)
    made = epoch_of(batches, rows, 4, 0)
    steps = [
        [made[number][process] + made[number + 1][process] for process in range(4)] for number in range(0, len(made), 2)
    ]
    totals = np.array([[sum(lengths[row] for row in of_process) for of_process in step] for step in steps])
    assert (totals.max(axis=1) / totals.mean(axis=1)).mean() < 1.02


def test_token_batches_are_the_same_for_any_number_of_processes(fifty: SplitRows) -> None:
    def steps(processes: int, accumulation: int) -> list[list[int]]:
        batches = TokenBatcher(fifty, SHUFFLED, StepLayout(accumulation, processes, False), 100, drop_last=True)
        made = epoch_of(batches, fifty, processes, 2)
        parts = [part for micro in made for part in micro]
        return [sorted(chain(*parts[start : start + 4])) for start in range(0, len(parts), 4)]

    assert steps(1, 4) == steps(2, 2) == steps(4, 1)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60), st.integers(1, 8))
def test_rows_are_divided_evenly(sizes: list[int], parts: int) -> None:
    most = -(-len(sizes) // parts)
    for divided in (balance_by_size(np.array(sizes), parts, most), split_by_length(np.array(sizes), parts)):
        assert sorted(row for part in divided for row in part) == list(range(len(sizes)))
        assert max(len(part) for part in divided) <= most
    assert balance_by_size(np.array([9, 1, 1, 9]), 2, 2) == [[0, 1], [2, 3]]
    assert split_by_length(np.array([9, 1, 1, 9]), 2) == [[0, 3], [1, 2]]


@pytest.mark.parametrize("processes", [2, 4, 8])
@pytest.mark.parametrize(("batches", "most"), [(1, 8), (4, 4), (8, 1)])
def test_processes_get_the_same_number_of_tokens_within_two_percent(processes: int, batches: int, most: int) -> None:
    chance = np.random.default_rng(5)
    for _ in range(10):
        sizes = np.clip(chance.lognormal(np.log(450), 0.9, processes * batches * most), 8, 2048).astype(np.int64)
        divided = divide_step(sizes, processes, batches, most, padded=False)
        assert sorted(row for part in divided for row in part) == list(range(len(sizes)))
        assert max(map(len, divided)) <= most
        totals = [sum(int(sizes[part].sum()) for part in divided[process::processes]) for process in range(processes)]
        assert max(totals) <= 1.02 * max(np.mean(totals), sizes.max())


def test_rows_of_similar_length_can_share_a_step(fifty: SplitRows) -> None:
    grouped = RowBatcher(fifty, Shuffling(10_000, 3, True, 10), StepLayout(1, 1, True), 10, drop_last=False)
    plain = RowBatcher(fifty, SHUFFLED, StepLayout(1, 1, True), 10, drop_last=False)

    def spread(batches: RowBatcher) -> int:
        sizes = [fifty.sizes(batches.rows(0, number, 0)) for number in range(5)]
        return int(sum(part.max() - part.min() for part in sizes))

    assert spread(grouped) * 3 < spread(plain)
