"""Rows of the sources that are not in the shards because they are too long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sftkit.shards.manifest import Manifest

_REASON = re.compile(r"longer than (max_seq|pack)_length=|more (tokens )?than (max_seq|pack)_length=")


@dataclass(frozen=True)
class TooLongRows:
    """Rows that were dropped or quarantined because they are longer than `max_seq_length`, or than a pack."""

    rows: int
    """All of them."""
    by_length: Mapping[str, int]
    """Those whose length is known, as `length_histogram`."""

    @property
    def of_unknown_length(self) -> int:
        """Rows whose length is not in the manifest; all of them in manifests of earlier versions."""
        return self.rows - sum(self.by_length.values())


def too_long_rows(manifest: Manifest | None) -> TooLongRows | None:
    """Return what a manifest says about rows that are too long; None if there are none."""
    if manifest is None:
        return None
    counts = [*manifest.dropped.items(), *manifest.quarantined_by_reason.items()]
    rows = max(sum(count for reason, count in counts if _REASON.search(reason)), sum(manifest.too_long_rows.values()))
    return TooLongRows(rows, manifest.too_long_rows) if rows else None
