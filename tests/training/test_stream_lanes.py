"""Streaming: every process reads only its part of the row groups, and together they train as one process does."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.shards.reading import open_shards
from sftkit.training.data.batching import StepLayout
from sftkit.training.data.epoch_order import Shuffling
from sftkit.training.data.rows.open_split import open_split
from sftkit.training.data.rows.row_groups import RowGroup
from sftkit.training.data.stream_batches import LaneBatcher
from sftkit.training.data.stream_lanes import LaneSet

from .material import row_numbers, write_layout, write_manifest

Layout = list[list[list[int]]]
"""Files of row groups of rows, by their tokens."""

Group = tuple[str, int]
"""A row group: the name of its file, and its index there."""

WORLDS = {1: (12, 1), 2: (3, 2), 3: (2, 2), 4: (1, 3)}
"""Number of processes -> accumulation steps and rows of a micro-batch. A step always has 12 rows."""

LAYOUTS = st.lists(
    st.lists(st.lists(st.integers(4, 12), min_size=1, max_size=9), min_size=0, max_size=4), min_size=1, max_size=5
).filter(any)


class Process:
    """One of several processes that train together; records which row groups it reads and how much it caches."""

    def __init__(
        self,
        folder: Path,
        shuffling: Shuffling,
        world: int,
        number: int,
        *,
        padded: bool = False,
        drop_last: bool = False,
    ) -> None:
        accumulation, rows_per_micro_batch = WORLDS[world]
        self.rows = open_split(open_shards(str(folder)), "train", 10_000, None, shuffling.window_tokens, streaming=True)
        self.number = number
        self.accumulation = accumulation
        self.rows_per_micro_batch = rows_per_micro_batch
        self.read: list[Group] = []
        self.most_cached = 0  # tokens
        layout = StepLayout(accumulation, world, padded)
        self.batches = LaneBatcher(self.rows, shuffling, layout, rows_per_micro_batch, drop_last=drop_last)
        self._original_read = self.rows._read
        self.rows._read = self._read  # type: ignore[method-assign]

    def _read(self, number: int) -> RowGroup:
        place = self.rows.locations[number]
        self.read.append((place.path.name, place.index))
        self.most_cached = max(self.most_cached, self.rows._cached_tokens() + place.tokens)
        return self._original_read(number)

    def steps(self, epoch: int, first: int = 0) -> list[list[int]]:
        """The numbers of the rows that this process takes in each step from `first` on."""
        micro = []
        for number in range(first * self.accumulation, self.batches.batches_per_epoch):
            refs = self.batches.rows(epoch, number, self.number)
            assert len(refs) <= self.rows_per_micro_batch
            micro.append(row_numbers(self.rows, refs))
        starts = range(0, len(micro), self.accumulation)
        return [[*chain(*micro[start : start + self.accumulation])] for start in starts]


def processes(folder: Path, shuffling: Shuffling, world: int, **settings: bool) -> list[Process]:
    return [Process(folder, shuffling, world, number, **settings) for number in range(world)]


def together(found: Sequence[Process], epoch: int, first: int = 0) -> list[list[int]]:
    """The sorted numbers of the rows of all processes in each step from `first` on."""
    # With unequal numbers of micro-batches, a process would wait for the others forever.
    assert len({process.batches.batches_per_epoch for process in found}) == 1
    each = [process.steps(epoch, first) for process in found]
    return [sorted(chain(*parts)) for parts in zip(*each, strict=True)]


EPOCHS = st.tuples(
    LAYOUTS,
    st.integers(0, 3),
    st.sampled_from([20, 60, 150, 10_000]),
    st.booleans(),
    st.booleans(),
    st.fixed_dictionaries({"padded": st.booleans(), "drop_last": st.booleans()}),
)
"""Layout, number of the epoch, tokens of a window, whether rows are shuffled, whether they are packs, other options."""


def check_epoch(
    layout: Layout, epoch: int, window: int, shuffled: bool, packed: bool, options: dict[str, bool]
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        count = write_layout(folder, layout, packed=packed)
        if count % 2:  # footers are then read when their files are reached
            write_manifest(folder, *[sum(map(len, groups)) for groups in layout])
        shuffling = Shuffling(window, 5, shuffled)
        chance = random.Random(count)
        expected = together(processes(folder, shuffling, 1, **options), epoch)
        rows = [row for step in expected for row in step]
        dropped = count % 12 if options["drop_last"] and count > 12 else 0
        assert len(rows) == len(set(rows)) == count - dropped
        assert [len(step) for step in expected[:-1]] == [12] * (len(expected) - 1)
        for world in (2, 3, 4):
            found = processes(folder, shuffling, world, **options)
            assert together(found, epoch) == expected
            assert all(max(Counter(process.read).values(), default=0) <= 2 for process in found)
            # Another number of processes resumes at some step, without having read anything before it.
            first = chance.randrange(len(expected))
            resumed = processes(folder, shuffling, chance.choice([*WORLDS]), **options)
            assert together(resumed, epoch, first) == expected[first:]


@given(EPOCHS)
@settings(max_examples=8)
def test_every_row_comes_once_in_an_epoch_in_the_same_step_for_any_number_of_processes(case: tuple[Any, ...]) -> None:
    check_epoch(*case)


@pytest.mark.slow
@given(EPOCHS)
@settings(max_examples=60)
def test_every_row_comes_once_in_the_same_step_in_many_layouts(case: tuple[Any, ...]) -> None:
    check_epoch(*case)


@dataclass(frozen=True)
class Case:
    """A split with row groups of 6 rows of 10 tokens."""

    files: int

    groups: int
    """Row groups of a file."""

    window: int
    """Row groups that fit into the shuffle window."""

    lanes: int

    worlds: tuple[int, ...]
    """Numbers of processes to try."""


@pytest.mark.parametrize(
    "case",
    [
        Case(files=4, groups=6, window=12, lanes=12, worlds=(1, 2, 3, 4)),
        Case(files=24, groups=1, window=12, lanes=12, worlds=(1, 2, 3, 4)),
        Case(files=1, groups=24, window=4, lanes=4, worlds=(1, 2, 4)),
        Case(files=5, groups=12, window=48, lanes=12, worlds=(1, 2, 4)),  # lanes have windows of four row groups
    ],
    ids=["files of six groups", "files of one group", "one file", "large windows"],
)
def test_each_process_reads_and_caches_only_its_part(tmp_path: Path, case: Case) -> None:
    layout = [[[10] * 6] * case.groups] * case.files
    write_layout(tmp_path, layout)
    shuffling = Shuffling(60 * case.window, 5, True)
    groups = case.files * case.groups
    for world in case.worlds:
        found = processes(tmp_path, shuffling, world)
        together(found, 1)
        # Only the row group at the start of a lane can belong to two lanes, and so to two processes.
        assert sum(len(process.read) for process in found) <= groups + case.lanes
        shared = Counter(group for process in found for group in set(process.read))
        assert len(shared) == groups
        assert sum(shared.values()) <= groups + (world if world > 1 else 0)
        assert max(process.most_cached for process in found) <= shuffling.window_tokens // world + 60
        for process in found:
            known = process.batches._lanes_of(1)._lanes
            assert len(known) == case.lanes // world
            assert max(len(lane._ordered) for lane in known.values()) <= 2


def test_a_lane_reads_the_footers_of_the_files_that_it_reaches(tmp_path: Path) -> None:
    write_layout(tmp_path, [[[10] * 6]] * 40)
    write_manifest(tmp_path, *[6] * 40)
    [_, _, third, _] = processes(tmp_path, Shuffling(240, 5, True), 4)
    assert len(third.rows.locations) == 1  # that of the first file tells the size of row groups
    third.batches.rows(0, 0, 2)
    assert len(third.rows.locations) <= 3  # that of its first row, and the next one, which may fit into the window
    third.steps(0)
    assert len(third.rows.locations) <= 1 + 60 // 6 + 2
    assert len(third.rows) == 240


def test_a_resumed_run_does_not_read_earlier_rows(tmp_path: Path) -> None:
    write_layout(tmp_path, [[[10] * 6] * 4] * 10)
    shuffling = Shuffling(240, 5, True)
    [whole] = processes(tmp_path, shuffling, 1)
    steps = whole.steps(0)
    [resumed] = processes(tmp_path, shuffling, 1)
    assert resumed.steps(0, 15) == steps[15:]
    assert len(resumed.read) <= 40 // 4 + 2 * 4  # a quarter, and row groups at the ends of lanes and of started windows


def test_the_order_depends_on_epoch_and_seed_and_is_reproducible(tmp_path: Path) -> None:
    count = write_layout(tmp_path, [[[5] * 4] * 5] * 3)

    def order(seed: int, epoch: int) -> tuple[tuple[int, ...], ...]:
        return tuple(map(tuple, together(processes(tmp_path, Shuffling(100, seed, True), 2), epoch)))

    assert order(1, 0) == order(1, 0)
    found = {order(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)}
    assert len(found) == 6
    assert all(sorted(chain(*steps)) == list(range(count)) for steps in found)


def test_every_epoch_starts_at_another_row(tmp_path: Path) -> None:
    write_layout(tmp_path, [[[10] * 12] * 8])
    [process] = processes(tmp_path, Shuffling(120, 5, True), 1)  # a window is one row group: one lane
    firsts = {frozenset(row // 12 for row in process.steps(epoch)[0]) for epoch in range(6)}
    assert len(firsts) > 2


def test_rows_are_shuffled_within_the_windows_of_lanes(tmp_path: Path) -> None:
    write_layout(tmp_path, [[[10] * 12] * 24])
    shuffling = Shuffling(480, 5, True)  # four lanes, with windows of one row group
    [process] = processes(tmp_path, shuffling, 1)
    assert len({row // 12 for row in chain(*process.steps(0)[:4])}) <= 8
    lanes = LaneSet(process.rows, shuffling, 0, 4, 12)
    lane = [row for step in range(4) for row in row_numbers(process.rows, lanes.rows(step, 0, 3))]
    assert len({row // 12 for row in lane}) <= 2
    assert lane != sorted(lane)


def test_every_lane_is_shuffled_differently_in_every_epoch(tmp_path: Path) -> None:
    write_layout(tmp_path, [[[10] * 24]])
    [process] = processes(tmp_path, Shuffling(10_000, 5, True), 1)
    found = set()
    for epoch in range(3):
        lanes = LaneSet(process.rows, Shuffling(10_000, 5, True), epoch, 2, 4)
        for start in (0, 2):
            lane = [row for step in range(6) for row in row_numbers(process.rows, lanes.rows(step, start, start + 2))]
            [first] = {row for row in lane if (row - 1) % 24 not in lane}
            found.add(tuple((row - first) % 24 for row in lane))
    assert len(found) == 6


def test_lanes_have_larger_windows_if_a_step_has_fewer_rows_than_the_window_has_row_groups(tmp_path: Path) -> None:
    write_layout(tmp_path, [[[10] * 12] * 96])
    [process] = processes(tmp_path, Shuffling(120 * 48, 5, True), 1)  # 12 lanes, with windows of four row groups
    assert len({row // 12 for row in chain(*process.steps(0)[:4])}) > 2 * 12


@pytest.mark.parametrize("world", [1, 2, 4])
def test_unshuffled_rows_keep_the_order_of_the_files(tmp_path: Path, world: int) -> None:
    count = write_layout(tmp_path, [[[3] * 5, [3] * 2], [[3] * 9], [[3] * 14]])
    found = processes(tmp_path, Shuffling(10_000, 5, False), world)
    for epoch in (0, 1):
        rows = [row for step in together(found, epoch) for row in step]
        assert rows == list(range(count))


def test_more_processes_than_lanes_give_a_warning_with_the_window_they_need(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_layout(tmp_path, [[[10] * 6] * 6] * 2)
    processes(tmp_path, Shuffling(150, 5, True), 4)[0].steps(0)
    warning = (
        "streaming: with shuffle_window=150 some of the 4 processes read the same row groups; "
        "set shuffle_window=240 to give each process its own"
    )
    assert (
        caplog.messages == [warning] * 4
    )  # only the main process of a launch warns, but here each one is a main process
    caplog.clear()
    found = processes(tmp_path, Shuffling(240, 5, True), 4)
    together(found, 0)
    shared = Counter(group for process in found for group in set(process.read))
    assert max(shared.values()) == 2
    processes(tmp_path, Shuffling(10, 5, False), 4)
    assert caplog.messages == []


def test_batches_can_be_pickled_for_a_worker_process(tmp_path: Path) -> None:
    write_layout(tmp_path, [[[10] * 6] * 6] * 2)
    rows = open_split(open_shards(str(tmp_path)), "train", 1000, None, 240, streaming=True)
    batches = LaneBatcher(rows, Shuffling(240, 5, True), StepLayout(1, 2, False), 6, drop_last=False)
    taken = batches.rows(0, 0, 1).tolist()
    sent: LaneBatcher = pickle.loads(pickle.dumps(batches))
    assert sent.rows(0, 0, 1).tolist() == taken
    assert sent.rows(0, 1, 1).tolist() == batches.rows(0, 1, 1).tolist()
