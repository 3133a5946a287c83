"""What a format of shards is: a name in `output_format`, and how the rows of a shard become its files."""

from __future__ import annotations

import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, ClassVar

import numpy as np
import numpy.typing as npt

from sftkit.shards.manifest import FormatFile
from sftkit.shards.writing.row_gatherer import GatheredRows, SequenceSelection
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.storage.files import atomic_replace, make_directory
from sftkit.storage.paths import AnyPath


@dataclass(frozen=True)
class ShardPlace:
    """Where the files of one shard go."""

    root: AnyPath
    """The directory that file names are relative to: that of the data set."""
    split: str
    name: str
    """Name of the shard without a suffix, such as `train-00000-of-00003`."""


@dataclass(frozen=True)
class WrittenSplit:
    """A split whose shards have been written, for what a format writes about all of them."""

    sequences: SequenceSelection
    files: tuple[FormatFile, ...]
    """The files of the format, in row order."""


@dataclass(frozen=True)
class FormatOptions:
    """What formats need to know besides the columns."""

    eos_token_id: int | None = None
    """The token that pads sequences; None if there is no tokenizer, or it has none."""
    pad_seq_to_multiple: int = 1
    """Tokens: formats of packs for Megatron pad each sequence to a multiple of it."""
    pack_length: int | None = None
    """The most tokens that a pack may have; None where rows are not packed."""


class ShardFile(ABC):
    """The files of one shard while they are written."""

    @abstractmethod
    def write(self, part: GatheredRows) -> None:
        """Write the next rows of the shard.

        Raises:
            OSError: a file cannot be written.
        """

    @abstractmethod
    def finish(self) -> tuple[FormatFile, ...]:
        """Complete the files, after the last row, and describe them. They get their names after this."""


class ShardFormat(ABC):
    """A format of shards.

    A built-in format is in `sftkit.shards.formats` and found by its `registered_as`; one of another package is an entry
    point of the group `sftkit.output_formats`, called like its `registered_as`. It is sent to worker processes, so it
    must be picklable. The bytes of its files must depend on the rows alone.

    Args:
        layout: the columns of the shards.
        options: what else the format may need.
    """

    registered_as: ClassVar[str] = ""
    """Name of the format, and of the folder of its files; empty for base classes."""

    def __init__(self, layout: ShardLayout, options: FormatOptions) -> None:
        self.layout = layout
        self.options = options

    def problem(self) -> str | None:
        """Say why rows of this layout cannot be written at all; None if they can."""
        return None

    def columns_left_out(self) -> Sequence[str]:
        """The columns of the layout that the format cannot hold."""
        return ()

    @abstractmethod
    def open(self, place: ShardPlace, sequences: SequenceSelection) -> AbstractContextManager[ShardFile]:
        """Begin the files of a shard; they get their names when the `with` block ends without an exception.

        Args:
            place: where they go. Their names are `place.name` and a suffix, in a folder that is called like the format.
            sequences: all rows that the shard will have.
        """

    def index(self, splits: Mapping[str, WrittenSplit]) -> Mapping[str, bytes]:
        """Return the small files that describe all shards, by their names relative to the data set."""
        return {}


class NewFile:
    """A file that is being written, with the size and the sha256 of what was written so far."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self.name = name
        self.size = 0
        """Bytes that were written."""
        self._stream = stream
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview | npt.NDArray[np.generic]) -> None:
        """Append bytes, or the bytes of an array."""
        view = np.ascontiguousarray(data).view(np.uint8).data if isinstance(data, np.ndarray) else data
        self._stream.write(view)
        self._digest.update(view)
        self.size += len(view)

    def record(self, rows: int | None) -> FormatFile:
        """Describe the complete file, which has so many rows."""
        return FormatFile(self.name, self.size, self._digest.hexdigest(), rows)


@contextmanager
def new_file(root: AnyPath, name: str) -> Iterator[NewFile]:
    """Create a file below a directory; it gets its name when the block ends without an exception.

    Raises:
        OSError: it cannot be written.
    """
    target = root / name
    make_directory(target.parent)
    with atomic_replace(target, uuid.uuid4().hex[:8]) as temporary, temporary.open("wb", buffering=1 << 20) as stream:
        yield NewFile(name, stream)
