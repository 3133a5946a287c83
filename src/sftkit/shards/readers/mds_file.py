"""MDS: the files of MosaicML Streaming.

A file has the number of its samples, the offset of each sample and of the end (uint32), the JSON of its columns, and
the samples. A sample has the sizes of those of its columns that vary (uint32), then its columns. Source:
`streaming/base/format/mds/` of mosaicml-streaming 0.13.
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.error_text import first_line
from sftkit.core.rows import INPUT_IDS
from sftkit.errors import SourceError
from sftkit.shards.readers.forward_bytes import ForwardBytes
from sftkit.shards.readers.mds_encodings import MdsDecoder, decoder_of
from sftkit.shards.readers.row_file import RowFile, cut_groups
from sftkit.storage.paths import AnyPath

_GROUP_BYTES = 4 << 20
_TOKENS = "tokens"
"""The ids in files of llm-foundry and LitGPT."""


class MdsRowFile(RowFile):
    """An MDS file, compressed with zstd, gzip, bz2 or Brotli or not; a group has a few megabytes."""

    kind = "MDS"

    def __init__(self, path: AnyPath) -> None:
        """Open a file.

        Raises:
            SourceError: it is not MDS, is truncated, or its columns are not those of MDS.
        """
        self.path = path
        try:
            self._bytes = ForwardBytes(path)
            self._offsets = self._read_offsets()
            columns = self._read_columns()
            self._sizes = [size for _, _, size in columns]
            self._decoders = {name: decoder_of(name, encoding, size) for name, encoding, size in columns}
            first = self._samples(0, min(1, len(self._offsets) - 1))
            fields = [pa.field(name, self._decode(name, first).type) for name in self._decoders]
        except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
            raise self.broken(first_line(error).rstrip(".")) from None
        self._names = dict(zip(self._shown_names(), self._decoders, strict=True))
        shown = [field.with_name(name) for name, field in zip(self._names, fields, strict=True)]
        self._bounds = cut_groups(np.diff(self._offsets), _GROUP_BYTES)
        super().__init__(path, pa.schema(shown), np.diff(self._bounds).tolist())

    def _shown_names(self) -> list[str]:
        """The names of the columns; `tokens` stands for `input_ids` where there are none."""
        renamed = INPUT_IDS not in self._decoders
        return [INPUT_IDS if renamed and name == _TOKENS else name for name in self._decoders]

    def _read_offsets(self) -> npt.NDArray[np.int64]:
        samples = int(np.frombuffer(self._bytes.read(0, 4), "<u4")[0])
        if not self._bytes.is_compressed and 8 + 4 * samples > self._bytes.stored_size:
            raise ValueError(f"it names {samples:,} samples, but has {self._bytes.stored_size:,} bytes")
        offsets = np.frombuffer(self._bytes.read(4, 4 * (samples + 1)), "<u4").astype(np.int64)
        if offsets[0] < 8 + 4 * samples or (np.diff(offsets) < 0).any():
            raise ValueError("the offsets of its samples are wrong")
        self._bytes.check_expansion(int(offsets[-1]))
        if not self._bytes.is_compressed and offsets[-1] != self._bytes.stored_size:
            raise ValueError(f"it has {self._bytes.stored_size:,} of {offsets[-1]:,} bytes")
        return offsets

    def _read_columns(self) -> list[tuple[str, str, int | None]]:
        """Read name, encoding and size of each column; the size is None if it varies."""
        begin = 4 + 4 * len(self._offsets)
        config = json.loads(self._bytes.read(begin, int(self._offsets[0]) - begin))
        if not isinstance(config, dict) or config.get("format") != "mds" or config.get("version") != 2:
            raise ValueError("its columns are not described as those of MDS version 2")
        parts = [config.get(f"column_{part}") for part in ("names", "encodings", "sizes")]
        if not all(isinstance(part, list) for part in parts) or len({len(part) for part in parts if part}) > 1:
            raise ValueError("it does not name its columns")
        columns: list[tuple[str, str, int | None]] = list(zip(*parts, strict=True))
        for name, encoding, size in columns:
            is_size = size is None or (type(size) is int and 0 <= size < 1 << 32)
            if not (isinstance(name, str) and isinstance(encoding, str) and is_size):
                raise ValueError("its columns have no name, encoding or size")
        if len({name for name, _, _ in columns}) < len(columns):
            raise ValueError("two columns have one name")
        return columns

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        samples = self._samples(int(self._bounds[number]), int(self._bounds[number + 1]))
        return pa.table({name: self._decode(self._names[name], samples) for name in columns})

    def _decode(self, name: str, samples: dict[str, list[bytes]]) -> pa.Array:
        decoder: MdsDecoder = self._decoders[name]
        try:
            return decoder.decode(samples[name])
        except (ValueError, OverflowError, RecursionError, pa.ArrowException) as error:
            reason = first_line(error).rstrip(".")
            raise SourceError(f"{self.path}: column {name!r} is not what its encoding says: {reason}") from None

    def _samples(self, first: int, last: int) -> dict[str, list[bytes]]:
        """Return the bytes of each column of some samples."""
        offsets = self._offsets[first : last + 1]
        data = self._bytes.read(int(offsets[0]), int(offsets[-1] - offsets[0]))
        varying = [index for index, size in enumerate(self._sizes) if not size]
        head = struct.Struct(f"<{len(varying)}I")
        sizes: list[Any] = [size or 0 for size in self._sizes]
        found: dict[str, list[bytes]] = {name: [] for name in self._decoders}
        values = list(found.values())
        begins = (offsets - offsets[0]).tolist()
        for begin, end in pairwise(begins):
            if begin + head.size > end:
                raise ValueError("a sample is shorter than the sizes of its columns")
            for index, size in zip(varying, head.unpack_from(data, begin), strict=True):
                sizes[index] = size
            place = begin + head.size
            if place + sum(sizes) != end:
                raise ValueError("the sizes of columns do not sum to that of their sample")
            for column, size in zip(values, sizes, strict=True):
                column.append(data[place : place + size])
                place += size
        return found

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()
