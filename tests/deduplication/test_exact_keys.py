"""Keys of rows and the groups of equal ones, compared with a dictionary of the rows themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.core.rows import Ragged
from sftkit.deduplication.exact_keys import first_of_equal, text_keys, token_keys
from sftkit.deduplication.text_form import TextForm


def first_by_dictionary(rows: list[Any], compared: list[bool]) -> list[int]:
    seen: dict[Any, int] = {}
    return [
        seen.setdefault(row, index) if is_compared else index
        for index, (row, is_compared) in enumerate(zip(rows, compared, strict=True))
    ]


short_rows = st.lists(st.lists(st.integers(0, 2), max_size=3).map(tuple), max_size=40)


@settings(max_examples=100)
@given(short_rows)
def test_rows_of_tokens_are_grouped_as_by_a_dictionary(rows: list[tuple[int, ...]]) -> None:
    keys = token_keys([Ragged.from_lists(rows)])
    compared = [len(row) > 0 for row in rows]
    assert keys.any(axis=1).tolist() == compared
    assert first_of_equal(keys, np.array(compared, np.bool_)).tolist() == first_by_dictionary(rows, compared)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "ab"]), st.sampled_from(["", "a", "b", "é"])), max_size=40))
def test_rows_of_texts_are_grouped_as_by_a_dictionary(rows: list[tuple[str, str]]) -> None:
    compared = [any(row) for row in rows]
    keys = text_keys(rows)
    assert first_of_equal(keys, np.array(compared, np.bool_)).tolist() == first_by_dictionary(rows, compared)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60), st.data())
def test_keys_that_share_a_half_stay_apart(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    compared = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    keys = np.array(rows, np.uint64).reshape(-1, 2)
    assert first_of_equal(keys, np.array(compared, np.bool_)).tolist() == first_by_dictionary(rows, compared)


def test_the_same_tokens_with_other_labels_are_another_row() -> None:
    ids = Ragged.from_lists([[1, 2, 3], [1, 2, 3], [1, 2, 3]])
    labels = Ragged.from_lists([[-100, 2, 3], [-100, -100, 3], [-100, 2, 3]])
    keys = token_keys([ids, labels])
    assert first_of_equal(keys, np.ones(3, np.bool_)).tolist() == [0, 1, 0]


def test_keys_are_the_same_on_every_machine() -> None:
    tokens, texts = token_keys([Ragged.from_lists([[1, 2, 3]])]), text_keys([["a", "b"]])
    assert tokens.tolist() == [[0x93817E9D153C0AB3, 0xE1CA1F4FA8429A55]]
    assert texts.tolist() == [[0x8E3CAF3BE9FDA1B7, 0x260AA2ADCDD1E2D7]]


def test_what_is_ignored_of_texts() -> None:
    text = "  Straße\tis\n\nLONG "
    assert TextForm(ignores_case=False, ignores_white_space=False).of(text) == text
    assert TextForm(ignores_case=True, ignores_white_space=False).of(text) == "  strasse\tis\n\nlong "
    assert TextForm(ignores_case=False, ignores_white_space=True).of(text) == "Straße is LONG"
    value = {"Key": ["A  b", 1, None, {"c": "D"}]}
    assert TextForm(ignores_case=True, ignores_white_space=True).of_value(value) == {
        "Key": ["a b", 1, None, {"c": "d"}]
    }
