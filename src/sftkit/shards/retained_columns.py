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

MAX_DEPTH = 96
"""How deeply a value may be nested: 1 for each object and 2 for each list, as Parquet counts. pyarrow (`datasets`,
pandas) writes more, but opens no file above 98. A pack adds 2."""

MAX_FIELDS = 10_000
"""How many fields all objects in retained columns may have together. Each is a column of the Parquet file."""

_TEXT = pa.string()
_CANNOT_CONVERT = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError)

_REMEDY = "convert the column to text, or leave it out of retain_columns"
_TOO_DEEP = f"nested too deeply for Parquet readers (2 for each list and 1 for each object, at most {MAX_DEPTH})"


class RetainedColumnError(DataError):
    """The values of a retained column have no common type, or one that Parquet readers do not open."""

    def __init__(self, message: str, row_index: int) -> None:
        super().__init__(message)
        self.row_index = row_index
        """Index, within its batch, of the first row whose value does not fit those before it."""


def encode_retained(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Encode the retained columns of a row as JSON; a column that the row lacks is left out.

    Raises:
        RetainedColumnError: a value is nested too deeply.
    """
    try:
        return json.dumps({name: row[name] for name in names if name in row}, ensure_ascii=False, default=str)
    except RecursionError:
        raise RetainedColumnError(f"retain_columns: a column is {_TOO_DEEP}", 0) from None


def storage_problem(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Say why the retained columns of a row cannot be stored, whatever other rows hold; None if they can."""
    try:
        unify_schemas([infer_schema([encode_retained(row, names)], names)])
    except DataError as error:
        return str(error)
    return None


def infer_schema(texts: Sequence[str], names: Sequence[str]) -> pa.Schema:
    """Infer the types of retained columns from their JSON (a date, for instance, has become text).

    Raises:
        RetainedColumnError: the values of one column have different types, or are nested too deeply.
    """
    rows = [json.loads(text) for text in texts] if names else []
    fields = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            field = pa.field(name, pa.array(values).type)
            if _depth(field.type) > MAX_DEPTH:
                raise RecursionError
            fields.append(field)
        except RecursionError:
            raise RetainedColumnError(f"retain_columns: column {name!r} is {_TOO_DEEP}", 0) from None
        except _CANNOT_CONVERT as error:
            message = f"retain_columns: column {name!r} holds values of different types: {first_line(error)}; {_REMEDY}"
            raise RetainedColumnError(message, _first_mismatch(values)) from None
    return pa.schema(fields)


def unify_schemas(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Merge schemas whose columns may differ in type (null and text, integers and floats).

    Raises:
        DataError: no one type can hold all values of a column, or there are too many fields.
    """
    try:
        unified = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        message = f"retain_columns: a column holds values of different types: {first_line(error)}; {_REMEDY}"
        raise DataError(message) from None
    fields = sum(_fields(field.type) for field in unified)
    if fields > MAX_FIELDS:
        raise RetainedColumnError(
            f"retain_columns: the objects in the columns have {fields} different keys, more than {MAX_FIELDS}; convert "
            "the columns to text",
            0,
        )
    return unified


def writable_field(field: pa.Field) -> pa.Field:
    """Return the field with a type that Parquet and its readers support.

    A column that is always null becomes text, and so do objects that never have a key (`{}`).
    """
    return pa.field(field.name, _TEXT if pa.types.is_null(field.type) else _without_empty_structs(field.type))


def retained_array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    """Convert the values of a retained column to the type that it has in the shards.

    Raises:
        DataError: a value cannot be converted without loss.
    """
    try:
        return pa.array(values, field.type)
    except _CANNOT_CONVERT:
        pass  # objects without a key have to be converted first, or the values do not fit
    try:
        return pa.array([_with_text_of_empty_objects(value, field.type) for value in values], field.type)
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


def _depth(kind: pa.DataType) -> int:
    """Return how deeply a type is nested; see `MAX_DEPTH`."""
    if pa.types.is_struct(kind):
        return 1 + max((_depth(kind.field(index).type) for index in range(kind.num_fields)), default=0)
    return 2 + _depth(kind.value_type) if pa.types.is_list(kind) else 0


def _fields(kind: pa.DataType) -> int:
    """Return how many columns of a Parquet file a type takes."""
    if pa.types.is_struct(kind):
        return sum(_fields(kind.field(index).type) for index in range(kind.num_fields))
    return _fields(kind.value_type) if pa.types.is_list(kind) else 1


def _without_empty_structs(kind: pa.DataType) -> pa.DataType:
    """Return a type with text in place of structs without fields, which Parquet cannot hold."""
    if pa.types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return pa.struct([each.with_type(_without_empty_structs(each.type)) for each in fields]) if fields else _TEXT
    return pa.list_(_without_empty_structs(kind.value_type)) if pa.types.is_list(kind) else kind


def _with_text_of_empty_objects(value: Any, kind: pa.DataType) -> Any:
    """Return a value with `"{}"` where an object without keys takes the place of text."""
    if value == {} and kind == _TEXT:
        return "{}"
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {name: _with_text_of_empty_objects(each, kind.field(name).type) for name, each in value.items()}
    if pa.types.is_list(kind) and isinstance(value, list):
        return [_with_text_of_empty_objects(each, kind.value_type) for each in value]
    return value
