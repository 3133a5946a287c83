"""Finds which columns of a file say what about its rows, whichever tool wrote them.

Any list of integers is accepted for `input_ids`. What carries a loss comes from `labels` (-100 where there is none), or
else from masks that are 1 where there is one; with several masks, where all are 1. Where the sequences of a pack begin
comes from `seq_lengths` (sftkit, TRL), `seq_start_id` (NeMo, Megatron-Bridge), `cu_seqlens` or `position_ids` (axolotl,
LLaMA-Factory).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from sftkit.core.rows import ATTENTION_MASK, INPUT_IDS, LABELS, LOSS_MASKS, PADDING, POSITION_IDS, SEQ_LENGTHS, SOURCE
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import SourceError
from sftkit.inspection.columns.flat_columns import flatten, holds_floats, holds_integers, remove_masked
from sftkit.inspection.columns.pack_columns import CU_SEQLENS, SEQ_START_ID, restarts
from sftkit.shards.pack_padding import remove_padding
from sftkit.shards.readers.jsonl_file import JsonLinesRowFile
from sftkit.shards.readers.open_file import open_shard_file
from sftkit.storage.files import file_version
from sftkit.storage.paths import AnyPath
from sftkit.storage.retry import error_reason

TEXT = "text"

_SHIFTED_MASK = "loss_mask"
"""The mask of NeMo's packs. It says which tokens predict a trained token: that of a token is one place before it."""


@dataclass(frozen=True)
class ColumnLayout:
    """Which columns of a file are read."""

    path: AnyPath
    names: tuple[str, ...]
    """All columns of the file."""
    tokens: bool
    """Whether it has `input_ids`."""
    supervision: tuple[str, ...]
    """The columns that say which tokens carry a loss: `labels`, or masks of 0 and 1; () when there are none."""
    boundaries: str | None
    """The column that says where the sequences of packs begin; None where rows are not packed."""
    text: str | None
    """The text column, for files without `input_ids`."""
    kinds: bool = False
    """Whether it has the column `token_kinds`."""
    weights: bool = False
    """Whether it has the column `loss_weights`."""
    sources: bool = False
    """Whether it has the column `source`, with a number for each sequence."""
    padded: bool = False
    """Whether it has the column `padding`, for packs."""
    masked: bool = False
    """Whether it has the column `attention_mask` for packs by `position_ids`: 0 where there is padding."""

    @property
    def packed(self) -> bool:
        """Whether rows are packs."""
        return self.boundaries is not None

    @property
    def has_shifted_mask(self) -> bool:
        """Whether the mask of a token is one place before it, as in NeMo's packs."""
        return self.supervision == (_SHIFTED_MASK,) and self.boundaries == SEQ_START_ID

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        if not self.tokens:
            return [self.text] if self.text is not None else []
        others = (
            *((TOKEN_KINDS, self.kinds), (LOSS_WEIGHTS, self.weights)),
            *((SOURCE, self.sources), (PADDING, self.padded), (ATTENTION_MASK, self.masked)),
        )
        boundaries = [self.boundaries] if self.boundaries is not None else []
        return [INPUT_IDS, *self.supervision, *boundaries, *(name for name, is_there in others if is_there)]


def read_layout(path: AnyPath, text_fields: Sequence[str]) -> ColumnLayout:
    """Find the columns of a file.

    Args:
        path: the file.
        text_fields: names that a text column may have, the most likely first.

    Raises:
        SourceError: it cannot be read, or has neither `input_ids` nor a text column.
    """
    with open_shard_file(path) as file:
        schema: pa.Schema = file.schema
        is_raw = isinstance(file, JsonLinesRowFile)
    names = tuple(schema.names)
    if INPUT_IDS in names:
        masks = tuple(name for name in LOSS_MASKS if name in names)
        boundaries = _boundaries(path, schema)
        return ColumnLayout(
            path,
            names,
            True,
            (LABELS,) if LABELS in names else masks,
            boundaries,
            None,
            kinds=TOKEN_KINDS in names and holds_integers(schema.field(TOKEN_KINDS).type),
            weights=LOSS_WEIGHTS in names and holds_floats(schema.field(LOSS_WEIGHTS).type),
            sources=SOURCE in names and _is_source(schema.field(SOURCE).type, packed=boundaries is not None),
            padded=boundaries == SEQ_LENGTHS and PADDING in names and pa.types.is_integer(schema.field(PADDING).type),
            masked=boundaries == POSITION_IDS
            and ATTENTION_MASK in names
            and holds_integers(schema.field(ATTENTION_MASK).type),
        )
    text = next((name for name in text_fields if name in names and _is_text(schema.field(name).type)), None)
    if text is None:
        or_text = f" and no text column {' or '.join(map(repr, text_fields))} (set dataset_text_field to use another)"
        raise SourceError(
            f"{path}: has no column 'input_ids'{or_text if text_fields else ''}; "
            f"columns there: {', '.join(names) or 'none'}"
            + (f"; to see what raw rows become, give --training_data_path {path}" if is_raw else "")
        )
    return ColumnLayout(path, names, False, (), None, text)


def iter_row_groups(layout: ColumnLayout, first: int = 0) -> Iterator[pa.Table]:
    """Yield the row groups of a file from index `first` on, with the layout's columns, one in memory at a time.

    Packs come without their padding.

    Raises:
        SourceError: the file cannot be read.
        DataError: the padding of a pack is not its last sequence.
    """
    with open_shard_file(layout.path) as file:
        for table in file.iter_groups(layout.columns, first):
            table = remove_padding(table, layout.path)
            yield remove_masked(table, layout.path) if layout.masked else table


def _boundaries(path: AnyPath, schema: pa.Schema) -> str | None:
    """Return the column that says where sequences begin."""
    if SEQ_LENGTHS in schema.names:
        return SEQ_LENGTHS
    lists = [name for name in schema.names if holds_integers(schema.field(name).type)]
    found = next((name for name in (SEQ_START_ID, *CU_SEQLENS) if name in lists), None)
    if found is None and POSITION_IDS in lists and _has_restarts(path):
        return POSITION_IDS
    return found


def _has_restarts(path: AnyPath) -> bool:
    try:
        version = file_version(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error_reason(error)}") from None
    return _known_restarts(path, version)


@lru_cache(maxsize=1024)
def _known_restarts(path: AnyPath, version: tuple[int, int | str]) -> bool:
    """Return whether a row has positions of several sequences; axolotl adds them to rows that are not packed, too."""
    with open_shard_file(path) as file:
        tables = file.iter_groups([POSITION_IDS])
        return any(restarts(flatten(table.column(POSITION_IDS), POSITION_IDS, path)) for table in tables)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_source(kind: pa.DataType, *, packed: bool) -> bool:
    return holds_integers(kind) if packed else bool(pa.types.is_integer(kind))
