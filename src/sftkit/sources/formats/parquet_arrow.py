"""Parquet and Arrow files. They are read a few rows at a time, so that memory does not grow with the file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.core.error_text import first_line
from sftkit.core.row_log import RowLog
from sftkit.core.rows import TOKEN_COLUMNS, Batch
from sftkit.errors import SourceError
from sftkit.sources.formats.arrow_rows import PIECE_ROWS, slice_rows, split_batch, to_batches
from sftkit.sources.formats.columnar_limits import (
    check_expansion,
    decode_with_memory_limit,
    limit_memory_per_batch,
    reject_decompression_bomb,
    reject_duplicate_columns,
)
from sftkit.sources.source_file import Range, ScanResult, SourceFile
from sftkit.sources.source_format import BATCH_BYTES, SourceFormat
from sftkit.sources.streams.byte_streams import open_bytes, source_sha256
from sftkit.sources.streams.content_digests import changed_error
from sftkit.storage.paths import is_url

_ARROW_FILE_MAGIC = b"ARROW1"
_BUFFER = 256 << 10
_REMOTE_BUFFER = 8 << 20  # more than fsspec fetches for a small read

_LARGE_BATCH = 16 << 20  # bytes

_MAX_CUTS = 8
"""Maximum number of ranges in a Parquet row group. Each of them also decodes the rows before it."""


class Parquet(SourceFormat):
    """Ranges are row groups, or rows within a large row group."""

    registered_as = "parquet"
    extensions = (".parquet",)

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Combine or divide row groups to ranges of `unit_size` uncompressed bytes."""
        with _arrow_errors(file), open_bytes(file) as stream:
            opened = decode_with_memory_limit(file, lambda: pq.ParquetFile(stream))
            reject_duplicate_columns(file, opened.schema_arrow)
            reject_decompression_bomb(file, opened.metadata)
            groups = [opened.metadata.row_group(index) for index in range(opened.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
            # Rows of tokens cost little besides decoding, which cutting would repeat.
            is_worth_cutting = _allows_random_access(file) and not set(TOKEN_COLUMNS) & set(opened.schema_arrow.names)
        return ScanResult(source_sha256(file), _ranges(sizes, unit_size, _MAX_CUTS if is_worth_cutting else 1))

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Decode row groups a few rows at a time."""
        with _arrow_errors(file), open_bytes(file) as stream:
            opened = _open_parquet(file, stream)
            groups = list(range(part.start, part.stop))
            at_once = min((_rows_at_once(opened.metadata.row_group(index)) for index in groups), default=1)
            batches = limit_memory_per_batch(file, opened.iter_batches(at_once, row_groups=groups, use_threads=False))
            rows = slice_rows(batches, part.skip, part.rows)
            pieces = (piece for batch in rows for piece in split_batch(batch, file.limits.row_bytes))
            total = part.rows or sum(opened.metadata.row_group(index).num_rows for index in groups)
            for batch in to_batches(pieces, part.first_number, file.limits, log):
                yield replace(batch, source_bytes=part.size * len(batch) // max(1, total))


class Arrow(SourceFormat):
    """Arrow IPC. Ranges of the file format are record batches or rows within one; the stream format is one range."""

    registered_as = "arrow"
    extensions = (".arrow", ".feather")

    def scan(self, file: SourceFile, unit_size: int) -> ScanResult:
        """Combine or divide record batches to ranges of `unit_size` bytes."""
        open_arrow = _map_arrow if _allows_random_access(file) else _stream_arrow
        with _arrow_errors(file), open_arrow(file) as opened:
            if not _is_file_format(opened.stream):
                ranges: tuple[Range, ...] = (Range(0, -1, 1, file.size),)
            else:
                batches = check_expansion(file, limit_memory_per_batch(file, opened.batches(0, None)))
                sizes = [(batch.num_rows, batch.nbytes) for batch in batches]
                # Uncompressed record batches can be cut without cost; compressed ones are larger than the file.
                is_uncompressed = opened.mapped is not None and sum(size for _, size in sizes) <= file.size
                ranges = _ranges(sizes, unit_size, file.size if is_uncompressed else 1)
        return ScanResult(source_sha256(file), ranges)

    def read(self, file: SourceFile, part: Range, log: RowLog) -> Iterator[Batch]:
        """Yield the rows of record batches a few at a time.

        Record batches are read from a stream of bytes, which verifies them. Only large ones are read from a memory map,
        where nobody sees what is read: `read_unit` checks the times of the file.
        """
        is_large = _allows_random_access(file) and (part.rows is not None or (part.stop < 0 and _has_large_batch(file)))
        open_arrow = _map_arrow if is_large else _stream_arrow
        with _arrow_errors(file), open_arrow(file) as opened:
            batches = opened.stream_batches() if part.stop < 0 else opened.batches(part.start, part.stop)
            rows = slice_rows(check_expansion(file, limit_memory_per_batch(file, batches)), part.skip, part.rows)
            pieces = (piece for batch in rows for piece in split_batch(batch, file.limits.row_bytes))
            for batch in to_batches(pieces, part.first_number, file.limits, log):
                yield batch
                opened.release_pages()


def _ranges(sizes: list[tuple[int, int]], unit_size: int, max_cuts: int) -> tuple[Range, ...]:
    """Divide consecutive blocks into ranges of about `unit_size` bytes: several blocks, or a part of one.

    Args:
        sizes: Rows and bytes of each block (row group or record batch).
        unit_size: Size of a range in bytes.
        max_cuts: Maximum number of ranges in one block.
    """
    ranges: list[Range] = []
    start, first_number, rows, size = 0, 1, 0, 0
    for index, (block_rows, block_size) in enumerate(sizes):
        cuts = min(block_size // unit_size, block_rows, max_cuts)
        if cuts > 1 and start < index:
            ranges.append(Range(start, index, first_number, size))
            start, first_number, rows, size = index, first_number + rows, 0, 0
        if cuts > 1:
            for skip, stop in pairwise(block_rows * cut // cuts for cut in range(cuts + 1)):
                share = block_size * (stop - skip) // block_rows
                ranges.append(Range(index, index + 1, first_number + skip, share, skip, stop - skip))
            start, first_number = index + 1, first_number + block_rows
            continue
        rows += block_rows
        size += block_size
        if size >= unit_size or index == len(sizes) - 1:
            ranges.append(Range(start, index + 1, first_number, size))
            start, first_number, rows, size = index + 1, first_number + rows, 0, 0
    return tuple(ranges)


def _allows_random_access(file: SourceFile) -> bool:
    """Whether any byte of the file can be read without those before it and without a network."""
    return file.compression is None and not is_url(file.path)


def _open_parquet(file: SourceFile, stream: IO[bytes]) -> pq.ParquetFile:
    """Open a Parquet file with a buffer; without one, or with read-ahead, Arrow loads whole columns of a row group."""
    if file.compression is not None:
        return pq.ParquetFile(stream)  # seeking between columns would decompress the file again and again
    buffer_size = _REMOTE_BUFFER if is_url(file.path) else _BUFFER
    return pq.ParquetFile(stream, pre_buffer=False, buffer_size=buffer_size)


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    rows: int = BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
    return max(1, min(PIECE_ROWS, rows))


@dataclass(frozen=True)
class _ArrowSource:
    """An open Arrow file."""

    stream: Any
    mapped: mmap.mmap | None
    """Its memory map, if it has one."""

    def batches(self, start: int, stop: int | None) -> Iterator[pa.RecordBatch]:
        """Yield the record batches `start` to `stop` (None: the last) of the file format."""
        reader = pa.ipc.open_file(self.stream)
        for index in range(start, reader.num_record_batches if stop is None else stop):
            yield reader.get_batch(index)
            self.release_pages()

    def stream_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the record batches of the stream format."""
        yield from pa.ipc.open_stream(self.stream)

    def release_pages(self) -> None:
        """Return pages that were read to the system, which counts them as memory of this process."""
        if self.mapped is not None and hasattr(self.mapped, "madvise"):  # not on Windows
            self.mapped.madvise(mmap.MADV_DONTNEED)


@contextmanager
def _map_arrow(file: SourceFile) -> Iterator[_ArrowSource]:
    """Open a local Arrow file memory-mapped: from a stream, Arrow reads record batches as a whole."""
    with Path(file.path).open("rb") as raw:
        if os.fstat(raw.fileno()).st_size < file.size:  # a process that reads behind the end of a map is killed
            raise changed_error(file.name)
        mapped = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    yield _ArrowSource(pa.BufferReader(pa.py_buffer(mapped)), mapped)  # unmapped with the last array in it


@contextmanager
def _stream_arrow(file: SourceFile) -> Iterator[_ArrowSource]:
    """Open an Arrow file as a stream of bytes."""
    with open_bytes(file) as stream:
        yield _ArrowSource(stream, None)


def _has_large_batch(file: SourceFile) -> bool:
    """Whether a record batch of the stream format is too large to be held in memory; only their sizes are read."""
    with suppress(pa.ArrowException), _map_arrow(file) as opened:
        return any(batch.nbytes > _LARGE_BATCH for batch in opened.stream_batches())
    return False


def _is_file_format(stream: Any) -> bool:
    magic: bytes = stream.read(len(_ARROW_FILE_MAGIC))
    stream.seek(0)
    return magic == _ARROW_FILE_MAGIC


@contextmanager
def _arrow_errors(file: SourceFile) -> Iterator[None]:
    """Convert errors of Arrow to `SourceError`, with the path."""
    try:
        yield
    except pa.ArrowException as error:
        kind = "Parquet" if file.format == "parquet" else "Arrow"
        reason = first_line(error).partition(": TProtocolException")[0]
        raise SourceError(f"{file.path}: cannot be read as {kind}: {reason}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{file.path}: a text column holds invalid UTF-8") from None
