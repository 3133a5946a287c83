"""The record of a staged unit: everything about it except its rows, in one small file that is written last.

The file is Arrow IPC. Its columns have one entry per row (tokens, trained tokens, digests, lengths of text columns);
its metadata holds the rest as JSON: counts, size and sha256 of the files of rows, of quarantined and of dropped
rows, the row index, and a digest over all of this and the unit's key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sftkit.core.accounting.cuts import Cuts
from sftkit.core.accounting.inference_counts import InferenceCounts
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS, refuses_weights
from sftkit.shards.arrow_arrays import number_array, numpy_view
from sftkit.shards.staging.removed_rows import RemovedRowsFile, bad_rows_path, dropped_rows_path
from sftkit.shards.staging.row_index import RowIndex
from sftkit.shards.staging.staged_unit import FileCounts, StagedUnit, UnitAudit, UnitFile
from sftkit.storage.files import atomic_replace, file_size, known_sha256, read_bytes, sha256_of_file
from sftkit.storage.paths import AnyPath, RemotePath

_VERSION = 9
_REVISION = 1
"""Since revision 1, messages and tokens can have any loss weight. Other units of revision 0 stay as they are."""
RECORD_METADATA = b"sftkit"
"""Key of the metadata of a record's file."""
_SIZES = "sizes"
_CUT = "cut"
"""Column of a record: 0 for a row as it was, 1 for one that was cut, 3 for one that lost a whole answer. Missing if no
row was cut."""
_SMALL = 16 << 20  # bytes
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)


def record_path(rows: AnyPath) -> AnyPath:
    """Return the path of a unit's record, given the path of its rows."""
    return rows.with_name(f"{rows.stem}.account.arrow")


def write_record(path: AnyPath, key: str, unit: StagedUnit, file: UnitFile | None, run: str) -> None:
    """Write the record of a unit whose other files are complete.

    Args:
        path: where to write it.
        key: the unit's key.
        unit: the unit, as returned by `UnitWriter.finish`.
        file: the file with its rows, None when it has no rows.
        run: part of the temporary name.
    """
    columns = {"sizes": number_array(unit.sizes), "trained": number_array(unit.trained)}
    if unit.was_cut.any():
        columns[_CUT] = number_array((unit.was_cut + 2 * unit.lost_answer).astype(np.int8))
    if unit.audit is not None:
        columns["digests"] = number_array(unit.audit.digests)
    index, lengths = _encode_index(file.index, unit) if file is not None else (None, {})
    table = pa.table({**columns, **lengths})
    values = {
        "version": _VERSION,
        "revision": _REVISION,
        "bytes": file.bytes if file is not None else 0,
        "sha256": file.sha256 if file is not None else None,
        "index": index,
        "token_columns": unit.token_columns,
        "text_column": unit.text_column,
        "extras": base64.b64encode(unit.retained.serialize().to_pybytes()).decode(),
        "first_number": unit.first_number,
        "read": unit.rows_read,
        "added": unit.rows_added,
        "drops": unit.drops,
        "bad": _encode_removed(unit.bad_rows),
        "dropped": _encode_removed(unit.dropped_rows),
        "files": [
            [
                *(file.rows_before, file.read, file.drops, file.reasons),
                *(astuple(file.cuts), file.unused_columns, file.not_rendered, file.added),
            ]
            for file in unit.files
        ],
        "unused_columns": unit.unused_columns,
        "cuts": astuple(unit.cuts),
        "engines": unit.engines,
        "seconds": unit.seconds,
        "rows_by_programs": unit.rows_by_programs,
        "inputs": unit.inputs,
        "not_rendered": unit.not_rendered,
        "audited": unit.audit.rows if unit.audit is not None else None,
        "faulty": unit.audit.violations if unit.audit is not None else None,
        **({"too_long": unit.too_long} if unit.too_long else {}),
        **({"inference": astuple(unit.inference)} if unit.inference.rows else {}),
    }
    table = table.replace_schema_metadata(
        {RECORD_METADATA: json.dumps({**values, "digest": _digest(key, values, table)})}
    )
    with (
        atomic_replace(path, run) as temporary,
        pa.OSFile(os.fsencode(temporary), "w") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=max(1, unit.rows))


def read_record(key: str, rows: AnyPath) -> StagedUnit | None:
    """Load a unit and verify its files against its record.

    Args:
        key: the unit's key.
        rows: path of the file with its rows, whether or not it exists.

    Returns:
        The unit; None when it has to be staged again: the record is missing, damaged or of another key or version, or
        another file does not have the recorded size and sha256, or a file that decided its rows has changed.
    """
    try:
        table, values = _read(key, rows)
        removed = (bad_rows_path(rows), values["bad"]), (dropped_rows_path(rows), values["dropped"])
        if not all(_is_intact(path, recorded) for path, recorded in ((rows, values), *removed)):
            return None
        if not are_unchanged(values["inputs"]) or _ignores_weights(values):
            return None
        return _decode_unit(table, values, rows)
    except _UNREADABLE:
        return None


def _ignores_weights(values: Mapping[str, Any]) -> bool:
    """Return whether rows of a unit may have loss weights that the version which staged it refused, or did not use."""
    ignores_column = values.get("revision", 0) < _REVISION and LOSS_WEIGHTS in values["unused_columns"]
    return ignores_column or refuses_weights(values["bad"]["reasons"])


def are_unchanged(inputs: Mapping[str, str]) -> bool:
    """Return whether local files still have the sha256 that is given for each path."""
    try:
        return all(known_sha256(Path(path)) == sha256 for path, sha256 in inputs.items())
    except OSError:
        return False


def read_row_index(rows: AnyPath, columns: Sequence[str]) -> RowIndex:
    """Read the row index of some columns from a unit's record.

    Args:
        rows: path of the file with the unit's rows.
        columns: names of token or text columns.

    Raises:
        OSError: the record is missing or damaged.
    """
    try:
        table, values = _read(rows.stem.removeprefix("unit-"), rows)
        index = values["index"]
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
        raise OSError(f"{record_path(rows)}: is damaged ({error}); run the command again") from None


def _read(key: str, rows: AnyPath) -> tuple[pa.Table, dict[str, Any]]:
    """Read a record: its table, and the JSON values of its metadata.

    Raises:
        OSError: there is none.
        ValueError, KeyError, TypeError, pa.ArrowException: it is damaged, or of another unit or version.
    """
    table = pa.ipc.open_file(pa.BufferReader(read_bytes(record_path(rows)))).read_all()
    values = json.loads(table.schema.metadata[RECORD_METADATA])
    digest = values.pop("digest")
    if values["version"] != _VERSION or digest != _digest(key, values, table):
        raise ValueError("its digest does not match, or it is of another unit or version")
    return table, values


def _encode_removed(file: RemovedRowsFile) -> dict[str, Any]:
    return {"count": file.count, "reasons": file.reasons, "bytes": file.bytes, "sha256": file.sha256}


def _encode_index(index: RowIndex, unit: StagedUnit) -> tuple[dict[str, Any], dict[str, pa.Array]]:
    """Encode a row index as JSON values, and as columns for those lengths that the record does not hold already."""
    column_of: dict[str, str] = {}
    lengths: dict[str, pa.Array] = {}
    for name, own in index.lengths.items():
        column_of[name] = _SIZES if np.array_equal(own, unit.sizes) else f"length:{name}"
        if column_of[name] != _SIZES:
            lengths[column_of[name]] = number_array(own.astype(np.int64))
    values = {
        "counts": index.batch_rows.tolist(),
        "begins": {name: starts.tolist() for name, starts in index.batch_starts.items()},
        "lengths": column_of,
        "widths": dict(index.value_bytes),
    }
    return values, lengths


def _digest(key: str, values: Mapping[str, Any], table: pa.Table) -> str:
    """Return a sha256 over the unit's key and the whole content of its record."""
    digest = hashlib.sha256(json.dumps([key, values], sort_keys=True).encode())
    for name in sorted(table.column_names):
        digest.update(f"{name} {table.num_rows}".encode())
        for chunk in table.column(name).chunks:
            digest.update(numpy_view(chunk, chunk.type.to_pandas_dtype()).tobytes())
    return digest.hexdigest()


def _is_intact(path: AnyPath, recorded: Mapping[str, Any]) -> bool:
    """Return whether a file has the recorded size and sha256."""
    if recorded["sha256"] is None:
        return True
    if isinstance(path, RemotePath) and recorded["bytes"] <= _SMALL:  # one request instead of three
        return hashlib.sha256(read_bytes(path)).hexdigest() == str(recorded["sha256"])
    return bool(file_size(path) == recorded["bytes"]) and bool(sha256_of_file(path) == recorded["sha256"])


def _decode_unit(table: pa.Table, values: dict[str, Any], rows: AnyPath) -> StagedUnit:
    audit = None
    if values["audited"] is not None:
        violations = {rule: (count, tuple(first)) for rule, (count, first) in values["faulty"].items()}
        audit = UnitAudit(values["audited"], violations, _numbers(table, "digests", np.uint64))
    sizes = _numbers(table, "sizes", np.int32)
    cut = _numbers(table, _CUT, np.int8) if _CUT in table.column_names else np.zeros(len(sizes), np.int8)
    return StagedUnit(
        number=0,
        path=rows,
        sizes=sizes,
        trained=_numbers(table, "trained", np.int32),
        was_cut=cut > 0,
        lost_answer=cut > 1,
        token_columns=tuple(values["token_columns"]),
        text_column=values["text_column"],
        retained=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(values["extras"]))),
        first_number=values["first_number"],
        rows_read=values["read"],
        rows_added=values["added"],
        drops=values["drops"],
        bad_rows=RemovedRowsFile(bad_rows_path(rows), **values["bad"]),
        dropped_rows=RemovedRowsFile(dropped_rows_path(rows), **values["dropped"]),
        files=tuple(
            FileCounts(before, read, drops, reasons, Cuts(*cuts), unused, not_rendered, added)
            for before, read, drops, reasons, cuts, unused, not_rendered, added in values["files"]
        ),
        cuts=Cuts(*values["cuts"]),
        unused_columns=values["unused_columns"],
        engines=values["engines"],
        seconds=values["seconds"],
        rows_by_programs=values["rows_by_programs"],
        inputs=values["inputs"],
        not_rendered=values["not_rendered"],
        inference=InferenceCounts(*values.get("inference", ())),
        too_long=values.get("too_long", {}),
        audit=audit,
        reused=True,
    )


def _numbers(table: pa.Table, name: str, dtype: type[Any]) -> Any:
    chunks = [numpy_view(chunk, dtype) for chunk in table.column(name).chunks]
    return np.concatenate([np.zeros(0, dtype), *chunks])
