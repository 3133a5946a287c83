"""Opens a file of rows in the format that its content has."""

from __future__ import annotations

from sftkit.errors import SourceError
from sftkit.shards.readers.arrow_file import FILE_MAGIC, STREAM_MAGIC, ArrowRowFile
from sftkit.shards.readers.indexed_file import INDEX_MAGIC, INDEX_SUFFIX, TOKENS_SUFFIX, IndexedRowFile
from sftkit.shards.readers.jsonl_file import JsonLinesRowFile
from sftkit.shards.readers.mds_file import MdsRowFile
from sftkit.shards.readers.numpy_files.array_set import ArraySetRowFile, is_array_set
from sftkit.shards.readers.numpy_files.numpy_file import NumpyRowFile
from sftkit.shards.readers.numpy_files.numpy_header import NUMPY_MAGIC
from sftkit.shards.readers.parquet_file import ParquetRowFile
from sftkit.shards.readers.row_file import RowFile
from sftkit.storage.files import file_size
from sftkit.storage.paths import AnyPath
from sftkit.storage.retry import error_reason
from sftkit.storage.streams import open_binary

FORMATS = "Parquet, Arrow, Megatron's .bin and .idx, MDS, .npy, or JSON Lines with input_ids"
"""What messages say is read."""

_PARQUET = ".parquet"
_MDS = ".mds"
_Reader = (
    ParquetRowFile | ArrowRowFile | IndexedRowFile | NumpyRowFile | ArraySetRowFile | JsonLinesRowFile | MdsRowFile
)
_BY_MAGIC: dict[bytes, type[_Reader]] = {
    b"PAR1": ParquetRowFile,
    FILE_MAGIC: ArrowRowFile,
    STREAM_MAGIC: ArrowRowFile,
    INDEX_MAGIC: IndexedRowFile,
    NUMPY_MAGIC: NumpyRowFile,
}
_MAGIC_BYTES = 64


def open_shard_file(path: AnyPath) -> RowFile:
    """Open a file of rows for reading. Its first bytes tell its format; MDS has none, and is known by its name.

    Raises:
        SourceError: it cannot be opened, or has none of the formats that are read.
    """
    reader = reader_of(path)
    return reader(index_of(path) if reader is IndexedRowFile else path)


def reader_of(path: AnyPath) -> type[_Reader]:
    """Return the class that reads a file. Raises as `open_shard_file`."""
    if path.name.endswith(_PARQUET):
        return ParquetRowFile
    if _MDS in path.name:
        return MdsRowFile
    if path.name.endswith(TOKENS_SUFFIX) and file_size(index_of(path)) >= 0:
        return IndexedRowFile
    if is_array_set(path):
        return ArraySetRowFile
    try:
        with open_binary(path) as file:
            start = file.read(_MAGIC_BYTES)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error_reason(error)}") from None
    found = next((kind for magic, kind in _BY_MAGIC.items() if start.startswith(magic)), None)
    if found is not None:
        return found
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return JsonLinesRowFile
    raise SourceError(
        f"{path}: is none of the files that are read: {FORMATS}; to see what raw rows become, give "
        f"--training_data_path {path}"
    )


def tokens_of(index: AnyPath) -> AnyPath:
    """Return the `.bin` file that belongs to an `.idx` file. A pair is called by its name."""
    return index.with_name(index.name.removesuffix(INDEX_SUFFIX) + TOKENS_SUFFIX)


def index_of(path: AnyPath) -> AnyPath:
    """Return the `.idx` file of a pair, given by its `.bin` file, by itself, or by the prefix of both."""
    return path.with_name(path.name.removesuffix(TOKENS_SUFFIX).removesuffix(INDEX_SUFFIX) + INDEX_SUFFIX)
