"""What columnar files may become: what they say of themselves is checked, and decoding is given so much memory only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.errors import SourceError
from sftkit.sandbox import memory
from sftkit.sources.decompression import ALWAYS_ALLOWED_BYTES
from sftkit.sources.source_file import SourceFile

_DECODED_AT_ONCE = 2 << 30
"""Bytes of memory that decoding a part of any file may take."""

_LIKELY_EXPANSION = 20
"""And for each byte of the file: record batches are decoded whole."""

T = TypeVar("T")


def reject_duplicate_columns(file: SourceFile, schema: pa.Schema) -> None:
    """Raise `SourceError` where two columns have one name."""
    twice = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if twice is not None:
        raise SourceError(f"{file.path}: has two columns {twice!r}; a column's name may stand once")


def reject_decompression_bomb(file: SourceFile, metadata: pq.FileMetaData) -> None:
    """Raise `SourceError` where the footer says that the file becomes far more than it is."""
    _refuse_size(file, sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)))


def _refuse_size(file: SourceFile, size: int) -> None:
    if size > max(ALWAYS_ALLOWED_BYTES, file.limits.expansion * file.size) and file.compression is None:
        raise SourceError(
            f"{file.path}: {file.size:,} bytes become {size:,} bytes or more, which is more than "
            f"max_expansion={file.limits.expansion:g} allows; raise it if this is right"
        )


def check_expansion(file: SourceFile, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The record batches of an Arrow file, unless they become far more than it is, or have two columns of one name."""
    size = 0
    for batch in batches:
        if not size:
            reject_duplicate_columns(file, batch.schema)
        size += batch.nbytes
        _refuse_size(file, size)
        yield batch


def limit_memory_per_batch(file: SourceFile, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Record batches, each decoded within bounds of memory."""
    while (batch := decode_with_memory_limit(file, lambda: next(batches, None))) is not None:
        yield batch


def decode_with_memory_limit(file: SourceFile, decode: Callable[[], T]) -> T:
    """What is decoded, in memory that honest data of this size cannot need more of: sizes that a file tells of itself
    need not be true.

    Raises:
        SourceError: it would take more.
    """
    most = _LIKELY_EXPANSION * file.size + _DECODED_AT_ONCE + 4 * file.limits.row_bytes
    try:
        return memory.run_with_memory_limit(most, decode)
    except MemoryError:
        raise SourceError(
            f"{file.path}: {file.size:,} bytes become more than {most:,} bytes of memory at once; rewrite the file in "
            "smaller row groups or record batches, or raise max_row_bytes if this is right"
        ) from None
