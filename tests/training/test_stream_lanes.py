"""Streaming: every process reads its part of the row groups alone, and all together train as one process does."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.shards.reading import open_shards
from sftkit.training.data.batching import StepLayout
from sftkit.training.data.epoch_order import Shuffling
from sftkit.training.data.row_groups import RowGroup
from sftkit.training.data.split_rows import open_split
from sftkit.training.data.stream_batches import LaneBatcher
from sftkit.training.data.stream_lanes import LaneSet

from .material import numbers, write_laid_out, write_manifest

Layout = list[list[list[int]]]
"""Files of row groups of rows, by their tokens."""

Group = tuple[str, int]
"""A row group: its file, and its number there."""

WORLDS = {1: (12, 1), 2: (3, 2), 3: (2, 2), 4: (1, 3)}
"""Processes -> accumulation and rows of a micro-batch: a step has 12 rows."""

LAYOUTS = st.lists(
    st.lists(st.lists(st.integers(4, 12), min_size=1, max_size=9), min_size=0, max_size=4), min_size=1, max_size=5
).filter(any)


class Process:
    """One of several that train together: what it makes of the data, what it reads and holds."""

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
        self.most_held = 0  # tokens
        sharing = StepLayout(accumulation, world, padded)
        self.batches = LaneBatcher(self.rows, shuffling, sharing, rows_per_micro_batch, drop_last=drop_last)
        self._reading = self.rows._read
        self.rows._read = self._noted  # type: ignore[method-assign]

    def _noted(self, number: int) -> RowGroup:
        place = self.rows.locations[number]
        self.read.append((place.path.name, place.index))
        self.most_held = max(self.most_held, self.rows._weight() + place.tokens)
        return self._reading(number)

    def steps(self, epoch: int, first: int = 0) -> list[list[int]]:
        """The rows that this process takes in each step from one on."""
        micro = []
        for number in range(first * self.accumulation, self.batches.batches_per_epoch):
            refs = self.batches.rows(epoch, number, self.number)
            assert len(refs) <= self.rows_per_micro_batch
            micro.append(numbers(self.rows, refs))
        starts = range(0, len(micro), self.accumulation)
        return [[*chain(*micro[start : start + self.accumulation])] for start in starts]


def processes(folder: Path, shuffling: Shuffling, world: int, **settings: bool) -> list[Process]:
    return [Process(folder, shuffling, world, number, **settings) for number in range(world)]


def together(found: Sequence[Process], epoch: int, first: int = 0) -> list[list[int]]:
    """The rows of every step from one on, of all processes, in order of their numbers."""
    assert (
        len({process.batches.batches_per_epoch for process in found}) == 1
    )  # or one would wait for the others for ever
    each = [process.steps(epoch, first) for process in found]
    return [sorted(chain(*parts)) for parts in zip(*each, strict=True)]


@given(
    LAYOUTS,
    st.integers(0, 3),
    st.sampled_from([20, 60, 150, 10_000]),
    st.booleans(),
    st.booleans(),
    st.fixed_dictionaries({"padded": st.booleans(), "drop_last": st.booleans()}),
)
@settings(max_examples=30, deadline=None)
def test_every_row_comes_once_an_epoch_in_the_same_step_however_many_processes_there_are(
    layout: Layout, epoch: int, window: int, shuffled: bool, packed: bool, how: dict[str, bool]
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        count = write_laid_out(folder, layout, packed=packed)
        if count % 2:  # files are then looked into as they are reached
            write_manifest(folder, *[sum(map(len, groups)) for groups in layout])
        shuffling = Shuffling(window, 5, shuffled)
        chance = random.Random(count)
        expected = together(processes(folder, shuffling, 1, **how), epoch)
        rows = [row for step in expected for row in step]
        dropped = count % 12 if how["drop_last"] and count > 12 else 0
        assert len(rows) == len(set(rows)) == count - dropped
        assert [len(step) for step in expected[:-1]] == [12] * (len(expected) - 1)
        for world in (2, 3, 4):
            found = processes(folder, shuffling, world, **how)
            assert together(found, epoch) == expected
            assert all(max(Counter(process.read).values(), default=0) <= 2 for process in found)
            # Another number of processes goes on, from a step before which it has seen nothing.
            first = chance.randrange(len(expected))
            resumed = processes(folder, shuffling, chance.choice([*WORLDS]), **how)
            assert together(resumed, epoch, first) == expected[first:]


@dataclass(frozen=True)
class Case:
    """Row groups of 6 rows of 10 tokens; so many a file, so many fit into the window. worlds: numbers of processes."""

    files: int
    groups: int
    window: int
    lanes: int
    worlds: tuple[int, ...]


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
def test_each_process_reads_and_holds_its_part_alone(tmp_path: Path, case: Case) -> None:
    layout = [[[10] * 6] * case.groups] * case.files
    write_laid_out(tmp_path, layout)
    shuffling = Shuffling(60 * case.window, 5, True)
    groups = case.files * case.groups
    for world in case.worlds:
        found = processes(tmp_path, shuffling, world)
        together(found, 1)
        # Only where a lane begins may a row group be of two lanes, and then of two processes.
        assert sum(len(process.read) for process in found) <= groups + case.lanes
        shared = Counter(group for process in found for group in set(process.read))
        assert len(shared) == groups
        assert sum(shared.values()) <= groups + (world if world > 1 else 0)
        assert max(process.most_held for process in found) <= shuffling.window_tokens // world + 60
        for process in found:
            known = process.batches._lanes_of(1)._lanes
            assert len(known) == case.lanes // world
            assert max(len(lane._drawn) for lane in known.values()) <= 2


def test_a_lane_looks_into_the_files_that_it_reaches(tmp_path: Path) -> None:
    write_laid_out(tmp_path, [[[10] * 6]] * 40)
    write_manifest(tmp_path, *[6] * 40)
    [_, _, third, _] = processes(tmp_path, Shuffling(240, 5, True), 4)
    assert len(third.rows.locations) == 1  # the first file tells how large row groups are
    third.batches.rows(0, 0, 2)
    assert len(third.rows.locations) <= 3  # that of its first row, and the one after: does it fit into the window?
    third.steps(0)
    assert len(third.rows.locations) <= 1 + 60 // 6 + 2
    assert len(third.rows) == 240


def test_to_go_on_reads_no_row_of_before(tmp_path: Path) -> None:
    write_laid_out(tmp_path, [[[10] * 6] * 4] * 10)
    shuffling = Shuffling(240, 5, True)
    [whole] = processes(tmp_path, shuffling, 1)
    steps = whole.steps(0)
    [resumed] = processes(tmp_path, shuffling, 1)
    assert resumed.steps(0, 15) == steps[15:]
    assert len(resumed.read) <= 40 // 4 + 2 * 4  # a quarter, and the ends of lanes and of the windows that are begun


def test_epochs_and_seeds_differ_and_repeat(tmp_path: Path) -> None:
    count = write_laid_out(tmp_path, [[[5] * 4] * 5] * 3)

    def order(seed: int, epoch: int) -> tuple[tuple[int, ...], ...]:
        return tuple(map(tuple, together(processes(tmp_path, Shuffling(100, seed, True), 2), epoch)))

    assert order(1, 0) == order(1, 0)
    found = {order(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)}
    assert len(found) == 6
    assert all(sorted(chain(*steps)) == list(range(count)) for steps in found)


def test_an_epoch_begins_at_another_row_of_the_same_file(tmp_path: Path) -> None:
    write_laid_out(tmp_path, [[[10] * 12] * 8])
    [process] = processes(tmp_path, Shuffling(120, 5, True), 1)  # a window is one row group: one lane
    firsts = {frozenset(row // 12 for row in process.steps(epoch)[0]) for epoch in range(6)}
    assert len(firsts) > 2


def test_rows_are_shuffled_within_the_windows_of_lanes(tmp_path: Path) -> None:
    write_laid_out(tmp_path, [[[10] * 12] * 24])
    shuffling = Shuffling(480, 5, True)  # four lanes, of windows of one row group
    [process] = processes(tmp_path, shuffling, 1)
    assert len({row // 12 for row in chain(*process.steps(0)[:4])}) <= 8
    lanes = LaneSet(process.rows, shuffling, 0, 4, 12)
    lane = [row for step in range(4) for row in numbers(process.rows, lanes.rows(step, 0, 3))]
    assert len({row // 12 for row in lane}) <= 2
    assert lane != sorted(lane)


def test_every_lane_is_shuffled_its_own_way_in_every_epoch(tmp_path: Path) -> None:
    write_laid_out(tmp_path, [[[10] * 24]])
    [process] = processes(tmp_path, Shuffling(10_000, 5, True), 1)
    found = set()
    for epoch in range(3):
        lanes = LaneSet(process.rows, Shuffling(10_000, 5, True), epoch, 2, 4)
        for start in (0, 2):
            lane = [row for step in range(6) for row in numbers(process.rows, lanes.rows(step, start, start + 2))]
            [first] = {row for row in lane if (row - 1) % 24 not in lane}
            found.add(tuple((row - first) % 24 for row in lane))
    assert len(found) == 6


def test_windows_are_larger_where_a_step_has_fewer_rows_than_the_window_has_row_groups(tmp_path: Path) -> None:
    write_laid_out(tmp_path, [[[10] * 12] * 96])
    [process] = processes(tmp_path, Shuffling(120 * 48, 5, True), 1)  # 12 lanes, of windows of four row groups
    assert len({row // 12 for row in chain(*process.steps(0)[:4])}) > 2 * 12


@pytest.mark.parametrize("world", [1, 2, 4])
def test_rows_in_order_keep_the_order_of_the_files(tmp_path: Path, world: int) -> None:
    count = write_laid_out(tmp_path, [[[3] * 5, [3] * 2], [[3] * 9], [[3] * 14]])
    found = processes(tmp_path, Shuffling(10_000, 5, False), world)
    for epoch in (0, 1):
        rows = [row for step in together(found, epoch) for row in step]
        assert rows == list(range(count))


def test_more_processes_than_lanes_are_told_once_what_window_they_need(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_laid_out(tmp_path, [[[10] * 6] * 6] * 2)
    processes(tmp_path, Shuffling(150, 5, True), 4)[0].steps(0)
    said = (
        "streaming: with shuffle_window=150 some of the 4 processes read the same row groups; "
        "shuffle_window=240 gives each its own"
    )
    assert caplog.messages == [said] * 4  # the main process of a launch alone says it: here each takes itself for it
    caplog.clear()
    found = processes(tmp_path, Shuffling(240, 5, True), 4)
    together(found, 0)
    shared = Counter(group for process in found for group in set(process.read))
    assert max(shared.values()) == 2
    processes(tmp_path, Shuffling(10, 5, False), 4)
    assert caplog.messages == []


def test_batches_reach_a_loaders_worker(tmp_path: Path) -> None:
    write_laid_out(tmp_path, [[[10] * 6] * 6] * 2)
    rows = open_split(open_shards(str(tmp_path)), "train", 1000, None, 240, streaming=True)
    batches = LaneBatcher(rows, Shuffling(240, 5, True), StepLayout(1, 2, False), 6, drop_last=False)
    taken = batches.rows(0, 0, 1).tolist()
    sent: LaneBatcher = pickle.loads(pickle.dumps(batches))
    assert sent.rows(0, 0, 1).tolist() == taken
    assert sent.rows(0, 1, 1).tolist() == batches.rows(0, 1, 1).tolist()
