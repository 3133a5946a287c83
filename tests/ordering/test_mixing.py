"""Splits, mixes and shard bounds, compared with `datasets` and with their specification."""

from __future__ import annotations

import contextlib
import itertools

import datasets
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sftkit.config.schema.data_config import STOPPING_STRATEGIES, SplitConfig
from sftkit.errors import DataError
from sftkit.ordering.interleaving import interleave
from sftkit.ordering.mixing import order_splits
from sftkit.ordering.splitting import MixSource
from sftkit.shards.writing.shard_writer import shard_bounds


def part(
    rows: int,
    *,
    sampling: float | None = None,
    split: SplitConfig | None = None,
    shuffle: bool | None = None,
    as_fms: bool = False,
) -> MixSource:
    return MixSource("part", rows, sampling, split, shuffle, as_fms)


def as_datasets(lengths: list[int]) -> list[datasets.Dataset]:
    ends = np.cumsum(lengths)
    return [
        datasets.Dataset.from_dict({"row": list(range(end - length, end))})
        for end, length in zip(ends.tolist(), lengths, strict=True)
    ]


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=4),
    parts=st.lists(st.integers(1, 20), min_size=4, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    strategy=st.sampled_from(STOPPING_STRATEGIES),
)
def test_a_weighted_mix_equals_interleave_datasets(
    lengths: list[int], parts: list[int], seed: int, strategy: str
) -> None:
    chosen = parts[: len(lengths)]
    weights = [weight / sum(chosen) for weight in chosen]
    expected = datasets.interleave_datasets(
        as_datasets(lengths), probabilities=weights, seed=seed, stopping_strategy=strategy
    )
    assert interleave(lengths, weights, seed, strategy).tolist() == expected["row"]


@pytest.mark.parametrize("strategy", STOPPING_STRATEGIES)
def test_three_weights_that_sum_to_almost_one_are_mixed(strategy: str) -> None:
    weights = [0.7, 0.2, 0.1]
    assert sum(weights) != 1
    expected = datasets.interleave_datasets(
        as_datasets([50, 40, 30]), probabilities=weights, seed=66, stopping_strategy=strategy
    )
    assert interleave([50, 40, 30], weights, 66, strategy).tolist() == expected["row"]


def test_a_weight_of_zero_takes_no_row_and_cannot_be_exhausted() -> None:
    expected = datasets.interleave_datasets(
        as_datasets([20, 10, 15]), probabilities=[0.5, 0.0, 0.5], seed=1, stopping_strategy="first_exhausted"
    )
    assert interleave([20, 10, 15], [0.5, 0.0, 0.5], 1, "first_exhausted").tolist() == expected["row"]
    with pytest.raises(DataError, match="all_exhausted cannot exhaust a data set whose sampling weight is 0"):
        interleave([20, 10], [1.0, 0.0], 1, "all_exhausted")


@settings(max_examples=80)
@given(
    rows=st.integers(2, 200),
    train=st.none() | st.floats(0.01, 0.99),
    validation=st.none() | st.floats(0.01, 0.99),
    shuffle=st.sampled_from([True, None]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_split_equals_train_test_split(
    rows: int, train: float | None, validation: float | None, shuffle: bool | None, seed: int
) -> None:
    assume(train is not None or validation is not None)
    assume((train or 0) + (validation or 0) <= 1)
    orders = None
    with contextlib.suppress(DataError):
        orders = order_splits(
            [part(rows, split=SplitConfig(train=train, validation=validation), shuffle=shuffle)], seed, ""
        )
    whole = datasets.Dataset.from_dict({"row": list(range(rows))})
    if shuffle:
        whole = whole.shuffle(seed=seed)
    try:
        expected = whole.train_test_split(train_size=train, test_size=validation, seed=seed)
    except ValueError:  # datasets: one of the two would be empty
        assert orders is None
        return
    assert orders is not None
    assert {name: order.tolist() for name, order in orders.items()} == {
        "train": expected["train"]["row"],
        "validation": expected["test"]["row"],
    }


@pytest.mark.parametrize(("train", "validation"), [(0.6, 0.3), (0.7, None), (None, 0.2), (0.5, 0.5)])
@pytest.mark.parametrize("as_fms", [False, True])
def test_shuffle_false_keeps_the_order_of_a_split(train: float | None, validation: float | None, as_fms: bool) -> None:
    whole = datasets.Dataset.from_dict({"row": list(range(23))})
    expected = whole.train_test_split(train_size=train, test_size=validation, shuffle=False)
    split = SplitConfig(train=train, validation=validation)
    orders = order_splits([part(23, split=split, shuffle=False, as_fms=as_fms)], 42, "")
    assert orders["train"].tolist() == expected["train"]["row"]
    assert orders["validation"].tolist() == expected["test"]["row"]
    assert orders["train"].tolist() == list(range(len(orders["train"])))


@pytest.mark.parametrize("shuffle", [None, True, False])
@pytest.mark.parametrize(("train", "validation"), [(0.6, 0.0), (0.0, 0.3), (0.6, 0.3), (1.0, 0.0), (0.0, 1.0)])
def test_a_split_as_in_fms_hf_tuning_leaves_out_what_is_not_given(
    train: float, validation: float, shuffle: bool | None
) -> None:
    whole = datasets.Dataset.from_dict({"row": list(range(23))})
    if 1.0 in (train, validation):
        parts = {"train": whole["row"] if train else [], "validation": whole["row"] if validation else []}
    else:  # `train_test_split` with the fractions that are given, and then without the other part
        made = whole.train_test_split(
            train_size=train or None, test_size=validation or None, shuffle=shuffle is not False, seed=7
        )
        parts = {
            "train": made["train"]["row"] if train else [],
            "validation": made["test"]["row"] if validation else [],
        }
    # A second data set, so that there is a training split.
    split = SplitConfig(train=train, validation=validation)
    orders = order_splits([part(23, split=split, shuffle=shuffle, as_fms=True), part(2, as_fms=True)], 7, "")
    assert orders["train"].tolist() == [*parts["train"], 23, 24]
    assert orders["validation"].tolist() == list(parts["validation"])


@given(rows=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_shuffling_equals_that_of_datasets(rows: int, seed: int) -> None:
    expected = datasets.Dataset.from_dict({"row": list(range(rows))}).shuffle(seed=seed)["row"]
    assert order_splits([part(rows, shuffle=True)], seed, "")["train"].tolist() == expected


def test_without_weights_parts_are_concatenated_in_order() -> None:
    orders = order_splits([part(3), part(2)], 42, "first_exhausted")
    assert orders["train"].tolist() == [0, 1, 2, 3, 4]
    assert orders["validation"].tolist() == []


def test_validation_parts_are_concatenated_and_never_sampled() -> None:
    half = SplitConfig(train=0.5, validation=0.5)
    only = SplitConfig(validation=1.0)
    orders = order_splits(
        [part(10, sampling=0.9, split=half), part(4, split=only), part(6, sampling=0.1, split=half)], 7, "all_exhausted"
    )
    first = datasets.Dataset.from_dict({"row": list(range(10))}).train_test_split(0.5, 0.5, seed=7)
    last = datasets.Dataset.from_dict({"row": list(range(14, 20))}).train_test_split(0.5, 0.5, seed=7)
    assert orders["validation"].tolist() == [*first["test"]["row"], 10, 11, 12, 13, *last["test"]["row"]]
    mixed = datasets.interleave_datasets(
        [first["train"], last["train"]], probabilities=[0.9, 0.1], seed=7, stopping_strategy="all_exhausted"
    )
    assert orders["train"].tolist() == mixed["row"]


def test_the_splits_of_a_data_set_share_no_row_and_other_rows_are_left_out() -> None:
    orders = order_splits([part(100, split=SplitConfig(train=0.5, validation=0.2))], 3, "")
    train, validation = set(orders["train"].tolist()), set(orders["validation"].tolist())
    assert (len(train), len(validation)) == (50, 20)
    assert not train & validation


def test_an_empty_split_is_an_error_that_names_the_data_set() -> None:
    with pytest.raises(DataError, match=r"dataset 'part': 1 rows cannot be split into train 0\.5 and validation 0\.5"):
        order_splits([part(1, split=SplitConfig(train=0.5, validation=0.5))], 3, "")


# --- Shard bounds -------------------------------------------------------------------------------------


def test_shards_are_cut_at_the_row_nearest_to_an_equal_share() -> None:
    assert shard_bounds(np.array([1, 1, 1, 1]), 2) == [0, 2, 4]
    assert shard_bounds(np.array([5, 1, 1, 1]), 2) == [0, 1, 4]
    assert shard_bounds(np.array([1, 1, 1, 5]), 2) == [0, 3, 4]
    assert shard_bounds(np.array([10, 1, 1, 1]), 4) == [0, 1, 2, 3, 4]
    assert shard_bounds(np.array([3, 3, 3, 3, 3, 3]), 3) == [0, 2, 4, 6]
    assert shard_bounds(np.array([7]), 1) == [0, 1]


@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=60), count=st.integers(1, 20))
def test_shards_are_contiguous_whole_and_balanced_to_within_one_row(sizes: list[int], count: int) -> None:
    assume(count <= len(sizes))
    bounds = shard_bounds(np.array(sizes), count)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, len(sizes), count + 1)
    assert all(start < stop for start, stop in itertools.pairwise(bounds))
    shares = [sum(sizes[start:stop]) for start, stop in itertools.pairwise(bounds)]
    assert max(shares) <= sum(sizes) / count + max(sizes)


def test_fewer_rows_than_shards_is_an_error() -> None:
    with pytest.raises(DataError, match="2 rows cannot fill 3 shards; use at most 2"):
        shard_bounds(np.array([5, 5]), 3)
