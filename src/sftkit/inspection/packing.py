"""How the rows of shards were packed, as their manifest tells it, and how to name what is in a pack."""

from __future__ import annotations

from sftkit.audit.packs import Packing
from sftkit.shards.manifest import Manifest

_WRAPPED = "wrapped"


def packing_of(manifest: Manifest | None, split: str) -> Packing:
    """How a split was packed; nothing is known of shards without a manifest."""
    if manifest is None or split not in manifest.splits:
        return Packing()
    return Packing(manifest.splits[split].pack_length, manifest.config.get("packing") == _WRAPPED)


def place_name(shard: str, row: int, sequence: int | None = None) -> str:
    """`shard:row`, the row counted from 0 within the file; in a pack with the sequence, which pages count from 1."""
    return f"{shard}:{row}" if sequence is None else f"{shard}:{row} (sequence {sequence + 1})"
