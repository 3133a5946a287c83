"""The account of a staged unit as a file: everything but its rows. Arrow IPC: a line a row, the rest as JSON beside.

Quarantined rows stand in a file of their own (`bad_rows`), of which the account has size and sha256. Where in the file
of its rows each of them lies is told too, for those who fetch some of them out of an object store.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.shards.arrow_arrays import number_array, numpy_view
from sftkit.shards.staging.bad_rows import BadRowsFile, bad_rows_path
from sftkit.shards.staging.row_index import RowIndex
from sftkit.shards.staging.staged_unit import StagedUnit, UnitAudit, UnitFile
from sftkit.storage.files import atomic_replace, file_size, read_bytes, sha256_of_file
from sftkit.storage.paths import AnyPath, RemotePath

_VERSION = 5
_KEY = b"sftkit"
_SIZES = "sizes"
_SMALL = 16 << 20
_NOT_OURS = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)


def record_path(rows: AnyPath) -> AnyPath:
    """Where the account of a unit stands, beside the file of its rows."""
    return rows.with_name(f"{rows.stem}.account.arrow")


def write_record(path: AnyPath, key: str, unit: StagedUnit, written: UnitFile | None, run: str) -> None:
    """Write the account of a unit whose rows are on disk.

    Args:
        path: where it is to stand.
        key: of the unit.
        unit: fresh from staging.
        written: the file of its rows, None where it has none.
        run: part of the name of the unfinished file.
    """
    columns = {"sizes": number_array(unit.sizes), "trained": number_array(unit.trained)}
    if unit.audit is not None:
        columns["digests"] = number_array(unit.audit.digests)
    index, lengths = _index_told(written.index, unit) if written is not None else (None, {})
    table = pa.table({**columns, **lengths})
    told = {
        "version": _VERSION,
        "bytes": written.bytes if written is not None else 0,
        "sha256": written.sha256 if written is not None else None,
        "index": index,
        "token_columns": unit.token_columns,
        "text_column": unit.text_column,
        "extras": base64.b64encode(unit.retained.serialize().to_pybytes()).decode(),
        "first_number": unit.first_number,
        "read": unit.rows_read,
        "drops": unit.drops,
        "bad": {
            "count": unit.bad_rows.count,
            "reasons": unit.bad_rows.reasons,
            "bytes": unit.bad_rows.bytes,
            "sha256": unit.bad_rows.sha256,
        },
        "engines": unit.engines,
        "seconds": unit.seconds,
        "audited": unit.audit.rows if unit.audit is not None else None,
        "faulty": unit.audit.violations if unit.audit is not None else None,
    }
    table = table.replace_schema_metadata({_KEY: json.dumps({**told, "digest": _digest(key, told, table)})})
    with (
        atomic_replace(path, run) as aside,
        pa.OSFile(os.fsencode(aside), "w") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=max(1, unit.rows))


def read_record(key: str, rows: AnyPath) -> StagedUnit | None:
    """The unit of a key, by its account; None where there is no account, it is damaged or that of another key, or the
    file with the rows is another one.
    """
    try:
        table, told = _read(key, rows)
        if not _is_whole(rows, told) or not _is_whole(bad_rows_path(rows), told["bad"]):
            return None
        return _unit(table, told, rows)
    except _NOT_OURS:
        return None  # no account, or none that we wrote: the unit will be made anew


def read_row_index(rows: AnyPath, columns: Sequence[str]) -> RowIndex:
    """Where some columns of a unit lie in the file of its rows, by its account.

    Raises:
        OSError: there is no account that says it.
    """
    try:
        table, told = _read(rows.stem.removeprefix("unit-"), rows)
        index = told["index"]
        return RowIndex(
            batch_rows=np.array(index["counts"], np.int64),
            batch_starts={name: np.array(index["begins"][name], np.int64) for name in columns},
            lengths={
                name: _numbers(table, column, np.int32 if column == _SIZES else np.int64)
                for name, column in ((name, index["lengths"][name]) for name in columns)
            },
            value_bytes={name: index["widths"][name] for name in columns},
        )
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise OSError(f"{record_path(rows)}: is not as it was written ({error}); run the command again") from None


def _read(key: str, rows: AnyPath) -> tuple[pa.Table, dict[str, Any]]:
    """The account of a unit.

    Raises:
        OSError: there is none.
        ValueError, KeyError, TypeError, ArrowException: it is not whole, or that of another unit.
    """
    table = pa.ipc.open_file(pa.BufferReader(read_bytes(record_path(rows)))).read_all()
    told = json.loads(table.schema.metadata[_KEY])
    digest = told.pop("digest")
    if told["version"] != _VERSION or digest != _digest(key, told, table):
        raise ValueError("it is damaged, or of another unit or version")
    return table, told


def _index_told(index: RowIndex, unit: StagedUnit) -> tuple[dict[str, Any], dict[str, pa.Array]]:
    """An index as JSON has it, and the lengths of rows that the account does not hold already."""
    named: dict[str, str] = {}
    lengths: dict[str, pa.Array] = {}
    for name, own in index.lengths.items():
        named[name] = _SIZES if np.array_equal(own, unit.sizes) else f"length:{name}"
        if named[name] != _SIZES:
            lengths[named[name]] = number_array(own.astype(np.int64))
    told = {
        "counts": index.batch_rows.tolist(),
        "begins": {name: places.tolist() for name, places in index.batch_starts.items()},
        "lengths": named,
        "widths": dict(index.value_bytes),
    }
    return told, lengths


def _digest(key: str, told: Mapping[str, Any], table: pa.Table) -> str:
    """sha256 over all that an account says, and whose it is."""
    digest = hashlib.sha256(json.dumps([key, told], sort_keys=True).encode())
    for name in sorted(table.column_names):
        digest.update(f"{name} {table.num_rows}".encode())
        for chunk in table.column(name).chunks:
            digest.update(numpy_view(chunk, chunk.type.to_pandas_dtype()).tobytes())
    return digest.hexdigest()


def _is_whole(path: AnyPath, told: dict[str, Any]) -> bool:
    if told["sha256"] is None:
        return True
    if isinstance(path, RemotePath) and told["bytes"] <= _SMALL:  # one request instead of three
        return hashlib.sha256(read_bytes(path)).hexdigest() == str(told["sha256"])
    return bool(file_size(path) == told["bytes"]) and bool(sha256_of_file(path) == told["sha256"])


def _unit(table: pa.Table, told: dict[str, Any], rows: AnyPath) -> StagedUnit:
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
        retained=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told["extras"]))),
        first_number=told["first_number"],
        rows_read=told["read"],
        drops=told["drops"],
        bad_rows=BadRowsFile(bad_rows_path(rows), **told["bad"]),
        engines=told["engines"],
        seconds=told["seconds"],
        audit=audit,
        reused=True,
    )


def _numbers(table: pa.Table, name: str, dtype: type[Any]) -> Any:
    chunks = [numpy_view(chunk, dtype) for chunk in table.column(name).chunks]
    return np.concatenate([np.zeros(0, dtype), *chunks])
