"""Checks the shards of a data set against its manifest: sha256, size, columns and counts."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sftkit.core.progress import Progress, progress_stage
from sftkit.errors import SourceError
from sftkit.inspection.columns.column_layout import TEXT, read_layout
from sftkit.inspection.columns.token_values import split_packing
from sftkit.inspection.summary.dataset_summary import ShardSummary, source_name
from sftkit.inspection.summary.summarize import ShardCounts, count_shard
from sftkit.inspection.verify.outcome import CheckOutcome, Difference, format_value
from sftkit.shards.manifest import Manifest, ShardInfo, SplitInfo
from sftkit.storage.files import file_size, file_sizes_recursive
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.streams import open_binary

_THREADS = min(4, os.cpu_count() or 1)  # each holds one row group
_CHUNK = 4 << 20  # bytes
_CHECKED = ("sha256", "columns", "rows", "tokens", "trained tokens")

Advance = Callable[[int, int, int], None]
"""Reports progress: bytes, rows and tokens that were checked."""


@dataclass(frozen=True)
class _CheckedShard:
    split: str
    info: ShardInfo
    difference: Difference | None
    counts: ShardCounts | None = None
    """None when the rows were not read, because the bytes are not those of the manifest."""


def verify_shards(root: AnyPath, manifest: Manifest, progress: Progress) -> CheckOutcome:
    """Hash and count every shard, and look for Parquet files that the manifest does not list.

    The rows of a shard whose bytes differ from the manifest are not read.

    Args:
        root: the directory of the manifest.
        manifest: what to check against.
        progress: receives bytes, rows and tokens.
    """
    listed = [(split, shard) for split, info in manifest.splits.items() for shard in info.shards]
    file_of_hash = {shard.sha256: shard.file for _, shard in listed}
    lock = threading.Lock()

    def advance(size: int, rows: int, tokens: int) -> None:
        with lock:
            progress.advance(size, rows=rows, tokens=tokens)

    def check(part: tuple[str, ShardInfo]) -> _CheckedShard:
        split, info = part
        difference = _compare_bytes(root, info, file_of_hash, advance)
        if difference is not None:
            return _CheckedShard(split, info, difference)
        return _compare_counts(root, manifest, split, info, advance)

    total = sum(max(file_size(root / shard.file), 0) for _, shard in listed)
    with progress_stage(progress, "verifying", total), ThreadPoolExecutor(_THREADS) as pool:
        shards = list(pool.map(check, listed))
    differences = [shard.difference for shard in shards if shard.difference is not None]
    for split, info in manifest.splits.items():
        counts = [shard.counts for shard in shards if shard.split == split and shard.counts is not None]
        if info.shards and len(counts) == len(info.shards):
            differences += _compare_split(split, info, counts, manifest)
    good = [shard.info for shard in shards if shard.difference is None]
    size = format_value(sum(info.bytes for info in good))
    verified = []
    if good:
        count = f"{format_value(len(good))} of {format_value(len(shards))}"
        verified.append(f"{count} shards ({size} bytes): {', '.join(_CHECKED)}")
    others_listed = {file.file for file in manifest.format_files}
    unlisted = _unlisted_files(root, {shard.file for _, shard in listed} | others_listed)
    if not unlisted:
        verified.append("no other Parquet files")
    others = [Difference(name, "a Parquet file that the manifest does not list") for name in unlisted]
    return CheckOutcome(tuple(verified), (*differences, *others))


def _compare_bytes(
    root: AnyPath, info: ShardInfo, file_of_hash: Mapping[str, str], advance: Advance
) -> Difference | None:
    """Return how the bytes of a file differ from those of the shard in the manifest, None when they are the same."""
    path = root / info.file
    if path.name != info.file:
        return Difference(info.file, "is listed in the manifest, but is not a file name in its directory")
    if file_size(path) < 0:
        exists = isinstance(path, Path) and os.path.lexists(path)
        return Difference(info.file, "is not a readable file" if exists else "is missing")
    try:
        digest, size = _sha256(path, advance)
    except FileNotFoundError:
        return Difference(info.file, "is missing")
    except OSError as error:
        return Difference(info.file, f"cannot be read: {error.strerror or error}")
    if digest == info.sha256:
        if size == info.bytes:
            return None
        return Difference(info.file, f"{format_value(size)} bytes, the manifest says {format_value(info.bytes)}")
    if digest in file_of_hash:
        return Difference(info.file, f"has the content of {file_of_hash[digest]}: exchanged or renamed")
    if size != info.bytes:
        how = "truncated" if isinstance(info.bytes, int) and size < info.bytes else "longer"
        return Difference(info.file, f"{format_value(size)} bytes, the manifest says {format_value(info.bytes)}: {how}")
    return Difference(
        info.file, f"sha256 {digest[:12]}, the manifest says {str(info.sha256)[:12]}: its content changed"
    )


def _compare_counts(root: AnyPath, manifest: Manifest, split: str, info: ShardInfo, advance: Advance) -> _CheckedShard:
    """Compare the columns and counts of a shard whose bytes are those of the manifest."""
    names = tuple(name for name in (manifest.text_column, TEXT) if name)
    try:
        layout = read_layout(root / info.file, names)
        summary, counts = count_shard(layout, root, split_packing(manifest, split))
    except SourceError as error:
        return _CheckedShard(split, info, Difference(info.file, str(error)))
    advance(0, summary.rows, summary.tokens or 0)
    wrong = []
    if set(layout.names) != set(manifest.columns):
        wrong.append(f"columns {', '.join(layout.names)} (the manifest says {', '.join(manifest.columns)})")
    wrong += [
        f"{format_value(found)} {what} (the manifest says {format_value(recorded)})"
        for what, found, recorded in _counts(summary, info)
        if found != recorded
    ]
    if counts.wrong_weights:
        wrong.append(f"{format_value(counts.wrong_weights)} tokens whose loss weight does not agree with their label")
    difference = Difference(info.file, f"has {', '.join(wrong)}") if wrong else None
    return _CheckedShard(split, info, difference, counts)


def _counts(found: ShardSummary, recorded: ShardInfo) -> list[tuple[str, int, int]]:
    return [
        ("rows", found.rows, recorded.rows),
        ("tokens", found.tokens or 0, recorded.tokens),
        ("trained tokens", found.trained_tokens or 0, recorded.trained_tokens),
    ]


def _compare_split(split: str, info: SplitInfo, parts: Sequence[ShardCounts], manifest: Manifest) -> list[Difference]:
    """Return how the lengths, packs and sources of a split differ from the manifest."""
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
        fill_rate = round(counts.packed_tokens / (counts.packed_rows * info.pack_length), 4)
        pairs.append(("fill rate", fill_rate, info.fill_rate))
        if counts.longest_pack > info.pack_length:
            pairs.append(("tokens of a pack", counts.longest_pack, info.pack_length))
    pairs += _source_tokens(split, counts, manifest)
    return [
        Difference(f"split {split}", f"{what} {format_value(found)}, the manifest says {format_value(recorded)}")
        for what, found, recorded in pairs
        if found != recorded
    ]


def _source_tokens(split: str, counts: ShardCounts, manifest: Manifest) -> list[tuple[str, object, object]]:
    """Return the tokens of each data set by the column `source`, and by the manifest."""
    if not counts.by_source:
        return []
    numbers = {name: number for number, name in enumerate(manifest.source_names)}
    recorded: Counter[int] = Counter()
    for source in manifest.sources:
        if split in source.written and source.dataset in numbers:
            recorded[numbers[source.dataset]] += source.written[split].tokens
    found = {number: each.tokens for number, each in counts.by_source.items()}
    return [
        (f"tokens of source {source_name(number, manifest)}", found.get(number, 0), recorded[number])
        for number in sorted({*found, *recorded})
    ]


def _unlisted_files(root: AnyPath, listed: set[str]) -> list[str]:
    """Return the Parquet files below the directory that are not listed, except hidden ones."""
    if isinstance(root, RemotePath):
        names = list(file_sizes_recursive(root))
    else:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
    found = (name for name in names if name.lower().endswith(".parquet") and name not in listed)
    return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))


def _sha256(path: AnyPath, advance: Advance) -> tuple[str, int]:
    """Return the sha256 of a file and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    with open_binary(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)  # releases the GIL
            size += len(chunk)
            advance(len(chunk), 0, 0)
    return digest.hexdigest(), size
