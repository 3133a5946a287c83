"""Converts between numpy arrays, text and Arrow arrays through their buffers.

`pa.array` and `Array.to_numpy` import pandas wherever it is installed, which takes as long as staging thousands
of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.rows import Ragged


def number_array(values: npt.NDArray[Any]) -> pa.Array:
    """Convert a numpy array to an Arrow array of the same type, without copying."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def list_array(column: Ragged) -> pa.Array:
    """Convert a ragged column (at most 2^31 values) to an Arrow list array of its type."""
    return pa.ListArray.from_arrays(number_array(column.offsets.astype(np.int32)), number_array(column.values))


def text_array(texts: Sequence[str]) -> pa.Array:
    """Convert strings to an Arrow large_string array."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def numpy_view(array: pa.Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """View an Arrow array of numbers without nulls as a numpy array, without copying."""
    return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]


def ragged_view(array: pa.ListArray, dtype: npt.DTypeLike) -> Ragged:
    """View an Arrow list array of numbers without nulls as a ragged column, without copying its values.

    Example:
        >>> ragged_view(pa.array([[1, 2], [3]], pa.list_(pa.int32())), np.int32).lengths.tolist()
        [2, 1]
    """
    offsets = numpy_view(array.offsets, np.int32).astype(np.int64)
    return Ragged(numpy_view(array.flatten(), dtype), offsets - offsets[0])
