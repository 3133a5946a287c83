"""Packs, compared with textbook best-fit decreasing, one row at a time, and with concatenated rows."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.config.schema.shared_options import DataOptions
from sftkit.ordering.packing import make_packs
from sftkit.ordering.packing_strategy import Packs, join_packs
from sftkit.ordering.strategies.best_fit import pack_bfd
from sftkit.ordering.strategies.best_fit_split import pack_bfd_split
from sftkit.ordering.strategies.next_fit import pack_next_fit
from sftkit.ordering.strategies.wrapped import pack_wrapped


def naive_free_space(lengths: list[int], capacity: int) -> list[int]:
    """The free space that best-fit decreasing leaves in each pack, sorted."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        place = bisect_left(spaces, length)
        space = spaces.pop(place) if place < len(spaces) else capacity
        insort(spaces, space - length)
    return spaces


def pieces(packs: Packs) -> list[list[tuple[int, int, int]]]:
    """The pieces of each pack as (row, first token, tokens)."""
    columns = zip(packs.rows.tolist(), packs.starts.tolist(), packs.lengths.tolist(), strict=True)
    every = list(columns)
    offsets = packs.offsets.tolist()
    assert offsets[0] == 0
    assert offsets[-1] == len(every)
    return [every[start:stop] for start, stop in pairwise(offsets)]


@st.composite
def rows_and_capacity(draw: st.DrawFn) -> tuple[list[int], int]:
    capacity = draw(st.sampled_from([1, 2, 7, 12, 60, 511, 512, 513, 1500]))
    most = draw(st.sampled_from([max(1, capacity // 5), max(1, capacity // 2), capacity]))
    few = st.sampled_from(draw(st.lists(st.integers(1, most), min_size=1, max_size=4)))
    lengths = draw(st.lists(draw(st.sampled_from([few, st.integers(1, most)])), max_size=120))
    return lengths, capacity


@settings(max_examples=300)
@given(rows_and_capacity())
def test_packs_have_the_free_space_that_best_fit_decreasing_leaves(given_rows: tuple[list[int], int]) -> None:
    lengths, capacity = given_rows
    packs = pack_bfd(np.array(lengths, np.int64), capacity)
    assert sorted(capacity - packs.sizes) == naive_free_space(lengths, capacity)


@pytest.mark.parametrize("seed", range(3))
def test_lengths_beyond_16_bits_leave_the_same_free_space(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 70_001, 500)
    packs = pack_bfd(lengths, 70_000)
    assert sorted(70_000 - packs.sizes) == naive_free_space(lengths.tolist(), 70_000)
    assert sorted(packs.rows.tolist()) == list(range(500))


@settings(max_examples=150)
@given(rows_and_capacity())
def test_every_row_is_whole_in_one_pack_and_in_the_order_of_the_split(
    given_rows: tuple[list[int], int],
) -> None:
    lengths, capacity = given_rows
    made = pieces(pack_bfd(np.array(lengths, np.int32), capacity))
    assert sorted(piece for pack in made for piece in pack) == [(row, 0, size) for row, size in enumerate(lengths)]
    for pack in made:
        assert pack == sorted(pack)
        assert 0 < sum(size for _, _, size in pack) <= capacity


@settings(max_examples=200)
@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 40))
def test_wrapped_rows_are_cut_where_a_pack_is_full_and_no_token_is_lost(lengths: list[int], capacity: int) -> None:
    tokens = [(row, token) for row, length in enumerate(lengths) for token in range(length)]
    expected = [tokens[start : start + capacity] for start in range(0, len(tokens), capacity)]
    made = pieces(pack_wrapped(np.array(lengths, np.int64), capacity))
    found = [[(row, start + i) for row, start, size in pack for i in range(size)] for pack in made]
    assert found == expected
    for pack in made:
        rows = [row for row, _, _ in pack]
        assert len(set(rows)) == len(rows), "a row is cut by the end of a pack only"


@settings(max_examples=200)
@given(rows_and_capacity())
def test_next_fit_keeps_the_order_and_ends_a_pack_only_where_the_next_row_does_not_fit(
    given_rows: tuple[list[int], int],
) -> None:
    lengths, capacity = given_rows
    made = pieces(pack_next_fit(np.array(lengths, np.int64), capacity))
    expected: list[list[tuple[int, int, int]]] = []
    for row, size in enumerate(lengths):
        if not expected or sum(each for _, _, each in expected[-1]) + size > capacity:
            expected.append([])
        expected[-1].append((row, 0, size))
    assert made == expected


@settings(max_examples=200)
@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 25))
def test_rows_longer_than_a_pack_are_cut_into_full_packs_and_a_rest(lengths: list[int], capacity: int) -> None:
    packs = pack_bfd_split(np.array(lengths, np.int64), capacity)
    found = sorted(piece for pack in pieces(packs) for piece in pack)
    expected = [
        (row, start, min(capacity, length - start))
        for row, length in enumerate(lengths)
        for start in range(0, length, capacity)
    ]
    assert found == expected
    assert sorted(capacity - packs.sizes) == naive_free_space([size for _, _, size in expected], capacity)


@settings(max_examples=150)
@given(rows_and_capacity(), st.integers(1, 50), st.sampled_from(["bfd", "bfd_split", "next_fit"]))
def test_windows_are_packed_alone_and_keep_their_order(
    given_rows: tuple[list[int], int], window: int, packing: str
) -> None:
    lengths, capacity = given_rows
    options = DataOptions(packing=packing, pack_length=capacity, pack_window=window)
    made = pieces(make_packs(np.array(lengths, np.int32), options))
    assert sorted(piece for pack in made for piece in pack) == [(row, 0, size) for row, size in enumerate(lengths)]
    windows = [{row // window for row, _, _ in pack} for pack in made]
    assert all(len(each) == 1 for each in windows), "no pack has rows of two windows"
    firsts = [min(row for row, _, _ in pack) for pack in made]
    assert firsts == sorted(firsts)


def test_a_worked_example() -> None:
    # 7 opens a pack, 5 another one; 4 fits the second only, 3 fills the first, a 1 the second; the other 1 is left
    assert pieces(pack_bfd(np.array([1, 3, 5, 4, 7, 1]), 10)) == [
        [(1, 0, 3), (4, 0, 7)],
        [(0, 0, 1), (2, 0, 5), (3, 0, 4)],
        [(5, 0, 1)],
    ]


def test_packs_can_be_taken_in_any_order() -> None:
    packs = pack_bfd(np.array([3, 5, 2, 5, 4]), 6)
    made = pieces(packs)
    assert pieces(packs.take(np.array([2, 0, 2, 1]))) == [made[2], made[0], made[2], made[1]]
    assert packs.take(np.array([1])).sizes.tolist() == [packs.sizes[1]]


@pytest.mark.parametrize("pack", [pack_bfd, pack_next_fit])
@pytest.mark.parametrize("lengths", [[0], [11], [-1, 3]])
def test_lengths_that_fit_no_pack_are_refused(pack: Callable[..., Packs], lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="between 1 and 10"):
        pack(np.array(lengths), 10)


@pytest.mark.parametrize("pack", [pack_bfd, pack_bfd_split, pack_next_fit, pack_wrapped])
def test_no_rows_give_no_packs(pack: Callable[..., Packs]) -> None:
    for packs in (pack(np.array([], np.int64), 8), join_packs([])):
        assert (len(packs), packs.offsets.tolist(), packs.sizes.tolist()) == (0, [0], [])


@pytest.mark.parametrize("capacity", [2048, 4096, 32_768])
def test_packs_of_rows_of_realistic_lengths_are_full(capacity: int) -> None:
    chance = np.random.default_rng(capacity)
    lengths = np.clip(chance.lognormal(np.log(450), 0.9, 20_000), 8, capacity).astype(np.int32)
    packs = pack_bfd(lengths, capacity)
    assert lengths.sum() / (len(packs) * capacity) >= 0.98
