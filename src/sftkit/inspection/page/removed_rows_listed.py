"""Reads examples of removed rows from the lists beside the shards."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

from sftkit.shards.staging.removed_rows import generic_reason
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_binary

_MAX_LINES = 20_000
_MAX_LINE = 1 << 20  # bytes
_PER_REASON = 3
_MAX_REASONS = 60


@dataclass(frozen=True)
class RemovedExample:
    """A row that was quarantined or dropped."""

    place: str
    """Source and row, as `path:row`."""
    reason: str
    content: str
    """The beginning of the row."""


def removed_examples(list_path: AnyPath) -> dict[str, list[RemovedExample]]:
    """Return the first rows of each reason in a list of removed rows, by the generic form of their reason.

    Only the first 20,000 lines are read. Lines that are not such rows are skipped, and a list that does not exist or
    cannot be read has no rows: the manifest has the counts.
    """
    found: dict[str, list[RemovedExample]] = {}
    try:
        for example in _examples(list_path):
            reason = generic_reason(example.reason)
            if reason not in found and len(found) == _MAX_REASONS:
                continue
            if len(rows := found.setdefault(reason, [])) < _PER_REASON:
                rows.append(example)
    except OSError:
        return found
    return found


def _examples(list_path: AnyPath) -> Iterator[RemovedExample]:
    with open_binary(list_path) as stream:
        lines = io.BufferedReader(stream) if isinstance(stream, io.RawIOBase) else stream
        for _ in range(_MAX_LINES):
            line = lines.readline(_MAX_LINE)
            if not line:
                return
            try:
                entry = json.loads(line)
                yield RemovedExample(f"{entry['path']}:{entry['row']}", str(entry["reason"]), str(entry["content"]))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
