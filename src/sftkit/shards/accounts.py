"""The account of a staged unit as a file: everything but its rows. Arrow IPC: a line a row, the rest as JSON beside.

Quarantined rows stand in a file of their own (`bad_rows`), of which the account has size and sha256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.shards.arrays import flat_array, numbers_of
from sftkit.shards.bad_rows import BadRows, bad_rows_path
from sftkit.shards.files import replacing, sha256_of_file
from sftkit.shards.staging import StagedUnit, UnitAudit

_VERSION = 4
_KEY = b"sftkit"


def write_account(path: Path, key: str, unit: StagedUnit, run: str) -> None:
    """Write the account of a unit whose rows are on disk.

    Args:
        path: where it is to stand.
        key: of the unit.
        unit: fresh from staging.
        run: part of the name of the unfinished file.
    """
    columns = {"sizes": flat_array(unit.sizes), "trained": flat_array(unit.trained)}
    if unit.audit is not None:
        columns["digests"] = flat_array(unit.audit.digests)
    table = pa.table(columns)
    told = {
        "version": _VERSION,
        **_seal(unit.path, unit.rows),
        "token_columns": unit.token_columns,
        "text_column": unit.text_column,
        "extras": base64.b64encode(unit.extras.serialize().to_pybytes()).decode(),
        "first_number": unit.first_number,
        "read": unit.read,
        "drops": unit.drops,
        "bad": {"count": unit.bad.count, "reasons": unit.bad.reasons, **_seal(unit.bad.path, unit.bad.count)},
        "engines": unit.engines,
        "seconds": unit.seconds,
        "audited": unit.audit.rows if unit.audit is not None else None,
        "faulty": unit.audit.faulty if unit.audit is not None else None,
    }
    table = table.replace_schema_metadata({_KEY: json.dumps({**told, "digest": _digest(key, told, table)})})
    with (
        replacing(path, run) as aside,
        pa.OSFile(os.fsencode(aside), "w") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=max(1, unit.rows))


def read_account(path: Path, key: str, rows: Path) -> StagedUnit | None:
    """The unit of a key, by its account; None where there is no account, it is damaged or that of another key, or the
    file with the rows is another one.
    """
    try:
        table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
        told = json.loads(table.schema.metadata[_KEY])
        digest = told.pop("digest")
        whole = told["version"] == _VERSION and digest == _digest(key, told, table)
        if not whole or not _is_whole(rows, told) or not _is_whole(bad_rows_path(rows), told["bad"]):
            return None
        return _unit(table, told, rows)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None  # no account, or none that we wrote: the unit will be made anew


def _digest(key: str, told: Mapping[str, Any], table: pa.Table) -> str:
    """sha256 over all that an account says, and whose it is."""
    digest = hashlib.sha256(json.dumps([key, told], sort_keys=True).encode())
    for name in sorted(table.column_names):
        digest.update(f"{name} {table.num_rows}".encode())
        for chunk in table.column(name).chunks:
            digest.update(numbers_of(chunk, chunk.type.to_pandas_dtype()).tobytes())
    return digest.hexdigest()


def _seal(path: Path, rows: int) -> dict[str, Any]:
    """What tells that a file is the one that was written; it exists when it has rows."""
    return {"bytes": path.stat().st_size if rows else 0, "sha256": sha256_of_file(path) if rows else None}


def _is_whole(path: Path, told: dict[str, Any]) -> bool:
    if told["sha256"] is None:
        return True
    return bool(path.stat().st_size == told["bytes"]) and bool(sha256_of_file(path) == told["sha256"])


def _unit(table: pa.Table, told: dict[str, Any], rows: Path) -> StagedUnit:
    audit = None
    if told["audited"] is not None:
        faulty = {rule: (count, tuple(first)) for rule, (count, first) in told["faulty"].items()}
        audit = UnitAudit(told["audited"], faulty, _numbers(table, "digests", np.uint64))
    return StagedUnit(
        number=0,
        path=rows,
        sizes=_numbers(table, "sizes", np.int32),
        trained=_numbers(table, "trained", np.int32),
        token_columns=tuple(told["token_columns"]),
        text_column=told["text_column"],
        extras=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told["extras"]))),
        first_number=told["first_number"],
        read=told["read"],
        drops=told["drops"],
        bad=BadRows(bad_rows_path(rows), told["bad"]["count"], told["bad"]["reasons"]),
        engines=told["engines"],
        seconds=told["seconds"],
        audit=audit,
        found=True,
    )


def _numbers(table: pa.Table, name: str, dtype: type[Any]) -> Any:
    chunks = [numbers_of(chunk, dtype) for chunk in table.column(name).chunks]
    return np.concatenate([np.zeros(0, dtype), *chunks])
