"""The files of a data set against its manifest: there, whole, and holding what it says, byte by byte and row by row."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sftkit.core.progress import Progress, progress_stage
from sftkit.errors import SourceError
from sftkit.inspection.parquet_columns import TEXT, read_layout, split_packing
from sftkit.inspection.summary.dataset_summary import ShardSummary
from sftkit.inspection.summary.summarize import ShardCounts, count_shard
from sftkit.inspection.verify.outcome import CheckOutcome, Difference, format_value
from sftkit.shards.manifest import Manifest, ShardInfo, SplitInfo
from sftkit.storage.files import file_size, file_sizes_recursive
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.streams import open_binary

_THREADS = min(4, os.cpu_count() or 1)  # each holds one row group
_CHUNK = 4 << 20
_KINDS = ("sha256", "columns", "rows", "tokens", "trained tokens")

Told = Callable[[int, int, int], None]
"""Is told of so many bytes, rows and tokens that were looked at."""


@dataclass(frozen=True)
class _Shard:
    """One shard looked at. counts: None where its bytes are not those of the manifest, and it was read no further."""

    split: str
    info: ShardInfo
    difference: Difference | None
    counts: ShardCounts | None = None


def verify_shards(root: AnyPath, manifest: Manifest, progress: Progress) -> CheckOutcome:
    """Hash and count every shard, some at a time, and look for Parquet files that are none of them.

    A shard whose bytes are not the manifest's is not read any further: nobody knows what is in it.
    """
    named = [(split, shard) for split, info in manifest.splits.items() for shard in info.shards]
    owners = {shard.sha256: shard.file for _, shard in named}
    lock = threading.Lock()

    def told(read: int, rows: int, tokens: int) -> None:
        with lock:
            progress.advance(read, rows=rows, tokens=tokens)

    def looked_at(part: tuple[str, ShardInfo]) -> _Shard:
        split, info = part
        difference = _other_bytes(root, info, owners, told)
        return _Shard(split, info, difference) if difference else _counted(root, manifest, split, info, told)

    total = sum(max(file_size(root / shard.file), 0) for _, shard in named)
    with progress_stage(progress, "verifying", total), ThreadPoolExecutor(_THREADS) as pool:
        shards = list(pool.map(looked_at, named))
    differences = [shard.difference for shard in shards if shard.difference is not None]
    for split, info in manifest.splits.items():
        counts = [shard.counts for shard in shards if shard.split == split and shard.counts is not None]
        if len(counts) == len(info.shards):
            differences += _split_differs(split, info, counts)
    good = [shard.info for shard in shards if shard.difference is None]
    size = format_value(sum(info.bytes for info in good))
    right = [f"{format_value(len(good))} of {format_value(len(shards))} shards ({size} bytes): {', '.join(_KINDS)}"]
    extra = _extra(root, {shard.file for _, shard in named})
    if not extra:
        right.append("no other Parquet files")
    others = [Difference(name, "a Parquet file that the manifest does not name") for name in extra]
    return CheckOutcome(tuple(right if good else right[1:]), (*differences, *others))


def _other_bytes(root: AnyPath, info: ShardInfo, owners: Mapping[str, str], told: Told) -> Difference | None:
    """How a file differs from the one that the manifest names, as a whole; None when it is that one."""
    path = root / info.file
    if path.name != info.file:
        return Difference(info.file, "named in the manifest, and no file beside it")
    if file_size(path) < 0:
        is_there = isinstance(path, Path) and os.path.lexists(path)
        return Difference(info.file, "is no file that can be read" if is_there else "is not there")
    try:
        digest, size = _sha256(path, told)
    except FileNotFoundError:
        return Difference(info.file, "is not there")
    except OSError as error:
        return Difference(info.file, f"cannot be read: {error.strerror or error}")
    if digest == info.sha256:
        if size == info.bytes:
            return None
        return Difference(info.file, f"{format_value(size)} bytes, the manifest says {format_value(info.bytes)}")
    if digest in owners:
        return Difference(info.file, f"holds what the manifest calls {owners[digest]}: exchanged, or renamed")
    if size != info.bytes:
        how = "cut short" if isinstance(info.bytes, int) and size < info.bytes else "longer than it was"
        return Difference(info.file, f"{format_value(size)} bytes, the manifest says {format_value(info.bytes)}: {how}")
    return Difference(info.file, f"sha256 {digest[:12]}, the manifest says {str(info.sha256)[:12]}: its bytes changed")


def _counted(root: AnyPath, manifest: Manifest, split: str, info: ShardInfo, told: Told) -> _Shard:
    """A shard of the right bytes, with what the manifest says of them compared to what they hold."""
    names = tuple(name for name in (manifest.text_column, TEXT) if name)
    try:
        layout = read_layout(root / info.file, names)
        found, counts = count_shard(layout, root, split_packing(manifest, split))
    except SourceError as error:
        return _Shard(split, info, Difference(info.file, str(error)))
    told(0, found.rows, found.tokens or 0)
    wrong = []
    if set(layout.names) != set(manifest.columns):
        wrong.append(f"columns {', '.join(layout.names)} (the manifest says {', '.join(manifest.columns)})")
    wrong += [
        f"{format_value(there)} {what} (the manifest says {format_value(said)})"
        for what, there, said in _pairs(found, info)
        if there != said
    ]
    difference = Difference(info.file, f"holds {', '.join(wrong)}") if wrong else None
    return _Shard(split, info, difference, counts)


def _pairs(found: ShardSummary, info: ShardInfo) -> list[tuple[str, int, int]]:
    return [
        ("rows", found.rows, info.rows),
        ("tokens", found.tokens or 0, info.tokens),
        ("trained tokens", found.trained_tokens or 0, info.trained_tokens),
    ]


def _split_differs(split: str, info: SplitInfo, parts: Sequence[ShardCounts]) -> list[Difference]:
    """How the lengths of a split, and its packs, differ from what the manifest says of them."""
    counts = ShardCounts()
    for part in parts:
        counts.merge(part)
    lengths = counts.lengths.result()
    pairs: list[tuple[str, object, object]] = []
    if lengths is not None:
        pairs += [("shortest", lengths.min, info.length_min), ("longest", lengths.max, info.length_max)]
        if info.length_histogram:
            pairs.append(("length histogram", dict(lengths.histogram), dict(info.length_histogram)))
    if info.sequences is not None:
        pairs.append(("sequences", counts.sequences, info.sequences))
    if info.pack_length is not None and counts.packed_rows:
        full = round(counts.packed_tokens / (counts.packed_rows * info.pack_length), 4)
        pairs.append(("fill rate", full, info.fill_rate))
        if counts.longest > info.pack_length:
            pairs.append(("tokens of a pack", counts.longest, info.pack_length))
    return [
        Difference(f"split {split}", f"{what} {format_value(there)}, the manifest says {format_value(said)}")
        for what, there, said in pairs
        if there != said
    ]


def _extra(root: AnyPath, named: set[str]) -> list[str]:
    """Parquet files of the directory, at any depth, that are not among those named; hidden ones do not count."""
    if isinstance(root, RemotePath):
        names = list(file_sizes_recursive(root))
    else:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
    found = (name for name in names if name.lower().endswith(".parquet") and name not in named)
    return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))


def _sha256(path: AnyPath, told: Told) -> tuple[str, int]:
    """sha256 of a file, and how many bytes it has."""
    digest, size = hashlib.sha256(), 0
    with open_binary(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)  # leaves the interpreter free
            size += len(chunk)
            told(len(chunk), 0, 0)
    return digest.hexdigest(), size
