"""Megatron: indexed data sets (`.bin` and `.idx`) of tokens and of their loss mask, and packed Parquet.

An indexed data set is what `megatron.core.datasets.indexed_dataset.IndexedDataset` reads. A `.bin` file has the numbers
of all sequences. An `.idx` file has a header, the number of sequences and of document boundaries, the length (int32)
and the first byte (int64) of each sequence, and the first sequence of each document and the end of the last (int64).
Here, a document is a row: a pack with its sequences.

The loss mask belongs to the tokens, unshifted, as readers of `_loss_mask_document` expect it (FlagScale's
`SFTDataset`). Packed Parquet has the columns that Megatron-Bridge reads (`GPTSFTPackedParquetDataset`), with a
shifted loss mask.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.rows import Ragged
from sftkit.shards.arrow_arrays import list_array
from sftkit.shards.formats.packed_sequences import (
    HELD_COLUMNS,
    PackedSequences,
    metadata_of,
    pad,
    problem_with_tokens,
)
from sftkit.shards.formats.parquet_output import ParquetOutput, parquet_output
from sftkit.shards.manifest import FormatFile
from sftkit.shards.writing.row_gatherer import GatheredRows, SequenceSelection
from sftkit.shards.writing.shard_format import (
    FormatOptions,
    NewFile,
    ShardFile,
    ShardFormat,
    ShardPlace,
    WrittenSplit,
    new_file,
)

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_TYPE_CODES = {np.dtype(np.uint8): 1, np.dtype(np.int32): 4}
_ROW_GROUP_ROWS = 500  # as Megatron-Bridge writes; it reads a row group to get one row
_PACKED_SCHEMA = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8())), ("seq_start_id", pa.list_(pa.int32()))]
)


class MegatronShards(ShardFormat):
    """For each shard, in `megatron/`: tokens and loss mask as indexed data sets, and packed Parquet."""

    registered_as = "megatron"

    def problem(self) -> str | None:
        """As `ShardFormat.problem`."""
        return problem_with_tokens(self.layout, self.options)

    def columns_left_out(self) -> Sequence[str]:
        """As `ShardFormat.columns_left_out`."""
        return [name for name in self.layout.schema.names if name not in HELD_COLUMNS]

    @contextmanager
    def open(self, place: ShardPlace, sequences: SequenceSelection) -> Iterator[ShardFile]:
        """As `ShardFormat.open`."""
        name = f"{self.registered_as}/{place.name}"
        with ExitStack() as opened:
            tokens, loss_mask = (
                _IndexedDataset(
                    opened.enter_context(new_file(place.root, f"{name}_{kind}_document.bin")),
                    opened.enter_context(new_file(place.root, f"{name}_{kind}_document.idx")),
                    dtype,
                )
                for kind, dtype in (("text", np.int32), ("loss_mask", np.uint8))
            )
            packed = opened.enter_context(
                parquet_output(
                    place.root, f"{name}.idx.parquet", _PACKED_SCHEMA, use_dictionary=["loss_mask.list.element"]
                )
            )
            yield _MegatronFiles(tokens, loss_mask, packed, self.options)

    def index(self, splits: Mapping[str, WrittenSplit]) -> Mapping[str, bytes]:
        """As `ShardFormat.index`: what Megatron-Bridge needs for `pad_cu_seqlens`."""
        return {f"{self.registered_as}/packed_metadata.json": metadata_of(splits, self.options)}


class _MegatronFiles(ShardFile):
    def __init__(
        self, tokens: _IndexedDataset, loss_mask: _IndexedDataset, packed: ParquetOutput, options: FormatOptions
    ) -> None:
        self._tokens, self._loss_mask, self._packed, self._options = tokens, loss_mask, packed, options

    def write(self, part: GatheredRows) -> None:
        sequences = PackedSequences.of(part)
        lengths, rows = np.diff(sequences.starts), np.diff(sequences.rows)
        self._tokens.write(sequences.ids, lengths, rows)
        self._loss_mask.write(sequences.trained.astype(np.uint8), lengths, rows)
        self._packed.write(_packed_table(pad(sequences, self._options)), _ROW_GROUP_ROWS)

    def finish(self) -> tuple[FormatFile, ...]:
        return (*self._tokens.finish(), *self._loss_mask.finish(), self._packed.finish())


class _IndexedDataset:
    """A `.bin` and an `.idx` file while they are written."""

    def __init__(self, data: NewFile, index: NewFile, dtype: npt.DTypeLike) -> None:
        self._data, self._index, self._dtype = data, index, np.dtype(dtype)
        self._lengths: list[npt.NDArray[np.int64]] = []
        self._rows: list[npt.NDArray[np.int64]] = []

    def write(
        self, values: npt.NDArray[np.generic], lengths: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> None:
        """Append sequences of these lengths, so many for each row."""
        self._data.write(values)
        self._lengths.append(lengths)
        self._rows.append(rows)

    def finish(self) -> tuple[FormatFile, FormatFile]:
        """Write the index."""
        lengths, rows = np.concatenate(self._lengths), np.concatenate(self._rows)
        code = _TYPE_CODES[self._dtype]
        self._index.write(_MAGIC + struct.pack("<QBQQ", _VERSION, code, len(lengths), len(rows) + 1))
        self._index.write(lengths.astype(np.int32))
        self._index.write((np.cumsum(lengths) - lengths) * self._dtype.itemsize)
        self._index.write(np.concatenate(([0], np.cumsum(rows))).astype(np.int64))
        return self._data.record(len(rows)), self._index.record(None)


def _packed_table(sequences: PackedSequences) -> pa.Table:
    """Return rows with the columns that Megatron-Bridge reads."""
    tokens = sequences.token_rows
    columns = [
        Ragged(sequences.ids, tokens),
        Ragged(sequences.predicts_trained.astype(np.int8), tokens),
        Ragged(sequences.starts_in_rows.astype(np.int32), sequences.rows),
    ]
    return pa.Table.from_arrays([list_array(column) for column in columns], schema=_PACKED_SCHEMA)
