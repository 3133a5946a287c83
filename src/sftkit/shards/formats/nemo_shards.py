"""NeMo: packed `.npy` files, arrays of dicts, which NeMo and Megatron-Bridge read as packed data sets.

`numpy.load(allow_pickle=True)` returns an array of dicts with `input_ids`, `loss_mask` (of shifted labels) and
`seq_start_id`, all lists. The pickle of such an array is written here row by row, so that a shard need not fit into
memory as Python objects. Every integer has 5 bytes. Source of the opcodes: `pickletools` of Python 3.11.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sftkit.shards.formats.npy_header import npy_header
from sftkit.shards.formats.packed_sequences import (
    HELD_COLUMNS,
    PackedSequences,
    metadata_of,
    pad,
    problem_with_tokens,
)
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

_TRUE, _FALSE = 0x88, 0x89  # NEWTRUE, NEWFALSE
_BININT = ord("J")  # followed by 4 bytes


class NemoShards(ShardFormat):
    """One packed `.npy` file for each shard, in `nemo/`."""

    registered_as = "nemo"

    def problem(self) -> str | None:
        """As `ShardFormat.problem`."""
        return problem_with_tokens(self.layout, self.options)

    def columns_left_out(self) -> Sequence[str]:
        """As `ShardFormat.columns_left_out`."""
        return [name for name in self.layout.schema.names if name not in HELD_COLUMNS]

    @contextmanager
    def open(self, place: ShardPlace, sequences: SequenceSelection) -> Iterator[ShardFile]:
        """As `ShardFormat.open`."""
        with new_file(place.root, f"{self.registered_as}/{place.name}.npy") as file:
            rows = len(sequences.row_sizes)
            file.write(npy_header("|O", rows) + _start_of_pickle(rows))
            yield _NemoFile(file, self.options)

    def index(self, splits: Mapping[str, WrittenSplit]) -> Mapping[str, bytes]:
        """As `ShardFormat.index`: what the readers need for `pad_cu_seqlens`."""
        return {f"{self.registered_as}/packed_metadata.json": metadata_of(splits, self.options)}


class _NemoFile(ShardFile):
    def __init__(self, file: NewFile, options: FormatOptions) -> None:
        self._file, self._options = file, options
        self._rows = 0

    def write(self, part: GatheredRows) -> None:
        sequences = pad(PackedSequences.of(part), self._options)
        ids, starts = _integers(sequences.ids), _integers(sequences.starts_in_rows)
        masks = np.where(sequences.predicts_trained, _TRUE, _FALSE).astype(np.uint8).data
        tokens, rows = sequences.token_rows.tolist(), sequences.rows.tolist()
        pieces: list[bytes | memoryview] = []
        for (first, stop), (first_start, stop_start) in zip(pairwise(tokens), pairwise(rows), strict=True):
            pieces += (
                *(_START_OF_ROW, ids[5 * first : 5 * stop]),
                *(_LOSS_MASK, masks[first:stop]),
                *(_STARTS, starts[5 * first_start : 5 * stop_start], _END_OF_ROW),
            )
        self._file.write(b"".join(pieces))
        self._rows += len(rows) - 1

    def finish(self) -> tuple[FormatFile, ...]:
        self._file.write(b"etb.")  # APPENDS, TUPLE, BUILD, STOP
        return (self._file.record(self._rows),)


def _list_of(name: str) -> bytes:
    """The opcodes for a key, and the start of its list."""
    return b"\x8c" + bytes((len(name),)) + name.encode() + b"]("


_START_OF_ROW = b"}(" + _list_of("input_ids")
_LOSS_MASK = b"e" + _list_of("loss_mask")
_STARTS = b"e" + _list_of("seq_start_id")
_END_OF_ROW = b"eu"


def _integers(values: npt.NDArray[np.int32] | npt.NDArray[np.int64]) -> memoryview:
    """The opcodes that push integers of 32 bits, 5 bytes each."""
    opcodes = np.empty((len(values), 5), np.uint8)
    opcodes[:, 0] = _BININT
    opcodes[:, 1:] = values.astype("<i4").view(np.uint8).reshape(-1, 4)
    return opcodes.reshape(-1).data


def _start_of_pickle(rows: int) -> bytes:
    """The opcodes of an object array of one dimension, up to its first element, as `ndarray.__reduce__` makes them.

    `numpy.core` is found by NumPy 1 and 2.
    """
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    dtype = b"cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
    shape = struct.pack("<ci", b"J", rows) + b"\x85"
    return b"\x80\x04" + empty + b"(K\x01" + shape + dtype + b"\x89]("
