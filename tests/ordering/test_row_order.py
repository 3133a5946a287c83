"""The order of rows: values of `order`, sorting, groups of similar length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftkit.config.schema.data_config import ProcessorConfig, StageConfig
from sftkit.config.schema.order_choice import RowOrder, read_row_order
from sftkit.errors import ConfigError
from sftkit.ordering.mixing import mix_rows
from sftkit.ordering.row_order import GROUP_ROWS, arrange
from sftkit.ordering.splitting import MixSource

KINDS = ("shuffled", "as_is", "by_length", "length_grouped")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        *((kind, kind) for kind in KINDS),
        ("curriculum: score", "curriculum:score"),
        ("curriculum:-a b", "curriculum:-a b"),
        ({"curriculum": "-score"}, "curriculum:-score"),
        ({"curriculum": {"column": "-score"}}, "curriculum:-score"),
        ({"curriculum": {"column": "score", "descending": "true"}}, "curriculum:-score"),
    ],
)
def test_an_order_has_several_forms(value: Any, shown: str) -> None:
    assert str(read_row_order(value)) == shown


@pytest.mark.parametrize("value", ["sorted", "", "as_is:x", 3, True, ["as_is"], {"by_length": "x"}, {}])
def test_an_unknown_order_is_refused(value: Any) -> None:
    expected = "order must be shuffled, as_is, by_length, length_grouped or curriculum: COLUMN, not"
    with pytest.raises(ConfigError, match=expected):
        read_row_order(value)


@pytest.mark.parametrize(
    "column", ["", " - ", None, 3, {}, {"column": ""}, {"column": "a", "descending": "x"}, {"a": 1}]
)
def test_a_curriculum_without_a_column_is_refused(column: Any) -> None:
    with pytest.raises(ConfigError, match="curriculum needs the name of a column with numbers"):
        read_row_order({"curriculum": column})


@given(lengths=st.lists(st.integers(1, 9), max_size=60), seed=st.integers(0, 2**32 - 1))
def test_sorting_keeps_all_rows_and_shuffles_equal_ones(lengths: list[int], seed: int) -> None:
    keys = np.array(lengths, np.int64)
    rows = np.arange(len(lengths))
    for kind in KINDS:
        assert sorted(arrange(rows, RowOrder(kind), keys, seed, 0).tolist()) == rows.tolist()
    assert arrange(rows, RowOrder("as_is"), None, seed, 0).tolist() == rows.tolist()
    found = keys[arrange(rows, RowOrder("by_length"), keys, seed, 0)]
    assert found.tolist() == sorted(lengths)
    down = keys[arrange(rows, RowOrder("curriculum", "x", descending=True), keys.astype(float), seed, 0)]
    assert down.tolist() == sorted(lengths, reverse=True)


def test_equal_rows_are_in_another_order_with_another_seed_or_stage() -> None:
    rows, keys = np.arange(50), np.ones(50, np.int64)
    orders = {tuple(arrange(rows, RowOrder("by_length"), keys, *each).tolist()) for each in ((1, 0), (2, 0), (1, 1))}
    assert len(orders) == 3


def test_groups_hold_rows_of_similar_length_and_begin_with_the_longest_row() -> None:
    lengths = np.random.default_rng(1).integers(1, 1000, 5 * GROUP_ROWS + 7)
    lengths[1234] = 5000
    found = lengths[arrange(np.arange(len(lengths)), RowOrder("length_grouped"), lengths, 1, 0)]
    assert found[0] == 5000
    assert np.abs(np.diff(found)).mean() < 20
    assert sorted(found.tolist()) == sorted(lengths.tolist())
    assert found[:GROUP_ROWS].tolist() != sorted(lengths.tolist(), reverse=True)[:GROUP_ROWS]


def test_as_is_is_data_set_after_data_set_and_copy_after_copy_in_each_stage() -> None:
    sources = [MixSource(name, 4, None, None, None) for name in "ab"]
    sizes = {measure: np.ones(8, np.int64) for measure in ("tokens", "trained_tokens")}
    stages = (StageConfig(until=0.75, weights={"a": 1}), StageConfig(weights={"b": 1}))
    processor = ProcessorConfig(stages=stages, total_rows=8, order="as_is")
    mixed = mix_rows(sources, processor, sizes)
    assert mixed.stage_ends == (6, 8)
    assert mixed.train[:4].tolist() == [0, 1, 2, 3]
    assert mixed.train[4] < mixed.train[5] < 4 <= mixed.train[6] < mixed.train[7]


def test_rows_that_are_not_mixed_or_sampled_can_be_ordered_too() -> None:
    sizes = {"tokens": np.array([3, 1, 2, 9, 8, 7]), "trained_tokens": np.ones(6, np.int64)}
    for sampling in (None, 0.5):
        sources = [MixSource(name, 3, sampling, None, None) for name in "ab"]
        processor = ProcessorConfig(order="by_length", sampling_stopping_strategy="all_exhausted_without_replacement")
        assert mix_rows(sources, processor, sizes).train.tolist() == [1, 2, 0, 5, 4, 3]
