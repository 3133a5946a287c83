"""Shards -> rows a model can be trained on: flat arrays in memory, padded batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

from sftkit.errors import DataError, TrainingError
from sftkit.rows import ATTENTION_MASK, IGNORE_INDEX, INPUT_IDS, LABELS, Mask, Offsets, Ragged, offsets_of
from sftkit.shards.reading import ShardSet
from sftkit.training.distributed import warn_once

_log = logging.getLogger(__name__)

Item = Mapping[str, npt.NDArray[np.int32]]

_MULTIPLE = 8  # tensor cores work on multiples of 8


class TokenDataset(Dataset[Item]):
    """The rows of one split, held as two flat int32 arrays (8 bytes a token, in every process).

    Item i is `{"input_ids": int32 (tokens,), "labels": int32 (tokens,)}`; labels are unshifted, -100 for no loss.
    """

    def __init__(self, input_ids: Ragged, labels: Ragged) -> None:
        self.input_ids = input_ids
        self.labels = labels

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, row: int) -> Item:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return {INPUT_IDS: self.input_ids[row], LABELS: self.labels[row]}


@dataclass(frozen=True)
class RowLimit:
    """The longest row, in tokens, and what happens to a longer one (`overflow`: truncate, drop or error)."""

    tokens: int
    overflow: str


@dataclass(frozen=True)
class PaddingCollator:
    """Rows -> one batch, padded on the right to the longest row, rounded up to a multiple of 8 tokens.

    Gives int64 tensors of shape (rows, width): `input_ids` padded with `pad_token_id`, `labels` with -100, and
    `attention_mask`, 1 where there is a token.
    """

    pad_token_id: int

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Pad the rows to one width."""
        lengths = [len(item[INPUT_IDS]) for item in items]
        shape = (len(items), -(-max(lengths) // _MULTIPLE) * _MULTIPLE)
        input_ids = np.full(shape, self.pad_token_id, np.int64)
        labels = np.full(shape, IGNORE_INDEX, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, (item, length) in enumerate(zip(items, lengths, strict=True)):
            input_ids[row, :length] = item[INPUT_IDS]
            labels[row, :length] = item[LABELS]
            mask[row, :length] = 1
        batch = {INPUT_IDS: input_ids, LABELS: labels, ATTENTION_MASK: mask}
        return {name: torch.from_numpy(values) for name, values in batch.items()}


def load_split(shards: ShardSet, split: str, vocabulary_size: int, limit: RowLimit | None) -> TokenDataset:
    """Read one split into memory.

    Args:
        shards: where the rows are.
        split: `train` or `validation`.
        vocabulary_size: rows of the model's embedding; every token id is below it.
        limit: the longest row there may be; None for any length.

    Raises:
        TrainingError: there are no token columns, no rows, or no row with a trained token.
        DataError: a row cannot be used; it is named as `path:row`.
    """
    _check_columns(shards, split)
    parts = [_read_rows(path, table, first, vocabulary_size) for path, first, table in _numbered(shards, split)]
    input_ids = _joined([part[0] for part in parts])
    labels = _joined([part[1] for part in parts])
    del parts
    if not len(input_ids):
        raise TrainingError(f"{shards.root}: the {split} split has no rows")
    if limit is not None:
        input_ids, labels = _within(limit, input_ids, labels, shards)
    return _with_trained_tokens(input_ids, labels, shards, split)


def _check_columns(shards: ShardSet, split: str) -> None:
    if not shards.splits.get(split):
        there = ", ".join(shards.splits) or "none"
        raise TrainingError(f"{shards.root}: there is no {split} split (there is: {there})")
    names = shards.column_names(split)
    missing = [name for name in (INPUT_IDS, LABELS) if name not in names]
    if missing:
        raise TrainingError(
            f"{shards.splits[split][0]}: no column {' and no column '.join(missing)} (there is: {', '.join(names)});"
            " `sftkit preprocess` makes shards with both"
        )


def _numbered(shards: ShardSet, split: str) -> Iterator[tuple[Path, int, pa.Table]]:
    """Row groups with their file and the number of their first row in it (the first is 1)."""
    current: Path | None = None
    first = 1
    try:
        for path, table in shards.tables(split, [INPUT_IDS, LABELS]):
            first = first if path == current else 1
            current = path
            yield path, first, table
            first += table.num_rows
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{current or shards.root}: cannot be read: {' '.join(str(error).split())}") from None


def _read_rows(path: Path, table: pa.Table, first: int, vocabulary_size: int) -> tuple[Ragged, Ragged]:
    input_ids = _ragged(path, table, INPUT_IDS, first)
    labels = _ragged(path, table, LABELS, first)
    bad = input_ids.lengths != labels.lengths
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{path}:{first + row}: {input_ids.lengths[row]} input_ids but {labels.lengths[row]} labels")
    _check_ids(path, input_ids, first, (input_ids.values < 0) | (input_ids.values >= vocabulary_size), vocabulary_size)
    outside = (labels.values != IGNORE_INDEX) & ((labels.values < 0) | (labels.values >= vocabulary_size))
    _check_ids(path, labels, first, outside, vocabulary_size)
    return input_ids, labels


def _ragged(path: Path, table: pa.Table, name: str, first: int) -> Ragged:
    """A list column of any integer type as flat int32."""
    column = table.column(name)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)):  # fmt: skip
        raise DataError(f"{path}: column {name} must hold lists of token ids, not {column.type}")
    if column.null_count:
        row = int(np.asarray(column.is_null()).argmax())
        raise DataError(f"{path}:{first + row}: {name} is null")
    lengths = np.asarray(pc.list_value_length(column), dtype=np.int64)
    values = pc.list_flatten(column)
    if values.null_count:
        raise DataError(f"{path}: {name} holds a null where a token id should be")
    try:
        flat = np.asarray(pc.cast(values, pa.int32()))
    except pa.ArrowException:
        raise DataError(f"{path}: column {name} must hold lists of token ids, not {column.type}") from None
    return Ragged(flat, offsets_of(lengths))


def _check_ids(path: Path, column: Ragged, first: int, bad: Mask, vocabulary_size: int) -> None:
    if bad.any():
        position = int(bad.argmax())
        row = int(np.searchsorted(column.offsets, position, side="right")) - 1
        raise DataError(
            f"{path}:{first + row}: token id {column.values[position]} is not one of the model's"
            f" {vocabulary_size}; the shards were made with another tokenizer"
        )


def _joined(parts: Sequence[Ragged]) -> Ragged:
    if not parts:
        return Ragged(np.empty(0, np.int32), np.zeros(1, np.int64))
    values = np.concatenate([part.values for part in parts])
    return Ragged(values, offsets_of(np.concatenate([part.lengths for part in parts])))


def _within(limit: RowLimit, input_ids: Ragged, labels: Ragged, shards: ShardSet) -> tuple[Ragged, Ragged]:
    """The rows with nothing longer than the limit."""
    fits = input_ids.lengths <= limit.tokens
    long = int((~fits).sum())
    if not long:
        return input_ids, labels
    what = f"{shards.root}: {long} of {len(fits)} rows are longer than max_seq_length={limit.tokens}"
    if limit.overflow == "error":
        raise DataError(f"{what}; overflow=truncate or drop would use the rest")
    if limit.overflow == "drop":
        warn_once(_log, f"{what} and are left out")
        return input_ids.take(fits), labels.take(fits)
    warn_once(_log, f"{what} and are cut")
    limits: Offsets = np.full(len(fits), limit.tokens, np.int64)
    return input_ids.head(limits), labels.head(limits)


def _with_trained_tokens(input_ids: Ragged, labels: Ragged, shards: ShardSet, split: str) -> TokenDataset:
    """Leave out rows on which there is nothing to learn: a batch of them alone has no loss, and NaN gradients."""
    trained = labels.values != IGNORE_INDEX
    starts = labels.offsets[:-1][labels.lengths > 0]
    trained[starts] = False  # nothing comes before the first token to predict it from
    keep = labels.sums(trained) > 0
    empty = int((~keep).sum())
    if empty == len(keep):
        raise TrainingError(f"{shards.root}: no row of the {split} split has a token that carries a loss")
    if empty:
        warn_once(_log, f"{shards.root}: {empty} of {len(keep)} {split} rows carry no loss and are left out")
    return TokenDataset(input_ids.take(keep), labels.take(keep))
