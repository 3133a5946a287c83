"""The columns of shards."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from sftkit.core.rows import SEQ_LENGTHS
from sftkit.errors import DataError
from sftkit.shards.staging.unit_writer import EXTRAS
from sftkit.storage.paths import AnyPath

_TOKENS = pa.list_(pa.int32())


@dataclass(frozen=True)
class ShardColumns:
    """What the shards of a data set are made of: staged files in order, the rows of each, and the columns.

    extras: names and types of the retained columns, of one row. is_packed: a row of the shards is many sequences.
    """

    paths: tuple[AnyPath, ...]
    rows: tuple[int, ...]
    token_columns: tuple[str, ...]
    text_column: str | None
    extras: pa.Schema
    is_packed: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The Parquet schema: token columns, what tells sequences apart, then text, then what the config retains (of
        packs in lists, an entry a sequence).

        Raises:
            DataError: Parquet has no type for what is retained.
        """
        fields = [pa.field(name, _TOKENS) for name in self.token_columns]
        if self.is_packed:
            fields.append(pa.field(SEQ_LENGTHS, _TOKENS))
        if self.text_column is not None:
            fields.append(pa.field(self.text_column, pa.string()))
        concrete = self.concrete_extras
        return pa.schema(
            [*fields, *(pa.field(each.name, pa.list_(each.type)) for each in concrete)]
            if self.is_packed
            else [*fields, *concrete]
        )

    @property
    def staged_columns(self) -> tuple[str, ...]:
        """The columns of the staged files that rows are made of."""
        text = () if self.text_column is None else (self.text_column,)
        return (*self.token_columns, *text, *((EXTRAS,) if len(self.extras) else ()))

    @property
    def concrete_extras(self) -> list[pa.Field]:
        """The retained columns, each with a type that can be written."""
        return [_concrete(field) for field in self.extras]

    @property
    def repetitive_columns(self) -> list[str]:
        """Columns, as Parquet names them, that may hold the same again and again."""
        return [f"{name}.list.element" if self.is_packed else name for name in self.extras.names]


def _concrete(field: pa.Field) -> pa.Field:
    """A column that was null in every row still needs a type that other tools can read.

    Raises:
        DataError: Parquet has no type for what it holds.
    """
    if _is_empty_struct(field.type):
        raise DataError(f"retained column {field.name!r} holds objects without a single key, which Parquet cannot hold")
    return pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field


def _is_empty_struct(kind: pa.DataType) -> bool:
    """Whether a type is, or holds, a struct without fields."""
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_is_empty_struct(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_list(kind) and _is_empty_struct(kind.value_type)
