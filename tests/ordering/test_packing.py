"""Packs, compared with textbook best-fit decreasing, one row at a time, and with concatenated rows."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.ordering.best_fit import pack_bfd
from sftkit.ordering.packing_strategy import Packs
from sftkit.ordering.wrapped import pack_wrapped


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


@pytest.mark.parametrize("lengths", [[0], [11], [-1, 3]])
def test_lengths_that_fit_no_pack_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="between 1 and 10"):
        pack_bfd(np.array(lengths), 10)


def test_no_rows_give_no_packs() -> None:
    for packs in (pack_bfd(np.array([], np.int64), 8), pack_wrapped(np.array([], np.int64), 8)):
        assert (len(packs), packs.offsets.tolist(), packs.sizes.tolist()) == (0, [0], [])


@pytest.mark.parametrize("capacity", [2048, 4096, 32_768])
def test_packs_of_rows_of_realistic_lengths_are_full(capacity: int) -> None:
    chance = np.random.default_rng(capacity)
    lengths = np.clip(chance.lognormal(np.log(450), 0.9, 20_000), 8, capacity).astype(np.int32)
    packs = pack_bfd(lengths, capacity)
    assert lengths.sum() / (len(packs) * capacity) >= 0.98
