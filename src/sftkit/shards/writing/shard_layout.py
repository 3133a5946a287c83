"""The columns of shards, and the staged units that they are made from."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from sftkit.core.rows import PADDING, SEQ_LENGTHS, SOURCE
from sftkit.core.token_kinds import KIND_NUMBERS, TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.shards.pack_padding import PackPadding
from sftkit.shards.retained_columns import RETAINED, writable_field
from sftkit.shards.staging.staged_unit import STAGED_TEXT
from sftkit.shards.trainer_columns import TrainerColumns, trainer_schema, trainer_table
from sftkit.storage.paths import AnyPath

_TOKENS = pa.list_(pa.int32())
_TYPES = {TOKEN_KINDS: pa.list_(pa.int8()), LOSS_WEIGHTS: pa.list_(pa.float32())}
"""Types of token columns that are not lists of ids."""

KINDS_METADATA = f"sftkit.{TOKEN_KINDS}"
"""Key of the metadata of shards with token kinds: their numbers by name, as JSON."""


@dataclass(frozen=True)
class ShardLayout:
    """Where the rows of a data set come from, and which columns its shards have."""

    unit_paths: tuple[AnyPath, ...]
    """Files of the staged units, in the order in which their rows are numbered."""
    unit_rows: tuple[int, ...]
    """Rows of each unit."""
    token_columns: tuple[str, ...]
    text_column: str | None
    retained: pa.Schema
    """Names and types of the retained columns of one row."""
    is_packed: bool = False
    """Whether a row of the shards is a pack of several sequences."""
    unit_loss_weights: tuple[float, ...] = ()
    """What the loss weights of each unit's rows are multiplied by; () if the shards have no loss weights."""
    weighted_units: frozenset[int] = frozenset()
    """The units that have loss weights of their own, by their index."""
    unit_sources: tuple[int, ...] = ()
    """The number of each unit's data set; () if the shards have no column `source`."""
    padding: PackPadding | None = None
    """How packs are padded; None if they are not."""
    trainer: TrainerColumns | None = None
    """The columns of another trainer that Parquet files have; None for those of sftkit."""

    @property
    def parquet_schema(self) -> pa.Schema:
        """The schema of Parquet files: `schema`, with the columns of another trainer."""
        return self.schema if self.trainer is None else trainer_schema(self.schema, self.trainer)

    def parquet_table(self, table: pa.Table) -> pa.Table:
        """Make the columns of Parquet files of rows with the columns of `schema`."""
        return table if self.trainer is None else trainer_table(table, self.parquet_schema, self.trainer)

    @property
    def schema(self) -> pa.Schema:
        """The columns of sftkit: token columns, `seq_lengths` and `padding` of packs, `source`, the text column, then
        retained columns.

        In packs `source` and a retained column are lists with one entry per sequence. If there are token
        kinds, the metadata has their names.

        Raises:
            DataError: Parquet has no type for a retained column.
        """
        fields = [pa.field(name, _TYPES.get(name, _TOKENS)) for name in self.token_columns]
        if self.is_packed:
            fields.append(pa.field(SEQ_LENGTHS, _TOKENS))
        if self.padding is not None:
            fields.append(pa.field(PADDING, pa.int32()))
        if self.unit_sources:
            fields.append(pa.field(SOURCE, pa.list_(pa.int32()) if self.is_packed else pa.int32()))
        if self.text_column is not None:
            fields.append(pa.field(self.text_column, pa.string()))
        retained = self.retained_fields
        if self.is_packed:
            retained = [pa.field(field.name, pa.list_(field.type)) for field in retained]
        metadata = {KINDS_METADATA: json.dumps(KIND_NUMBERS)} if TOKEN_KINDS in self.token_columns else None
        return pa.schema([*fields, *retained], metadata)

    def staged_columns(self, unit: int) -> tuple[str, ...]:
        """The columns to read from a staged unit, given its index."""
        tokens = [name for name in self.token_columns if name != LOSS_WEIGHTS or unit in self.weighted_units]
        text = () if self.text_column is None else (STAGED_TEXT,)
        return (*tokens, *text, *((RETAINED,) if len(self.retained) else ()))

    @property
    def retained_fields(self) -> list[pa.Field]:
        """The retained columns of one row, with types that Parquet supports."""
        return [writable_field(field) for field in self.retained]

    @property
    def dictionary_columns(self) -> list[str]:
        """Parquet paths of the columns whose values may repeat, and so are worth a dictionary."""
        tokens = [f"{name}.list.element" for name in self.token_columns if name in _TYPES]
        rows = [*self.retained.names, *((SOURCE,) if self.unit_sources else ())]
        return [f"{name}.list.element" if self.is_packed else name for name in rows] + tokens
