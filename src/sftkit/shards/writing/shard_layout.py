"""The columns of shards."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from sftkit.core.rows import SEQ_LENGTHS
from sftkit.shards.retained_columns import RETAINED, writable_field
from sftkit.storage.paths import AnyPath

_TOKENS = pa.list_(pa.int32())


@dataclass(frozen=True)
class ShardLayout:
    """What the shards of a data set are made of: staged files in order, the rows of each, and the columns.

    extras: names and types of the retained columns, of one row. is_packed: a row of the shards is many sequences.
    """

    unit_paths: tuple[AnyPath, ...]
    unit_rows: tuple[int, ...]
    token_columns: tuple[str, ...]
    text_column: str | None
    retained: pa.Schema
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
        concrete = self.retained_fields
        return pa.schema(
            [*fields, *(pa.field(each.name, pa.list_(each.type)) for each in concrete)]
            if self.is_packed
            else [*fields, *concrete]
        )

    @property
    def staged_columns(self) -> tuple[str, ...]:
        """The columns of the staged files that rows are made of."""
        text = () if self.text_column is None else (self.text_column,)
        return (*self.token_columns, *text, *((RETAINED,) if len(self.retained) else ()))

    @property
    def retained_fields(self) -> list[pa.Field]:
        """The retained columns, each with a type that can be written."""
        return [writable_field(field) for field in self.retained]

    @property
    def dictionary_columns(self) -> list[str]:
        """Columns, as Parquet names them, that may hold the same again and again."""
        return [f"{name}.list.element" if self.is_packed else name for name in self.retained.names]
