"""The columns of Parquet shards that other trainers read, made from those of sftkit when a shard is written.

Sources: `SFTTrainer` of TRL 1.16 and 0.24, `axolotl.utils.data` and `axolotl.core.builders.causal` of axolotl 0.19,
`llamafactory.data` of LLaMA-Factory 0.9.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.config.schema.option_values import AXOLOTL, LLAMAFACTORY, TRL
from sftkit.core.rows import (
    ATTENTION_MASK,
    IGNORE_INDEX,
    LABELS,
    PADDING,
    POSITION_IDS,
    SEQ_LENGTHS,
    Mask,
    Offsets,
    Ragged,
    lengths_to_offsets,
)
from sftkit.shards.arrow_arrays import list_array, number_array, numpy_view, ragged_view

COMPLETION_MASK = "completion_mask"
ASSISTANT_MASKS = "assistant_masks"
LENGTH = "length"
"""Tokens of a row; axolotl's packing reads it."""

_TYPES = {
    COMPLETION_MASK: pa.list_(pa.int8()),
    ASSISTANT_MASKS: pa.list_(pa.int8()),
    ATTENTION_MASK: pa.list_(pa.int32()),
    POSITION_IDS: pa.list_(pa.int32()),
    LENGTH: pa.int32(),
}


@dataclass(frozen=True)
class TrainerColumns:
    """The columns that a trainer reads."""

    rows: tuple[str, ...]
    """Added to rows that are not packed."""
    packs: tuple[str, ...]
    """Added to packs."""
    replaces: tuple[str, ...] = ()
    """Columns of packs that the added ones replace."""
    is_strict: bool = False
    """Whether the trainer passes every column to the model, so that there must be no other."""
    numbers_sequences: bool = False
    """Whether `attention_mask` is the number of the sequence, from 1, instead of 1."""
    pack_multiple: int = 1
    """Tokens: all packs are padded to the same multiple of it; 1 for packs as long as their sequences."""

    def added(self, *, is_packed: bool) -> tuple[str, ...]:
        """The names of the columns that are added."""
        return self.packs if is_packed else self.rows


TRAINER_COLUMNS: Mapping[str, TrainerColumns] = MappingProxyType(
    {
        # `labels` decide in TRL 1.16. Older releases drop them where they pack, and read the masks.
        TRL: TrainerColumns((COMPLETION_MASK, ASSISTANT_MASKS), (COMPLETION_MASK, ASSISTANT_MASKS)),
        # Its loader takes rows with `attention_mask` for tokenized ones. `length` and `position_ids` are those that
        # its own preparation writes, which packs must not run through.
        AXOLOTL: TrainerColumns(
            (ATTENTION_MASK,), (ATTENTION_MASK, POSITION_IDS, LENGTH), (SEQ_LENGTHS, PADDING), is_strict=True
        ),
        # Numbers separate sequences for SDPA and eager attention, positions for flash attention. The collator pads ids
        # to a multiple of 8, but not positions.
        LLAMAFACTORY: TrainerColumns(
            (ATTENTION_MASK,),
            (ATTENTION_MASK, POSITION_IDS),
            (SEQ_LENGTHS, PADDING),
            is_strict=True,
            numbers_sequences=True,
            pack_multiple=8,
        ),
    }
)


def trainer_schema(schema: pa.Schema, columns: TrainerColumns) -> pa.Schema:
    """The schema of shards for a trainer: its columns follow `labels`.

    Example:
        >>> tokens = pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "labels")])
        >>> trainer_schema(tokens, TRAINER_COLUMNS["axolotl"]).names
        ['input_ids', 'labels', 'attention_mask']
    """
    is_packed = SEQ_LENGTHS in schema.names
    fields = [field for field in schema if not is_packed or field.name not in columns.replaces]
    added = [pa.field(name, _TYPES[name]) for name in columns.added(is_packed=is_packed) if name not in schema.names]
    return pa.schema([*fields[:2], *added, *fields[2:]], schema.metadata)


def trainer_table(table: pa.Table, schema: pa.Schema, columns: TrainerColumns) -> pa.Table:
    """Make the columns of a trainer.

    Args:
        table: rows or packs of a shard, with the columns of sftkit.
        schema: that of `trainer_schema`.
        columns: those of the trainer.

    Example:
        >>> lists = {"input_ids": [[5, 6, 7]], "labels": [[-100, 6, -100]], "seq_lengths": [[2, 1]]}
        >>> packs = pa.table({name: pa.array(each, pa.list_(pa.int32())) for name, each in lists.items()})
        >>> axolotl = TRAINER_COLUMNS["axolotl"]
        >>> made = trainer_table(packs, trainer_schema(packs.schema, axolotl), axolotl)
        >>> made.column("position_ids").to_pylist(), made.column("length").to_pylist()
        ([[0, 1, 0]], [3])
    """
    rows = _Rows(table)
    made = {
        name: table.column(name) if name in table.column_names else _column(name, rows, columns)
        for name in schema.names
    }
    return pa.table(made, schema=schema)


class _Rows:
    """The sequences of some rows, or packs."""

    def __init__(self, table: pa.Table) -> None:
        self.labels = ragged_view(table.column(LABELS).combine_chunks(), np.int32)
        self.sequences = Ragged.from_lengths(self.labels.lengths, np.ones(len(self.labels), np.int64))
        """The tokens of the sequences of each row."""
        if SEQ_LENGTHS in table.column_names:
            self.sequences = ragged_view(table.column(SEQ_LENGTHS).combine_chunks(), np.int32)
        self.is_padding: Mask = np.zeros(len(self.sequences.values), np.bool_)
        """Which sequences are padding, shape (sequences,): the last of packs that have some."""
        if PADDING in table.column_names:
            padded = numpy_view(table.column(PADDING).combine_chunks(), np.int32) > 0
            self.is_padding[self.sequences.offsets[1:][padded] - 1] = True

    def of_tokens(self, values: npt.NDArray[Any]) -> Ragged:
        """Repeat the value of each sequence, shape (sequences,), for its tokens."""
        return Ragged(np.repeat(values.astype(np.int32), self.sequences.values), self.labels.offsets)


def _column(name: str, rows: _Rows, columns: TrainerColumns) -> pa.Array:
    sequences = rows.sequences
    if name == LENGTH:
        return number_array(rows.labels.lengths.astype(np.int32))
    if name in (COMPLETION_MASK, ASSISTANT_MASKS):
        return list_array(Ragged((rows.labels.values != IGNORE_INDEX).astype(np.int8), rows.labels.offsets))
    if name == ATTENTION_MASK:
        numbers = np.ones(len(sequences.values), np.int64)
        if columns.numbers_sequences:
            numbers = 1 + np.arange(len(numbers)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
        return list_array(rows.of_tokens(np.where(rows.is_padding, 0, numbers)))
    starts: Offsets = lengths_to_offsets(sequences.values.astype(np.int64))
    positions = np.arange(starts[-1], dtype=np.int32) - rows.of_tokens(starts[:-1]).values
    return list_array(Ragged(positions, rows.labels.offsets))
