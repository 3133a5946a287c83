"""Token columns of rows that were tokenized before they came: checked, without padding, and with labels from masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import (
    ATTENTION_MASK,
    IGNORE_INDEX,
    INPUT_IDS,
    LABELS,
    LOSS_MASKS,
    POSITION_IDS,
    SHIFTED_LABELS,
    TOKEN_COLUMNS,
    Batch,
    Ragged,
    Row,
    has_shifted_labels,
    masked_labels,
    trained_mask,
)
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS, loss_weight
from sftkit.handlers.base import map_rows

_OPTIONAL = (ATTENTION_MASK, *LOSS_MASKS, LOSS_WEIGHTS)
"""Columns that may be null in some rows."""


def token_columns_of(row: Row, batch: Batch) -> tuple[bool, ...]:
    """Return which token columns a row has; rows with different ones must not be read together."""
    columns = (*TOKEN_COLUMNS, *LOSS_MASKS, LOSS_WEIGHTS)
    return tuple(
        name in batch.tokens or (name in row and (name not in _OPTIONAL or row[name] is not None)) for name in columns
    )


def read_token_columns(batch: Batch, log: RowLog, *, reads_masks: bool) -> Batch:
    """Convert token columns that are Python lists to flat arrays, remove padding, and turn masks into labels.

    Rows are quarantined if a column does not hold ids (or 0 and 1, or weights), the columns differ in length, or masks
    and labels contradict each other.

    Args:
        batch: rows that have the same token columns (`token_columns_of`).
        log: records the quarantined rows.
        reads_masks: read the columns `LOSS_MASKS`, which say what carries a loss: what all of them say; and
            `loss_weights`, which says how much. Rows whose labels are shifted, or whose `position_ids` tell several
            sequences, are quarantined.
    """
    columns: tuple[str, ...] = (*TOKEN_COLUMNS, *LOSS_MASKS) if reads_masks else TOKEN_COLUMNS
    if reads_masks and (INPUT_IDS in batch.tokens or _has(batch, INPUT_IDS)):
        columns = (*columns, LOSS_WEIGHTS)
    names = [name for name in columns if name not in batch.tokens and _has(batch, name)]
    for name in names:
        batch, lists = map_rows(batch, log, partial(_READERS.get(name, _flags_in), name))
        if name not in LOSS_MASKS:
            batch = batch.with_rows(_without(batch, name))
        dtype = np.float32 if name == LOSS_WEIGHTS else np.int32
        batch = batch.with_tokens(**{name: Ragged.from_lists(lists, dtype)})
    if LOSS_WEIGHTS in columns and LOSS_WEIGHTS not in batch.tokens:
        batch = batch.with_rows(_without(batch, LOSS_WEIGHTS))  # null in all rows
    if INPUT_IDS not in batch.tokens or not len(batch):
        return batch
    unequal = _unequal(batch, columns)
    batch = _quarantine(batch, log, [_length_problem(batch, columns, row) for row in unequal], unequal)
    if reads_masks:
        batch, _ = map_rows(batch, log, _check_positions)
    batch = _without_padding(batch, log)
    if reads_masks and LABELS in batch.tokens:
        shifted: list[int] = np.flatnonzero(has_shifted_labels(batch.tokens[INPUT_IDS], batch.tokens[LABELS])).tolist()
        batch = _quarantine(batch, log, [SHIFTED_LABELS] * len(shifted), shifted)
    masks = [name for name in LOSS_MASKS if name in batch.tokens]
    return _with_labels(batch, log, masks) if masks else batch


def _has(batch: Batch, name: str) -> bool:
    return any(row.get(name) is not None if name in _OPTIONAL else name in row for row in batch.rows)


def _ids_in(name: str, row: Row) -> list[int]:
    ids = _list_in(name, row)
    if ids is None or not all(type(value) is int and -(2**31) <= value < 2**31 for value in ids):
        raise RowError(f"column {name!r} must be a list of whole numbers (32 bits)")
    return ids


def _flags_in(name: str, row: Row) -> list[int]:
    flags = _list_in(name, row)
    if flags is None or not all(isinstance(value, (bool, int)) and value in (0, 1) for value in flags):
        raise RowError(f"column {name!r} must be a list of zeros and ones")
    return [int(value) for value in flags]


def _weights_in(name: str, row: Row) -> list[float]:
    values = _list_in(name, row)
    weights = [weight for weight in map(loss_weight, values or ()) if weight is not None]
    if values is None or len(weights) < len(values):
        raise RowError(f"column {name!r} must be a list of numbers, each 0 or more")
    return weights


_READERS: Mapping[str, Callable[[str, Row], Sequence[float]]] = MappingProxyType(
    {INPUT_IDS: _ids_in, LABELS: _ids_in, LOSS_WEIGHTS: _weights_in}
)
"""What reads a column; the others hold zeros and ones."""


def _without(batch: Batch, name: str) -> list[Row]:
    if not any(name in row for row in batch.rows):
        return batch.rows
    return [{key: value for key, value in row.items() if key != name} for row in batch.rows]


def _list_in(name: str, row: Row) -> list[Any] | None:
    values = row.get(name)
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list):
        return None
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _check_positions(row: Row) -> None:
    """Refuse a row that is a pack of several sequences: their positions start again within the row."""
    positions = _list_in(POSITION_IDS, row)
    if positions and any(type(position) is not int for position in positions):
        raise RowError(f"column {POSITION_IDS!r} must be a list of whole numbers")
    if positions and any(position == 0 < before for before, position in pairwise(positions)):
        raise RowError(
            f"{POSITION_IDS} start again from 0: the row is a pack of several sequences, which cannot be processed "
            "again; use the rows that it was packed from, or give the file to `train`"
        )


def _unequal(batch: Batch, columns: Sequence[str]) -> list[int]:
    """Return the rows in which some of these columns differ in length."""
    lengths = batch.tokens[INPUT_IDS].lengths
    equal = np.ones(len(batch), np.bool_)
    for name in columns:
        if name in batch.tokens:
            equal &= batch.tokens[name].lengths == lengths
    rows: list[int] = np.flatnonzero(~equal).tolist()
    return rows


def _length_problem(batch: Batch, columns: Sequence[str], row: int) -> str:
    lengths = {name: len(batch.tokens[name][row]) for name in columns if name in batch.tokens}
    length = lengths[INPUT_IDS]
    name, other = next((name, other) for name, other in lengths.items() if other != length)
    return f"{INPUT_IDS} and {name} differ in length ({length} and {other})"


def _quarantine(batch: Batch, log: RowLog, reasons: Sequence[str], rows: Sequence[int]) -> Batch:
    """Quarantine some rows."""
    kept = np.ones(len(batch), np.bool_)
    for reason, row in zip(reasons, rows, strict=True):
        kept[row] = False
        log.quarantine(int(batch.numbers[row]), reason, batch.rows[row])
    return batch.filter(kept)


def _without_padding(batch: Batch, log: RowLog) -> Batch:
    """Remove the positions whose attention mask is 0 from all token columns."""
    if ATTENTION_MASK not in batch.tokens:
        return batch
    attention = batch.tokens[ATTENTION_MASK]
    other = (attention.values != 0) & (attention.values != 1)
    if other.any():
        wrong: list[int] = np.flatnonzero(attention.count_per_row(other)).tolist()
        reason = f"column {ATTENTION_MASK!r} must be a list of zeros and ones"
        batch = _quarantine(batch, log, [reason] * len(wrong), wrong)
        attention = batch.tokens[ATTENTION_MASK]
    kept = attention.values == 1
    if kept.all():
        return batch
    return batch.with_tokens(
        **{
            name: column.select(kept)
            for name, column in batch.tokens.items()
            if np.array_equal(column.offsets, attention.offsets)
        }
    )


def _with_labels(batch: Batch, log: RowLog, masks: Sequence[str]) -> Batch:
    """Return the rows with the labels that masks say, and without the masks."""
    ids = batch.tokens[INPUT_IDS]
    trained = np.logical_and.reduce([batch.tokens[name].values == 1 for name in masks])
    labels = Ragged(np.where(trained, ids.values, np.int32(IGNORE_INDEX)).astype(np.int32), ids.offsets)
    given = batch.tokens.get(LABELS)
    if given is not None:
        given = masked_labels(given, trained)
    others = {name: column for name, column in batch.tokens.items() if name not in masks}
    batch = Batch(batch.rows, batch.numbers, {**others, LABELS: labels if given is None else given})
    if given is None:
        return batch
    different: list[int] = np.flatnonzero(labels.count_per_row(trained_mask(labels) != trained_mask(given))).tolist()
    reason = f"{LABELS} and {' and '.join(masks)} train different tokens; remove the column that is wrong"
    return _quarantine(batch, log, [reason] * len(different), different)
