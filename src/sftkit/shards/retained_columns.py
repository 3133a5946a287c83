"""Retained columns: JSON text in staged units, one Arrow type per column in shards.

The type of a column is known only once all units are staged: it may be null in one unit and text in another.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sftkit.core.error_text import first_line
from sftkit.errors import DataError

RETAINED = "sftkit_extras"
"""Column of a unit's file: the retained columns of each row as a JSON object."""

_CANNOT_CONVERT = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)


class RetainedColumnError(DataError):
    """The values of a retained column have no common type."""

    def __init__(self, message: str, row_index: int) -> None:
        super().__init__(message)
        self.row_index = row_index
        """Index, within its batch, of the first row whose value does not fit those before it."""


def encode_retained(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Encode the retained columns of a row as JSON; a column that the row lacks is left out."""
    return json.dumps({name: row[name] for name in names if name in row}, ensure_ascii=False, default=str)


def infer_schema(texts: Sequence[str], names: Sequence[str]) -> pa.Schema:
    """Infer the types of retained columns from their JSON (a date, for instance, has become text).

    Raises:
        RetainedColumnError: the values of one column have different types.
    """
    rows = [json.loads(text) for text in texts] if names else []
    fields = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            fields.append(pa.field(name, pa.array(values).type))
        except _CANNOT_CONVERT as error:
            message = f"retain_columns: column {name!r} holds values of different types: {first_line(error)}"
            raise RetainedColumnError(message, _first_mismatch(values)) from None
    return pa.schema(fields)


def unify_schemas(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Merge schemas whose columns may differ in type (null and text, integers and floats).

    Raises:
        DataError: no one type can hold all values of a column.
    """
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"retain_columns: a column holds values of different types: {first_line(error)}") from None


def writable_field(field: pa.Field) -> pa.Field:
    """Return the field with a type that Parquet and its readers support; a column that is always null becomes text.

    Raises:
        DataError: Parquet has no type for it.
    """
    if _has_empty_struct(field.type):
        raise DataError(f"retained column {field.name!r} holds objects without a single key, which Parquet cannot hold")
    return pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field


def retained_array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    """Convert the values of a retained column to the type that it has in the shards.

    Raises:
        DataError: a value cannot be converted without loss.
    """
    try:
        return pa.array(values, field.type)
    except _CANNOT_CONVERT as error:
        raise DataError(
            f"retain_columns: column {field.name!r} has type {field.type} over all rows, and a value does not fit: "
            f"{first_line(error)}; convert the column to text"
        ) from None


def _first_mismatch(values: Sequence[Any]) -> int:
    """Return the index of the first value that has no common type with those before it; there is one."""
    return bisect_left(range(len(values)), True, key=lambda last: not _have_common_type(values[: last + 1]))


def _have_common_type(values: Sequence[Any]) -> bool:
    try:
        pa.array(values)
    except _CANNOT_CONVERT:
        return False
    return True


def _has_empty_struct(kind: pa.DataType) -> bool:
    """Return whether a type is, or contains, a struct without fields."""
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_list(kind) and _has_empty_struct(kind.value_type)
