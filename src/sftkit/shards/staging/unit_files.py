"""Tells the files of staged units from other files by their content."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from sftkit.shards.staging.removed_rows import REMOVED_ROW_COLUMNS
from sftkit.shards.staging.staged_unit import ROW_NUMBER
from sftkit.shards.staging.unit_record import RECORD_METADATA
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_arrow_file


def has_unit_schema(path: AnyPath) -> bool:
    """Return whether a file is an Arrow file with the columns of staged rows or bad rows, or is a unit record."""
    try:
        with pa.OSFile(os.fsencode(path)) if isinstance(path, Path) else open_arrow_file(path) as source:
            schema = pa.ipc.open_file(source).schema
    except (OSError, ValueError, pa.ArrowException):
        return False
    return (
        ROW_NUMBER in schema.names or schema.names == REMOVED_ROW_COLUMNS or RECORD_METADATA in (schema.metadata or {})
    )
