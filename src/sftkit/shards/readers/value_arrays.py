"""Arrow arrays of Python's values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.shards.arrow_arrays import number_array


def list_of_numbers(flat: npt.NDArray[Any], lengths: Sequence[int]) -> pa.Array:
    """Make lists of numbers, of which null becomes an empty one."""
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
    return pa.LargeListArray.from_arrays(number_array(offsets), number_array(flat))


def list_of_integers(rows: Sequence[Any]) -> pa.Array:
    """Make lists of int64 of lists of Python's integers; None becomes an empty list.

    Raises:
        ValueError: a row is no list of integers.
    """
    lists = [[] if row is None else row for row in rows]
    if not all(type(row) is list for row in lists):
        raise ValueError("a value is no list")
    flat = [value for row in lists for value in row]
    if None in flat:
        return _list_with_nulls(lists)
    numbers = np.array(flat) if flat else np.zeros(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "ib":
        raise ValueError("a value is no list of integers")
    return list_of_numbers(numbers.astype(np.int64), [len(row) for row in lists])


def _list_with_nulls(lists: list[list[Any]]) -> pa.Array:
    try:
        return pa.array(lists, pa.large_list(pa.int64()))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise ValueError("a value is no list of integers") from None


def array_of_any(values: list[Any]) -> pa.Array:
    """Make an array of values of any types: of the one that they have in common, or else of their JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([json.dumps(value, default=str) for value in values], pa.large_string())
