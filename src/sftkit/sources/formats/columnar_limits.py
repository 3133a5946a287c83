"""Limits on Parquet and Arrow files: on their decompressed size and on the memory that decoding takes.

The sizes that a file states need not be true, so decoding itself is limited too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.errors import SourceError
from sftkit.sandbox import memory
from sftkit.sources.source_file import SourceFile
from sftkit.sources.streams.decompression import ALWAYS_ALLOWED_BYTES

_DECODED_BYTES = 2 << 30
"""Memory that decoding a part of any file may take."""

_DECODED_BYTES_PER_BYTE = 20
"""Additional memory for each byte of the file, since record batches are decoded as a whole."""

T = TypeVar("T")


def reject_duplicate_columns(file: SourceFile, schema: pa.Schema) -> None:
    """Raise `SourceError` if two columns have the same name."""
    name = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if name is not None:
        raise SourceError(f"{file.path}: has two columns named {name!r}; column names must be unique")


def reject_decompression_bomb(file: SourceFile, metadata: pq.FileMetaData) -> None:
    """Raise `SourceError` if a Parquet footer states a size that `max_expansion` does not allow."""
    _check_size(file, sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)))


def check_expansion(file: SourceFile, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of an Arrow file while checking their total size and column names.

    Raises:
        SourceError: The file expands to more than `max_expansion` allows, or two columns have the same name.
    """
    size = 0
    for batch in batches:
        if not size:
            reject_duplicate_columns(file, batch.schema)
        size += batch.nbytes
        _check_size(file, size)
        yield batch


def _check_size(file: SourceFile, size: int) -> None:
    if size > max(ALWAYS_ALLOWED_BYTES, file.limits.expansion * file.size) and file.compression is None:
        raise SourceError(
            f"{file.path}: {file.size:,} bytes become {size:,} bytes or more, which exceeds "
            f"max_expansion={file.limits.expansion:g}; raise it if you trust this file"
        )


def limit_memory_per_batch(file: SourceFile, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield record batches, limiting the memory that decoding each of them takes."""
    while (batch := decode_with_memory_limit(file, lambda: next(batches, None))) is not None:
        yield batch


def decode_with_memory_limit(file: SourceFile, decode: Callable[[], T]) -> T:
    """Call a function that decodes a part of a file, limiting its memory to what a valid file of this size needs.

    Raises:
        SourceError: Decoding needs more memory.
    """
    limit = _DECODED_BYTES_PER_BYTE * file.size + _DECODED_BYTES + 4 * file.limits.row_bytes
    try:
        return memory.run_with_memory_limit(limit, decode)
    except MemoryError:
        raise SourceError(
            f"{file.path}: {file.size:,} bytes become more than {limit:,} bytes of memory at once; rewrite the file "
            "in smaller row groups or record batches, or raise max_row_bytes if this is right"
        ) from None
