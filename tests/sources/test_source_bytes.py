"""Batches say how much of their source they took, in the measure of the size of their work unit."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.core.row_log import RowLog
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.work_units import read_unit, scan_files
from support import dataset

ROWS = [{"text": f"{number:06} é and some words"} for number in range(5000)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def write_arrow(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=700)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "rows.jsonl": lambda path: path.write_text(LINES, encoding="utf-8"),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())),
    "utf16.jsonl": lambda path: path.write_text(LINES, encoding="utf-16"),
    "rows.json": lambda path: path.write_text(json.dumps(ROWS, ensure_ascii=False, indent=8), encoding="utf-8"),
    "rows.csv": lambda path: path.write_text("text\n" + "".join(f"{row['text']}\n" for row in ROWS), encoding="utf-8"),
    "rows.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=1500),
    "rows.arrow": write_arrow,
}


@pytest.mark.parametrize("unit_size", [20_000, 1 << 30])
@pytest.mark.parametrize("name", WRITERS)
def test_batches_add_up_to_about_the_size_of_their_work_unit(tmp_path: Path, name: str, unit_size: int) -> None:
    WRITERS[name](tmp_path / name)
    [file] = scan_files(find_source_files(dataset(tmp_path / name)), unit_size)
    for unit in file.units:
        taken = [batch.source_bytes for batch in read_unit(unit, RowLog())]
        assert min(taken) >= 0
        assert sum(taken) == pytest.approx(unit.size, rel=0.1)
