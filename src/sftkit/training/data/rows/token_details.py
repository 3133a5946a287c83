"""Columns that say more of each token than its label: the source of its sequence, its kind, and its weight in the loss.

Sources and kinds divide the loss into parts. The number of a part is source * len(TokenKind) + kind; without a column
of sources, or of kinds, all tokens are of source 0, or of the kind `content`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sftkit.core.rows import SOURCE, Ids, Mask, Ragged, Weights, lengths_to_offsets
from sftkit.core.token_kinds import TOKEN_KINDS, TRAINED_KINDS, TokenKind
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import DataError
from sftkit.storage.paths import AnyPath
from sftkit.training.data.rows.token_columns import read_token_lists

DETAIL_COLUMNS = (SOURCE, TOKEN_KINDS, LOSS_WEIGHTS)


@dataclass(frozen=True)
class PartNames:
    """The names of the parts of a loss.

    Example:
        >>> names = PartNames(("math", "code"), has_kinds=True)
        >>> len(names), names.groups()["source/code"], names.groups()["reasoning"]
        (10, [5, 6, 7, 8, 9], [2, 7])
    """

    sources: tuple[str, ...]
    """By number; empty if there is no column of them."""

    has_kinds: bool

    def __len__(self) -> int:
        return max(len(self.sources), 1) * len(TokenKind)

    def groups(self) -> dict[str, list[int]]:
        """What is logged, by name: the numbers of the parts of each source, and of each kind."""
        numbers = np.arange(len(self)).reshape(-1, len(TokenKind))
        groups = {f"source/{name}": numbers[source].tolist() for source, name in enumerate(self.sources)}
        kinds = TRAINED_KINDS if self.has_kinds else ()
        return groups | {kind.label: numbers[:, kind].tolist() for kind in kinds}


@dataclass(frozen=True)
class TokenDetails:
    """What is known of some tokens beside ids and labels."""

    parts: Ids | None = None
    """The part of the loss that each token belongs to, shape (tokens,); None without columns of sources and kinds."""

    weights: Weights | None = None
    """The weight of each token in the loss, shape (tokens,); None if all have the same."""

    def at(self, tokens: Mask | npt.NDArray[Any] | slice) -> TokenDetails:
        """The details of some tokens: a mask, positions, or a slice (which gives views)."""
        return TokenDetails(
            None if self.parts is None else self.parts[tokens], None if self.weights is None else self.weights[tokens]
        )

    def copy(self) -> TokenDetails:
        """A copy that shares no memory."""
        return TokenDetails(
            None if self.parts is None else self.parts.copy(), None if self.weights is None else self.weights.copy()
        )


NO_DETAILS = TokenDetails()


def concatenate_details(details: Sequence[TokenDetails]) -> TokenDetails:
    """The details of the tokens of several sequences in order; all must have the same columns, and there is one."""
    parts = [each.parts for each in details if each.parts is not None]
    weights = [each.weights for each in details if each.weights is not None]
    return TokenDetails(np.concatenate(parts) if parts else None, np.concatenate(weights) if weights else None)


class DetailReader:
    """Reads the detail columns of some rows, and says which row is wrong."""

    def __init__(self, path: AnyPath, first_row: int, table: pa.Table, input_ids: Ragged) -> None:
        """Set up the reader.

        Args:
            path: the file, for messages.
            first_row: number of the first row in it, from 1.
            table: some rows of the file, with the detail columns that are to be read.
            input_ids: their ids, as in the file.
        """
        self._path, self._first_row, self._table, self._ids = path, first_row, table, input_ids

    def read(self, kept: Mask | None, lengths: Ragged, sources: int) -> TokenDetails:
        """Read the columns.

        Args:
            kept: which tokens are no padding, shape (tokens,); None for all.
            lengths: tokens of each sequence of each row, without padding.
            sources: how many sources there are.

        Raises:
            DataError: a column is not as long as `input_ids`, or holds what it cannot; the row is named as `path:row`.
        """
        names = self._table.column_names
        parts: Ids | None = None
        if SOURCE in names:
            parts = np.repeat(self._sources(lengths, sources), lengths.values) * np.int32(len(TokenKind))
        if TOKEN_KINDS in names:
            kinds = self._kinds() if kept is None else self._kinds()[kept]
            parts = kinds if parts is None else parts + kinds
        elif parts is not None:
            parts = parts + np.int32(TokenKind.CONTENT)
        weights = self._weights() if LOSS_WEIGHTS in names else None
        return TokenDetails(parts, weights if weights is None or kept is None else weights[kept])

    def _sources(self, lengths: Ragged, count: int) -> Ids:
        """The source of each sequence."""
        column = self._table.column(SOURCE)
        if pa.types.is_integer(column.type):
            if column.null_count:
                raise self._error(int(np.asarray(column.is_null()).argmax()), f"{SOURCE} is null")
            per_row = np.asarray(pc.cast(column, pa.int32(), safe=False))
            found = Ragged(np.repeat(per_row, lengths.lengths), lengths.offsets)
        else:
            found = self._lists(SOURCE)
        unequal = found.lengths != lengths.lengths
        if unequal.any():
            row = int(unequal.argmax())
            raise self._error(
                row, f"{len(lengths[row])} sequences and {len(found[row])} in {SOURCE}; there must be as many of each"
            )
        wrong = (found.values < 0) | (found.values >= count)
        self._check(found, wrong, f"{SOURCE} is not the number of one of the {count} sources in manifest.json")
        return found.values

    def _kinds(self) -> Ids:
        """The kind of each token; content where none is given."""
        column = self._lists(TOKEN_KINDS)
        self._check_lengths(TOKEN_KINDS, column)
        wrong = (column.values < 0) | (column.values >= len(TokenKind))
        self._check(column, wrong, f"{TOKEN_KINDS} has a number that is no kind of token (0 to {len(TokenKind) - 1})")
        kinds: Ids = np.where(column.values == TokenKind.UNTRAINED, np.int32(TokenKind.CONTENT), column.values)
        return kinds

    def _lists(self, name: str) -> Ragged:
        return read_token_lists(self._path, self._table, name, self._first_row)

    def _weights(self) -> Weights:
        """The weight of each token."""
        column = self._table.column(LOSS_WEIGHTS)
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        value = column.type.value_type if is_list else None
        if value is None or not (pa.types.is_floating(value) or pa.types.is_integer(value)):
            raise DataError(f"{self._path}: column {LOSS_WEIGHTS} must hold lists of numbers, not {column.type}")
        if column.null_count:
            raise self._error(int(np.asarray(column.is_null()).argmax()), f"{LOSS_WEIGHTS} is null")
        values = np.asarray(pc.cast(pc.fill_null(pc.list_flatten(column), float("nan")), pa.float32(), safe=False))
        offsets = lengths_to_offsets(np.asarray(pc.list_value_length(column), dtype=np.int64))
        rows = Ragged(np.zeros(len(values), np.int32), offsets)
        self._check_lengths(LOSS_WEIGHTS, rows)
        self._check(rows, ~(np.isfinite(values) & (values >= 0)), f"{LOSS_WEIGHTS} must be numbers of at least 0")
        return values

    def _check_lengths(self, name: str, column: Ragged) -> None:
        unequal = column.lengths != self._ids.lengths
        if unequal.any():
            row = int(unequal.argmax())
            counts = f"{len(self._ids[row])} input_ids and {len(column[row])} {name}"
            raise self._error(row, f"{counts}; there must be as many of each")

    def _check(self, column: Ragged, wrong: Mask, reason: str) -> None:
        if wrong.any():
            raise self._error(int(np.searchsorted(column.offsets, int(wrong.argmax()), side="right")) - 1, reason)

    def _error(self, row: int, reason: str) -> DataError:
        return DataError(f"{self._path}:{self._first_row + row}: {reason}")
