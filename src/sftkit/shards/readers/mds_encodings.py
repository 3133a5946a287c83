"""The encodings of MDS columns, as Arrow arrays.

Source: `streaming/base/format/mds/encodings.py` of mosaicml-streaming 0.13. Nothing is unpickled: columns of pickles
and pictures stay bytes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.core.rows import INPUT_IDS, LABELS, LOSS_MASKS, POSITION_IDS, SEQ_LENGTHS
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.shards.arrow_arrays import number_array
from sftkit.shards.readers.value_arrays import array_of_any, list_of_integers, list_of_numbers

_TOKEN_COLUMNS = frozenset(
    {INPUT_IDS, "tokens", LABELS, *LOSS_MASKS, "attention_mask", POSITION_IDS, SEQ_LENGTHS, TOKEN_KINDS}
)
"""Columns that hold integers, so that bytes are their bytes (int64, as llm-foundry writes them)."""

_DATA_TYPES = {
    8: "u1",
    9: "i1",
    16: "<u2",
    17: "<i2",
    18: "<f2",
    32: "<u4",
    33: "<i4",
    34: "<f4",
    64: "<u8",
    65: "<i8",
    66: "<f8",
}
_NAMES = {
    "uint8": "u1",
    "int8": "i1",
    "uint16": "<u2",
    "int16": "<i2",
    "float16": "<f2",
    "uint32": "<u4",
    "int32": "<i4",
    "float32": "<f4",
    "uint64": "<u8",
    "int64": "<i8",
    "float64": "<f8",
    "int": "<i8",
}
_TEXTS = ("str", "str_int", "str_float", "str_decimal")


class MdsDecoder(ABC):
    """Decodes the values of a column."""

    @abstractmethod
    def decode(self, values: Sequence[bytes]) -> pa.Array:
        """Convert the bytes of each value to an array. Raises `ValueError` and Arrow's errors for damaged values."""


def decoder_of(name: str, encoding: str, size: int | None) -> MdsDecoder:
    """Choose the decoder of a column by its name, encoding and size in bytes (None if it varies).

    Raises:
        ValueError: the encoding has a data type that MDS does not know.

    Example:
        >>> decoder_of("input_ids", "ndarray:int32", None).decode([bytes([4, 2, 7, 0, 0, 0, 8, 0, 0, 0])]).to_pylist()
        [[7, 8]]
    """
    kind, _, details = encoding.partition(":")
    if kind == "ndarray":
        data_type, _, shape = details.partition(":")
        if data_type and data_type not in _NAMES:
            raise ValueError(f"column {name!r} has the encoding {encoding!r}")
        return _ArrayDecoder(_NAMES.get(data_type), has_shape=bool(shape))
    if kind in _NAMES:
        return _NumberDecoder(np.dtype(_NAMES[kind]))
    if kind in _TEXTS:
        return _TextDecoder()
    if kind == "json":
        return _IntegerListDecoder() if name in _TOKEN_COLUMNS else _JsonDecoder()
    return _ArrayDecoder("<i8", has_shape=True) if kind == "bytes" and name in _TOKEN_COLUMNS else _BytesDecoder()


class _ArrayDecoder(MdsDecoder):
    """Arrays of numbers, flattened. Data type and shape come before the values unless the encoding has them."""

    def __init__(self, data_type: str | None, *, has_shape: bool) -> None:
        self._type, self._has_shape = data_type, has_shape

    def decode(self, values: Sequence[bytes]) -> pa.Array:
        kinds, bodies = [], []
        for value in values:
            kind, begin = self._type, 0
            if kind is None:
                kind, begin = _data_type(value), 1
            kinds.append(kind)
            bodies.append(memoryview(value)[begin if self._has_shape else _end_of_shape(value, begin) :])
        if len(set(kinds)) == 1:
            flat = np.frombuffer(b"".join(bodies), kinds[0])
            lengths = [len(body) // np.dtype(kinds[0]).itemsize for body in bodies]
        else:
            arrays = [np.frombuffer(body, kind) for body, kind in zip(bodies, kinds, strict=True)]
            flat = np.concatenate([np.zeros(0, self._type or "<i8"), *arrays])
            lengths = [len(array) for array in arrays]
        return list_of_numbers(flat, lengths)


class _NumberDecoder(MdsDecoder):
    def __init__(self, kind: np.dtype[Any]) -> None:
        self._type = kind

    def decode(self, values: Sequence[bytes]) -> pa.Array:
        return number_array(np.frombuffer(b"".join(values), self._type))


class _TextDecoder(MdsDecoder):
    def decode(self, values: Sequence[bytes]) -> pa.Array:
        return pa.array([value.decode() for value in values], pa.large_string())


class _BytesDecoder(MdsDecoder):
    def decode(self, values: Sequence[bytes]) -> pa.Array:
        return pa.array(values, pa.large_binary())


class _JsonDecoder(MdsDecoder):
    def decode(self, values: Sequence[bytes]) -> pa.Array:
        return array_of_any([json.loads(value) for value in values])


class _IntegerListDecoder(MdsDecoder):
    def decode(self, values: Sequence[bytes]) -> pa.Array:
        return list_of_integers([json.loads(value) for value in values])


def _data_type(value: bytes) -> str:
    """Read the data type that an array begins with."""
    kind = _DATA_TYPES.get(value[0]) if value else None
    if kind is None:
        raise ValueError("an array has no data type")
    return kind


def _end_of_shape(value: bytes, begin: int) -> int:
    """Return where the values of an array begin, after the number of dimensions and their sizes."""
    if len(value) <= begin:
        raise ValueError("an array has no shape")
    return begin + 1 + (value[begin] >> 2) * (1 << (value[begin] & 3))
