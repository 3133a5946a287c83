"""A manifest by itself: as it was written, complete, and adding up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from sftkit.inspection.verify.outcome import CheckOutcome, Difference, format_value
from sftkit.ordering.packing import keeps_rows_whole
from sftkit.shards.manifest import FORMAT_VERSION, Manifest, manifest_digest
from sftkit.storage.dataset_files import CARD_NAME, MANIFEST_NAME, QUARANTINE_NAME
from sftkit.storage.files import file_size, read_bytes, sha256_of_file
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_binary


def verify_manifest(root: AnyPath, manifest: Manifest) -> CheckOutcome:
    """Whether a manifest is as it was written, and its counts agree with each other and with the quarantine.

    Args:
        root: the directory it stands in.
        manifest: as read from there.
    """
    right, differences, notes = [], [], []
    written = json.loads(read_bytes(root / MANIFEST_NAME))
    if not manifest.digest:
        notes.append("the manifest holds no digest of itself: whether it was edited cannot be told")
    elif manifest_digest(written) == manifest.digest:
        right.append(f"{MANIFEST_NAME}: as it was written")
    else:
        differences.append(Difference(MANIFEST_NAME, "was edited: its digest is not that of what it says"))
    if manifest.format_version != FORMAT_VERSION:
        said = f"format_version {manifest.format_version}, this sftkit writes {FORMAT_VERSION}"
        notes.append(f"{MANIFEST_NAME}: {said}")
    sums = list(_sums(manifest))
    differences += [
        Difference(MANIFEST_NAME, f"{what} is {format_value(said)}, its parts make {format_value(summed)}")
        for what, said, summed in sums
        if said != summed
    ]
    files = Counter(shard.file for shard in manifest.shards)
    differences += [Difference(MANIFEST_NAME, f"names {name} {n} times") for name, n in files.items() if n > 1]
    if all(said == summed for _, said, summed in sums):
        right.append(
            f"accounts: {format_value(manifest.rows_read)} rows read, {format_value(manifest.rows_written)} written"
        )
    differences += _beside(root, manifest)
    return CheckOutcome(tuple(right), tuple(differences), tuple(notes))


def _sums(manifest: Manifest) -> Iterator[tuple[str, int, int]]:
    """Everything that is said once as a whole and once in parts: its name, the whole, and the sum of the parts."""
    for name, split in manifest.splits.items():
        for key in ("rows", "tokens", "trained_tokens"):
            yield f"splits.{name}.{key}", getattr(split, key), sum(getattr(shard, key) for shard in split.shards)
        if split.length_histogram:
            sequences = split.rows if split.sequences is None else split.sequences
            yield f"splits.{name}.length_histogram", sequences, sum(split.length_histogram.values())
    for source in manifest.sources:
        parts = source.rows_kept + sum(source.dropped.values()) + source.quarantined
        yield f"rows_read of {source.path}", source.rows_read, parts
    yield "rows_read", manifest.rows_read, sum(source.rows_read for source in manifest.sources)
    yield "quarantined", manifest.quarantined, sum(source.quarantined for source in manifest.sources)
    yield "dropped", sum(manifest.dropped.values()), sum(sum(source.dropped.values()) for source in manifest.sources)
    distinct = manifest.rows_written - manifest.rows_repeated + manifest.rows_left_out
    yield "rows_written", distinct, sum(source.rows_kept for source in manifest.sources)
    if keeps_rows_whole(manifest.config.get("packing")):
        there = sum(split.rows if split.sequences is None else split.sequences for split in manifest.splits.values())
        yield "rows_written", manifest.rows_written, there


def _beside(root: AnyPath, manifest: Manifest) -> Iterator[Difference]:
    """How the files beside the shards differ."""
    kept = _lines(root / QUARANTINE_NAME)
    if kept != manifest.quarantined:
        what = f"{format_value(kept)} rows, the manifest says {format_value(manifest.quarantined)}"
        yield Difference(QUARANTINE_NAME, what)
    elif kept and manifest.files and sha256_of_file(root / QUARANTINE_NAME) != manifest.files.get(QUARANTINE_NAME):
        yield Difference(QUARANTINE_NAME, "its bytes changed")
    if CARD_NAME in manifest.files:
        card = root / CARD_NAME
        if file_size(card) < 0:
            yield Difference(CARD_NAME, "is not there")
        elif sha256_of_file(card) != manifest.files[CARD_NAME]:
            yield Difference(CARD_NAME, "was edited")


def _lines(path: AnyPath) -> int:
    """Lines of a file; 0 where there is none."""
    if file_size(path) < 0:
        return 0
    try:
        with open_binary(path) as stream:
            return sum(1 for _ in stream)
    except FileNotFoundError:
        return 0
