"""The account of a staged unit as a file: everything but its rows. Arrow IPC: a line a row, the rest as JSON beside."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.rows import BadRow
from sftkit.shards.arrays import flat_array, numbers_of
from sftkit.shards.files import replacing, sha256_of_file
from sftkit.shards.staging import StagedUnit, UnitAudit

_VERSION = 1
_KEY = b"sftkit"


def write_account(path: Path, unit: StagedUnit, run: str) -> None:
    """Write the account of a unit whose rows are on disk.

    Args:
        path: where it is to stand.
        unit: fresh from staging.
        run: part of the name of the unfinished file.
    """
    columns = {"sizes": flat_array(unit.sizes), "trained": flat_array(unit.trained)}
    if unit.audit is not None:
        columns["digests"] = flat_array(unit.audit.digests)
    told = {
        "version": _VERSION,
        "bytes": unit.path.stat().st_size if unit.rows else 0,
        "sha256": sha256_of_file(unit.path) if unit.rows else None,
        "token_columns": unit.token_columns,
        "text_column": unit.text_column,
        "extras": base64.b64encode(unit.extras.serialize().to_pybytes()).decode(),
        "read": unit.read,
        "dropped": unit.dropped,
        "bad": [[row.number, row.reason, row.content] for row in unit.bad],
        "engines": unit.engines,
        "seconds": unit.seconds,
        "audited": unit.audit.rows if unit.audit is not None else None,
        "faulty": unit.audit.faulty if unit.audit is not None else None,
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(told)})  # ASCII: rows may hold half characters
    with replacing(path, run) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, unit.rows))


def read_account(path: Path, rows: Path) -> StagedUnit | None:
    """The unit that an account tells of; None where there is none, or the file with its rows is another one."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
        told = json.loads(table.schema.metadata[_KEY])
        if told["version"] != _VERSION or not _is_whole(rows, told):
            return None
        return _unit(table, told, rows)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None  # no account, or none that we wrote: the unit will be made anew


def _is_whole(rows: Path, told: dict[str, Any]) -> bool:
    if told["sha256"] is None:
        return True
    return bool(rows.stat().st_size == told["bytes"]) and bool(sha256_of_file(rows) == told["sha256"])


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
        read=told["read"],
        dropped=told["dropped"],
        bad=tuple(BadRow(number, reason, content) for number, reason, content in told["bad"]),
        engines=told["engines"],
        seconds=told["seconds"],
        audit=audit,
        found=True,
    )


def _numbers(table: pa.Table, name: str, dtype: type[Any]) -> Any:
    chunks = [numbers_of(chunk, dtype) for chunk in table.column(name).chunks]
    return np.concatenate([np.zeros(0, dtype), *chunks])
