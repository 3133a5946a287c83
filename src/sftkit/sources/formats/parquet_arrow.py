"""Parquet and Arrow files: where they are cut, and how little of them is in memory while they are read."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.core.error_text import first_line
from sftkit.core.row_log import RowLog
from sftkit.core.rows import TOKEN_COLUMNS, Batch
from sftkit.errors import SourceError
from sftkit.sources.byte_streams import open_bytes, open_raw, source_sha256
from sftkit.sources.formats.arrow_rows import PIECE_ROWS, slice_rows, split_batch, to_batches
from sftkit.sources.formats.columnar_limits import (
    check_expansion,
    decode_with_memory_limit,
    limit_memory_per_batch,
    reject_decompression_bomb,
    reject_duplicate_columns,
)
from sftkit.sources.source_file import BATCH_BYTES, Range, ScanResult, SourceFile
from sftkit.storage.paths import is_url

_ARROW_FILE_MAGIC = b"ARROW1"
_BUFFER = 256 << 10
_REMOTE_BUFFER = 8 << 20  # more than fsspec fetches for a small read

_MOST_CUTS = 8
"""Ranges that a Parquet row group is cut into at most: each decodes the rows before its own, too."""


class Parquet:
    """Ranges are row groups, or rows of one where it is large."""

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Gather or cut row groups to `unit_size` uncompressed bytes."""
        with _understood(file), open_bytes(file) as stream:
            opened = decode_with_memory_limit(file, lambda: pq.ParquetFile(stream))
            reject_duplicate_columns(file, opened.schema_arrow)
            reject_decompression_bomb(file, opened.metadata)
            groups = [opened.metadata.row_group(index) for index in range(opened.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
            # Rows that hold tokens already cost little but their decoding.
            is_worth_cutting = _is_at_hand(file) and not set(TOKEN_COLUMNS) & set(opened.schema_arrow.names)
        return ScanResult(source_sha256(file), _ranges(sizes, unit_size, _MOST_CUTS if is_worth_cutting else 1))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Decode the row groups a few rows at a time."""
        with _understood(file), open_bytes(file) as stream:
            opened = _open_parquet(file, stream)
            groups = list(range(part.start, part.stop))
            at_once = min((_rows_at_once(opened.metadata.row_group(index)) for index in groups), default=1)
            read = limit_memory_per_batch(file, opened.iter_batches(at_once, row_groups=groups, use_threads=False))
            decoded = slice_rows(read, part.skip, part.rows)
            pieces = (piece for batch in decoded for piece in split_batch(batch, file.limits.row_bytes))
            yield from to_batches(pieces, part.first_number, file.limits, log)


class Arrow:
    """Arrow IPC: ranges are record batches of the file format, or rows of one; the stream format is one range."""

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Gather or cut record batches to `unit_size` bytes."""
        with _understood(file), _open_arrow(file) as opened:
            if not _is_file_format(opened.stream):
                ranges: tuple[Range, ...] = (Range(0, -1, 1, file.size),)
            else:
                batches = check_expansion(file, limit_memory_per_batch(file, opened.batches(0, None)))
                sizes = [(batch.num_rows, batch.nbytes) for batch in batches]
                # Batches that lie in the file as in memory can be cut at no cost; compressed ones are more than it.
                is_in_place = opened.mapped is not None and sum(size for _, size in sizes) <= file.size
                ranges = _ranges(sizes, unit_size, file.size if is_in_place else 1)
        return ScanResult(source_sha256(file), ranges)

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """The record batches, cut into pieces of bounded rows."""
        with _understood(file), _open_arrow(file) as opened:
            batches = opened.streamed() if part.stop < 0 else opened.batches(part.start, part.stop)
            decoded = slice_rows(check_expansion(file, limit_memory_per_batch(file, batches)), part.skip, part.rows)
            pieces = (piece for batch in decoded for piece in split_batch(batch, file.limits.row_bytes))
            for batch in to_batches(pieces, part.first_number, file.limits, log):
                yield batch
                opened.let_go()


def _ranges(sizes: list[tuple[int, int]], unit_size: int, most_cuts: int) -> tuple[Range, ...]:
    """(rows, bytes) of consecutive pieces -> ranges of about `unit_size` bytes: some pieces, or a part of one."""
    ranges: list[Range] = []
    start, first_number, rows, size = 0, 1, 0, 0
    for index, (piece_rows, piece_size) in enumerate(sizes):
        cuts = min(piece_size // unit_size, piece_rows, most_cuts)
        if cuts > 1 and start < index:
            ranges.append(Range(start, index, first_number, size))
            start, first_number, rows, size = index, first_number + rows, 0, 0
        if cuts > 1:
            for skip, stop in pairwise(piece_rows * cut // cuts for cut in range(cuts + 1)):
                share = piece_size * (stop - skip) // piece_rows
                ranges.append(Range(index, index + 1, first_number + skip, share, skip, stop - skip))
            start, first_number = index + 1, first_number + piece_rows
            continue
        rows += piece_rows
        size += piece_size
        if size >= unit_size or index == len(sizes) - 1:
            ranges.append(Range(start, index + 1, first_number, size))
            start, first_number, rows, size = index + 1, first_number + rows, 0, 0
    return tuple(ranges)


def _is_at_hand(file: SourceFile) -> bool:
    """Whether any byte of the file can be had without those before it, and without a network."""
    return file.compression is None and not is_url(file.path)


def _open_parquet(file: SourceFile, stream: IO[bytes]) -> pq.ParquetFile:
    """Without a buffer, or reading ahead, Arrow loads whole columns of a row group."""
    if file.compression is not None:
        return pq.ParquetFile(stream)  # seeking to and fro between columns would decompress it over and over
    buffer_size = _REMOTE_BUFFER if is_url(file.path) else _BUFFER
    return pq.ParquetFile(stream, pre_buffer=False, buffer_size=buffer_size)


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    rows: int = BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
    return max(1, min(PIECE_ROWS, rows))


@dataclass(frozen=True)
class _ArrowSource:
    """An opened Arrow file; `mapped` is its memory map where it has one."""

    stream: Any
    mapped: mmap.mmap | None

    def batches(self, start: int, stop: int | None) -> Iterator[pa.RecordBatch]:
        """The record batches of the file format from start to stop (None: the last)."""
        reader = pa.ipc.open_file(self.stream)
        for index in range(start, reader.num_record_batches if stop is None else stop):
            yield reader.get_batch(index)
            self.let_go()

    def streamed(self) -> Iterator[pa.RecordBatch]:
        """The record batches of the stream format."""
        yield from pa.ipc.open_stream(self.stream)

    def let_go(self) -> None:
        """Give pages back that were read: they count as this process's memory. Those used again are mapped again."""
        if self.mapped is not None and hasattr(self.mapped, "madvise"):  # not on Windows
            self.mapped.madvise(mmap.MADV_DONTNEED)


@contextmanager
def _open_arrow(file: SourceFile) -> Iterator[_ArrowSource]:
    """Mapped where that is possible: Arrow reads a record batch as a whole from anything else."""
    if _is_at_hand(file):
        with open_raw(file) as raw:
            mapped = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
        yield _ArrowSource(pa.BufferReader(pa.py_buffer(mapped)), mapped)  # unmapped with the last array in it
    else:
        with open_bytes(file) as stream:
            yield _ArrowSource(stream, None)


def _is_file_format(stream: Any) -> bool:
    magic: bytes = stream.read(len(_ARROW_FILE_MAGIC))
    stream.seek(0)
    return magic == _ARROW_FILE_MAGIC


@contextmanager
def _understood(file: SourceFile) -> Iterator[None]:
    """Arrow's own errors as one sentence that names the file."""
    try:
        yield
    except pa.ArrowException as error:
        kind = "Parquet" if file.format == "parquet" else "Arrow"
        raise SourceError(f"{file.path}: cannot be read as {kind}: {_reason(error)}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{file.path}: a text column holds invalid UTF-8") from None


def _reason(error: pa.ArrowException) -> str:
    return first_line(error).partition(": TProtocolException")[0]
