"""The amounts of a mix: copies of rows, weights, totals and stages, by their specification."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.config.schema.data_config import ProcessorConfig, SplitConfig, StageConfig
from sftkit.errors import DataError
from sftkit.ordering.copies import RowCopies
from sftkit.ordering.mixing import MixedRows, mix_rows
from sftkit.ordering.splitting import MixSource

MEASURES = ("rows", "tokens", "trained_tokens")
Sets = list[list[tuple[int, int]]]
"""For each data set, the tokens and trained tokens of its rows."""

data_sets = st.lists(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), min_size=1, max_size=40), min_size=1, max_size=4
)
seeds = st.integers(0, 2**32 - 1)
weights = st.lists(st.floats(0.01, 100), min_size=4, max_size=4)


def mix(sets: Sets, amounts: list[tuple[str, float] | None], seed: int = 1, **keys: Any) -> MixedRows:
    sources = [
        MixSource(f"set-{number}", len(rows), None, None, None, amount=amount)
        for number, (rows, amount) in enumerate(zip(sets, amounts, strict=True))
    ]
    keys.setdefault("sampling_stopping_strategy", "first_exhausted")
    return mix_rows(sources, ProcessorConfig(seed=seed, **keys), sizes_of(sets))


def sizes_of(sets: Sets) -> dict[str, Any]:
    rows = np.array([row for rows in sets for row in rows], np.int64).reshape(-1, 2)
    return {"tokens": rows[:, 0], "trained_tokens": rows[:, 1]}


def bounds(sets: Sets) -> list[tuple[int, int]]:
    ends = list(itertools.accumulate(map(len, sets), initial=0))
    return list(itertools.pairwise(ends))


def copies(sets: Sets, rows: Any) -> list[list[int]]:
    """How often each row of each data set is used."""
    counts = np.bincount(rows, minlength=sum(map(len, sets)))
    return [counts[start:stop].tolist() for start, stop in bounds(sets)]


def amount(sets: Sets, rows: Any, measure: str) -> list[float]:
    """The amount of each data set in some rows."""
    size = np.ones(sum(map(len, sets))) if measure == "rows" else sizes_of(sets)[measure]
    return [float(size[rows[(rows >= start) & (rows < stop)]].sum()) for start, stop in bounds(sets)]


def largest(sets: Sets, measure: str) -> int:
    return 1 if measure == "rows" else int(sizes_of(sets)[measure].max())


def counted(sets: Sets, measure: str) -> bool:
    """Whether every data set has something of a measure."""
    return measure != "trained_tokens" or all(any(trained for _, trained in rows) for rows in sets)


# --- Copies -----------------------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 30), start=st.integers(0, 90), count=st.integers(0, 90), seed=seeds)
def test_copies_are_whole_before_the_next_begins(rows: int, start: int, count: int, seed: int) -> None:
    sequence = RowCopies(np.arange(rows) + 5, {}, seed)
    taken = np.concatenate([*sequence.take(0, start + count), np.zeros(0, np.int64)])
    for copy in range(0, len(taken) - rows + 1, rows):
        assert sorted(taken[copy : copy + rows].tolist()) == list(range(5, rows + 5))
    part = np.concatenate([*sequence.take(start, start + count), np.zeros(0, np.int64)])
    assert part.tolist() == taken[start:].tolist()
    in_order = sequence.take_in_order(start, start + count)
    assert [each.tolist() for each in in_order] == [sorted(each) for each in sequence.take(start, start + count)]


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=20), amount=st.floats(0, 500), seed=seeds)
def test_counts_come_nearest_to_an_amount(sizes: list[int], amount: float, seed: int) -> None:
    if not any(sizes):
        return
    sequence = RowCopies(np.arange(len(sizes)), {"tokens": np.array(sizes)}, seed)
    longest = int(3 + amount / sum(sizes)) * len(sizes)
    sums = [sequence.amount_of(count, "tokens") for count in range(longest)]
    order = np.concatenate(sequence.take(0, longest - 1))
    assert sums == [0, *np.cumsum(np.array(sizes)[order]).tolist()]
    nearest = min(abs(total - amount) for total in sums)
    assert abs(sums[sequence.count_for(amount, "tokens")] - amount) == pytest.approx(nearest, abs=1e-6)
    assert sums[sequence.count_within(int(amount), "tokens")] == max(total for total in sums if total <= int(amount))
    assert sequence.count_for(sum(sizes) * 2, "tokens") == 2 * len(sizes)


# --- The amounts of single data sets ----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    sets=data_sets,
    repeats=st.lists(st.floats(1, 4), min_size=4, max_size=4),
    seed=seeds,
    measure=st.sampled_from(MEASURES),
)
def test_repeat_makes_whole_copies_and_a_part_of_one(sets: Sets, repeats: list[float], seed: int, measure: str) -> None:
    kept = [(rows, repeat) for rows, repeat in zip(sets, repeats, strict=False) if repeat >= 1]
    if not kept:
        return
    chosen = [rows for rows, _ in kept]
    mixed = mix(chosen, [("repeat", repeat) for _, repeat in kept], seed, mix_by=measure)
    for used, (rows, repeat), got in zip(
        copies(chosen, mixed.train), kept, amount(chosen, mixed.train, measure), strict=True
    ):
        assert {*used} <= {int(repeat), int(repeat) + 1}
        whole = len(rows) if measure == "rows" else sizes_of([rows])[measure].sum()
        assert abs(got - repeat * whole) <= largest([rows], measure) / 2 + 1e-6


@given(
    rows=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=20, max_size=60),
    seed=seeds,
    repeat=st.floats(0.2, 1),
)
def test_a_fraction_of_a_data_set_repeats_nothing(rows: list[tuple[int, int]], seed: int, repeat: float) -> None:
    for measure in MEASURES:
        mixed = mix([rows], [("repeat", repeat)], seed, mix_by=measure)
        [used], [got] = copies([rows], mixed.train), amount([rows], mixed.train, measure)
        whole = len(rows) if measure == "rows" else sizes_of([rows])[measure].sum()
        assert max(used) == 1
        assert abs(got - repeat * whole) <= largest([rows], measure) / 2 + 1e-6


@pytest.mark.parametrize("repeat", [1.0, 3.0])
def test_a_whole_number_of_copies_is_exact(repeat: float) -> None:
    sets: Sets = [[(5, 0), (7, 3), (1, 0)], [(9, 9)]]
    for measure in MEASURES:
        assert copies(sets, mix(sets, [("repeat", repeat), None], mix_by=measure).train) == [[int(repeat)] * 3, [1]]


@given(sets=data_sets, most=st.integers(1, 50), seed=seeds)
def test_max_rows_and_max_tokens_are_limits_and_never_repeat(sets: Sets, most: int, seed: int) -> None:
    used = copies(sets, mix(sets, [("max_rows", most)] * len(sets), seed).train)
    assert [sum(each) for each in used] == [min(most, len(rows)) for rows in sets]
    assert max(max(each) for each in used) == 1
    limit = most + 60  # more than any row
    tokens = mix(sets, [("max_tokens", limit)] * len(sets), seed).train
    assert max(max(each) for each in copies(sets, tokens)) == 1
    for rows, got in zip(sets, amount(sets, tokens, "tokens"), strict=True):
        whole = sum(size for size, _ in rows)
        assert got == whole if whole <= limit else limit - 60 < got <= limit


@given(sets=data_sets, target=st.integers(200, 3000), seed=seeds)
def test_target_tokens_are_reached_by_repeating_or_leaving_out(sets: Sets, target: int, seed: int) -> None:
    mixed = mix(sets, [("target_tokens", target)] * len(sets), seed, mix_by="tokens").train
    for used, got in zip(copies(sets, mixed), amount(sets, mixed, "tokens"), strict=True):
        assert max(used) - min(used) <= 1
        assert abs(got - target) <= 30
    assert mix(sets, [("target_tokens", target)] * len(sets), seed, mix_by="tokens").wanted == pytest.approx(
        {f"set-{number}": 1 / len(sets) for number in range(len(sets))}
    )


def test_smaller_amounts_are_parts_of_larger_ones_and_do_not_depend_on_other_data_sets() -> None:
    sets: Sets = [[(1, 1)] * 30, [(1, 1)] * 10]
    small = set(mix(sets, [("max_rows", 5), None]).train.tolist())
    large = set(mix(sets, [("max_rows", 15), ("repeat", 2)]).train.tolist())
    assert {row for row in small if row < 30} < {row for row in large if row < 30}


# --- Weights ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(sets=data_sets, given_weights=weights, seed=seeds, measure=st.sampled_from(MEASURES), factor=st.floats(0.3, 5))
def test_weights_divide_a_total_to_within_a_row(
    sets: Sets, given_weights: list[float], seed: int, measure: str, factor: float
) -> None:
    if not counted(sets, measure):
        return
    chosen = given_weights[: len(sets)]
    amounts: list[tuple[str, float] | None] = [("weight", weight) for weight in chosen]
    for total_of in ("rows", "tokens"):
        everything = sum(map(len, sets)) if total_of == "rows" else int(sizes_of(sets)["tokens"].sum())
        total = max(1, int(everything * factor))
        try:
            mixed = mix(sets, amounts, seed, mix_by=measure, **{f"total_{total_of}": total})
        except DataError:
            assert total <= largest(sets, total_of) / 2  # a row would be further from it than none
            continue
        assert abs(sum(amount(sets, mixed.train, total_of)) - total) <= largest(sets, total_of)
        for used in copies(sets, mixed.train):
            assert max(used) - min(used) <= 1
        got = amount(sets, mixed.train, measure)
        assert mixed.wanted == pytest.approx(
            {f"set-{number}": weight / sum(chosen) for number, weight in enumerate(chosen)}
        )
        if measure == total_of:
            for each, weight in zip(got, chosen, strict=True):
                assert abs(each - total * weight / sum(chosen)) <= 2 * largest(sets, measure)


@settings(max_examples=60)
@given(sets=data_sets, given_weights=weights, seed=seeds, measure=st.sampled_from(MEASURES))
def test_without_a_total_the_scarcest_data_set_decides(
    sets: Sets, given_weights: list[float], seed: int, measure: str
) -> None:
    if not counted(sets, measure):
        return
    amounts: list[tuple[str, float] | None] = [("weight", weight) for weight in given_weights[: len(sets)]]
    used = copies(sets, mix(sets, amounts, seed, mix_by=measure).train)
    assert max(max(each) for each in used) == 1
    assert any(min(each) == 1 for each in used) or measure == "trained_tokens"  # a row without any may be left out
    every = copies(sets, mix(sets, amounts, seed, mix_by=measure, sampling_stopping_strategy="all_exhausted").train)
    assert min(min(each) for each in every) >= 1
    assert any(max(each) == 1 for each in every)


def test_data_sets_with_an_amount_of_their_own_are_taken_off_a_total() -> None:
    sets: Sets = [[(10, 5)] * 50, [(10, 5)] * 50, [(10, 5)] * 20]
    mixed = mix(sets, [("weight", 3), ("weight", 1), ("repeat", 2)], mix_by="tokens", total_tokens=1200)
    assert amount(sets, mixed.train, "tokens") == [600, 200, 400]
    assert mixed.wanted == pytest.approx({"set-0": 0.5, "set-1": 1 / 6, "set-2": 1 / 3})
    with pytest.raises(DataError, match="total_tokens=400 leaves nothing for the data sets with a weight: the others"):
        mix(sets, [("weight", 3), ("weight", 1), ("repeat", 2)], mix_by="tokens", total_tokens=400)


@pytest.mark.parametrize(
    ("amount_of_one", "message"),
    [
        (("max_tokens", 3), "'set-0': max_tokens=3 takes no row of it; raise it, or remove the data set"),
        (("repeat", 0.01), "'set-0': repeat=0.01 takes no row of it"),
        (("repeat", 1e30), r"'set-0': repeat=1e\+30 makes more than 2,147,483,647 rows; lower it"),
        (("target_tokens", 1e12), r"'set-0': target_tokens=1e\+12 makes more than 2,147,483,647 rows"),
    ],
)
def test_amounts_that_are_too_small_or_too_large_are_refused(amount_of_one: tuple[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mix([[(10, 5)] * 4], [amount_of_one])


def test_a_total_that_no_row_comes_near_is_refused() -> None:
    sets: Sets = [[(10, 5)] * 4, [(10, 5)] * 4]
    assert len(mix(sets, [("weight", 1), ("weight", 1)], total_tokens=6).train) == 1
    with pytest.raises(DataError, match="total_tokens=5 takes no row of the data sets with a weight: one row more"):
        mix(sets, [("weight", 1), ("weight", 1)], total_tokens=5)


def test_a_total_that_is_too_large_is_refused() -> None:
    with pytest.raises(DataError, match="the mix would have more than 2,147,483,647 rows; make it smaller"):
        mix([[(10, 5)] * 4], [("weight", 1)], total_tokens=10**15)


def test_a_weight_without_anything_to_weigh_is_refused() -> None:
    with pytest.raises(DataError, match="'set-1' has a weight and no trained tokens for training; remove it"):
        mix([[(3, 1)], [(3, 0)]], [("weight", 1), ("weight", 1)], mix_by="trained_tokens")


def test_validation_rows_are_not_mixed() -> None:
    source = MixSource("a", 20, None, SplitConfig(validation=0.25), None, amount=("repeat", 3))
    sizes = {measure: np.ones(20, np.int64) for measure in ("tokens", "trained_tokens")}
    mixed = mix_rows([source], ProcessorConfig(), sizes)
    assert len(mixed.validation) == 5
    assert Counter(mixed.train.tolist()) == dict.fromkeys(sorted({*range(20)} - {*mixed.validation.tolist()}), 3)
    assert sorted(mixed.candidates.tolist()) == sorted(set(mixed.train.tolist()))


# --- Stages -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    sets=data_sets,
    stage_weights=st.lists(st.lists(st.floats(0.01, 100) | st.just(0), min_size=4, max_size=4), min_size=1, max_size=3),
    ends=st.lists(st.floats(0.1, 0.9), min_size=2, max_size=2, unique=True),
    seed=seeds,
    measure=st.sampled_from(MEASURES),
    total=st.integers(50, 4000),
)
def test_stages_have_their_shares_and_share_the_copies(
    sets: Sets, stage_weights: list[list[float]], ends: list[float], seed: int, measure: str, total: int
) -> None:
    if not counted(sets, measure) or not all(any(of_stage[: len(sets)]) for of_stage in stage_weights):
        return
    until = [*sorted(ends)[: len(stage_weights) - 1], None]
    stages = tuple(
        StageConfig(until=end, weights={f"set-{number}": weight for number, weight in enumerate(of_stage[: len(sets)])})
        for end, of_stage in zip(until, stage_weights, strict=True)
    )
    mixed = mix(sets, [None] * len(sets), seed, mix_by=measure, stages=stages, total_tokens=total)
    assert abs(sum(amount(sets, mixed.train, "tokens")) - total) <= largest(sets, "tokens")
    assert len(mixed.stage_ends) == len(stages)
    assert mixed.stage_ends[-1] == len(mixed.train)
    for used in copies(sets, mixed.train):
        assert max(used) - min(used) <= 1
    whole = sum(amount(sets, mixed.train, measure))
    fractions = np.diff([0, *(end or 1 for end in until)]).tolist()
    for stage, fraction, start, stop in zip(stages, fractions, (0, *mixed.stage_ends), mixed.stage_ends, strict=False):
        got = amount(sets, mixed.train[start:stop], measure)
        for each, weight in zip(got, stage.weights.values(), strict=True):
            assert weight or not each, "a data set is in a stage that gives it no weight"
            share = fraction * weight / sum(stage.weights.values())
            assert abs(each - whole * share) <= (len(sets) + 2) * largest(sets, measure)
    again = mix(sets, [None] * len(sets), seed, mix_by=measure, stages=stages, total_tokens=total)
    assert again.train.tolist() == mixed.train.tolist()


def test_a_row_is_repeated_in_a_later_stage_only_when_all_are_used() -> None:
    sets: Sets = [[(1, 1)] * 40, [(1, 1)] * 40]
    stages = (StageConfig(until=0.5, weights={"set-0": 1}), StageConfig(weights={"set-*": 1}))
    mixed = mix(sets, [None, None], stages=stages)
    assert copies(sets, mixed.train)[0] == [1] * 40
    assert mixed.stage_ends == (27, 53)
    assert amount(sets, mixed.train[:27], "rows") == [27, 0]
    assert mixed.wanted == pytest.approx({"set-0": 0.75, "set-1": 0.25})


def test_names_go_before_patterns_and_the_first_pattern_decides() -> None:
    sets: Sets = [[(1, 1)] * 100] * 3
    stages = (StageConfig(weights={"set-[01]": 1, "*": 2, "set-1": 4}),)
    assert mix(sets, [None] * 3, stages=stages).wanted == pytest.approx(
        {"set-0": 1 / 7, "set-1": 4 / 7, "set-2": 2 / 7}
    )
