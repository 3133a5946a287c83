"""Checks a manifest by itself: that it was not edited, and that its counts add up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from sftkit.core.accounting.cuts import Cuts
from sftkit.inspection.verify.outcome import CheckOutcome, Difference, format_value
from sftkit.ordering.packing import keeps_rows_whole
from sftkit.shards.manifest import FORMAT_VERSION, Manifest, manifest_digest
from sftkit.shards.output.side_files import row_list_sha256
from sftkit.storage.dataset_files import CARD_NAME, DROPPED_NAME, MANIFEST_NAME, QUARANTINE_NAME
from sftkit.storage.files import file_size, read_bytes, sha256_of_file
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_binary


def verify_manifest(root: AnyPath, manifest: Manifest) -> CheckOutcome:
    """Check the digest of a manifest, the sums of its counts, and the files beside the shards.

    Args:
        root: the directory of the manifest.
        manifest: the manifest, as read from there.
    """
    verified, differences, notes = [], [], []
    stored = json.loads(read_bytes(root / MANIFEST_NAME))
    if not manifest.digest:
        notes.append("the manifest has no digest, so edits to it cannot be detected")
    elif manifest_digest(stored) == manifest.digest:
        verified.append(f"{MANIFEST_NAME}: unchanged")
    else:
        differences.append(Difference(MANIFEST_NAME, "was edited: its digest does not match its content"))
    if manifest.format_version != FORMAT_VERSION:
        notes.append(
            f"{MANIFEST_NAME}: has format_version {manifest.format_version}, this sftkit writes {FORMAT_VERSION}"
        )
    sums = list(_sums(manifest))
    differences += [
        Difference(MANIFEST_NAME, f"{what} is {format_value(total)}, its parts sum to {format_value(summed)}")
        for what, total, summed in sums
        if total != summed
    ]
    files = Counter([*(shard.file for shard in manifest.shards), *(file.file for file in manifest.format_files)])
    differences += [Difference(MANIFEST_NAME, f"lists {name} {n} times") for name, n in files.items() if n > 1]
    if all(total == summed for _, total, summed in sums):
        counts = f"{format_value(manifest.rows_read)} rows read, {format_value(manifest.rows_written)} written"
        verified.append(f"row counts: {counts}")
    differences += _side_files(root, manifest)
    return CheckOutcome(tuple(verified), tuple(differences), tuple(notes))


def _sums(manifest: Manifest) -> Iterator[tuple[str, int, int]]:
    """Yield every count that is recorded both in total and in parts: its name, the total, the sum of the parts."""
    for name, split in manifest.splits.items():
        for key in ("rows", "tokens", "trained_tokens") if split.shards else ():
            yield f"splits.{name}.{key}", getattr(split, key), sum(getattr(shard, key) for shard in split.shards)
        if split.length_histogram:
            sequences = split.rows if split.sequences is None else split.sequences
            yield f"splits.{name}.length_histogram", sequences, sum(split.length_histogram.values())
    for source in manifest.sources:
        parts = source.rows_kept + sum(source.dropped.values()) + source.quarantined
        yield f"rows_read of {source.path}", source.rows_read, parts - source.rows_added
    yield "rows_read", manifest.rows_read, sum(source.rows_read for source in manifest.sources)
    yield "rows_added", manifest.rows_added, sum(source.rows_added for source in manifest.sources)
    yield "quarantined", manifest.quarantined, sum(source.quarantined for source in manifest.sources)
    yield "dropped", sum(manifest.dropped.values()), sum(sum(source.dropped.values()) for source in manifest.sources)
    if manifest.cuts is not None:
        cut = asdict(sum((source.cuts or Cuts() for source in manifest.sources), Cuts()))
        yield from ((f"cuts.{name}", total, cut[name]) for name, total in asdict(manifest.cuts).items())
    distinct = manifest.rows_written - manifest.rows_repeated + manifest.rows_left_out
    yield "rows_written", distinct, sum(source.rows_kept for source in manifest.sources)
    if any(source.written for source in manifest.sources):  # not in older manifests
        written = [each for source in manifest.sources for each in source.written.values()]
        yield "rows_written", manifest.rows_written, sum(each.rows for each in written)
        yield "tokens", sum(split.tokens for split in manifest.splits.values()), sum(each.tokens for each in written)
    if keeps_rows_whole(manifest.config.get("packing")):
        sequences = sum(
            split.rows if split.sequences is None else split.sequences for split in manifest.splits.values()
        )
        yield "rows_written", manifest.rows_written, sequences


def _side_files(root: AnyPath, manifest: Manifest) -> Iterator[Difference]:
    """Yield how the lists of rows and the card differ from the manifest."""
    rows = _line_count(root / QUARANTINE_NAME)
    if rows != manifest.quarantined:
        what = f"{format_value(rows)} rows, the manifest says {format_value(manifest.quarantined)}"
        yield Difference(QUARANTINE_NAME, what)
    elif rows and manifest.files and sha256_of_file(root / QUARANTINE_NAME) != manifest.files.get(QUARANTINE_NAME):
        yield Difference(QUARANTINE_NAME, "its content changed")
    dropped = row_list_sha256(root, DROPPED_NAME)
    if dropped != manifest.files.get(DROPPED_NAME):
        yield Difference(DROPPED_NAME, "is missing" if dropped is None else "its content changed")
    if CARD_NAME in manifest.files:
        card = root / CARD_NAME
        if file_size(card) < 0:
            yield Difference(CARD_NAME, "is missing")
        elif sha256_of_file(card) != manifest.files[CARD_NAME]:
            yield Difference(CARD_NAME, "was edited")


def _line_count(path: AnyPath) -> int:
    """Count the lines of a file; 0 when it does not exist."""
    if file_size(path) < 0:
        return 0
    try:
        with open_binary(path) as stream:
            return sum(1 for _ in stream)
    except FileNotFoundError:
        return 0
