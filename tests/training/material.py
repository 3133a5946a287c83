"""Helpers for the tests of training: small splits on disk, and reading back what a run logged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.shards.manifest import Manifest, ShardInfo, SplitInfo
from sftkit.shards.reading import open_shards
from sftkit.storage.dataset_files import MANIFEST_NAME
from sftkit.training.data.rows.open_split import open_split
from sftkit.training.data.rows.split_rows import SplitRows

FREE_PORT = """
import socket

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
"""
"""Source of a function for scripts that launch several processes: a port for their rendezvous."""


@dataclass(frozen=True)
class Launch:
    """A training run of one or several processes. Its report is written to `report.json` in its `output_dir`."""

    argv: Sequence[str]
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    remove: Sequence[str] = ()
    """Directories that are removed first."""

    copy: Sequence[tuple[str, str]] = ()
    """Directories that are copied first: source and target."""


def run_launches(launches: Sequence[Launch]) -> None:
    """Run launches one after the other."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("launch_driver.py")), json.dumps([*map(asdict, launches)])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def open_rows(
    folder: Path, lengths: Sequence[int], *, group: int = 4, file: int = 12, cached: int = 10_000
) -> SplitRows:
    """Write and open rows of these lengths; every token of row i is i, and every token except the first is trained.

    Args:
        folder: where the files are written.
        lengths: tokens of each row.
        group: rows of a row group.
        file: rows of a file.
        cached: tokens that `SplitRows` keeps in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = [[number] * length for number, length in enumerate(lengths)]
    for start in range(0, len(ids), file):
        part = ids[start : start + file]
        table = pa.table(
            {"input_ids": pa.array(part, pa.list_(pa.int32())), "labels": pa.array(part, pa.list_(pa.int32()))}
        )
        pq.write_table(table, folder / f"train-{start:05d}.parquet", row_group_size=group)
    return open_split(open_shards(str(folder)), "train", max(len(ids), 1), None, cached)


def write_layout(folder: Path, files: Sequence[Sequence[Sequence[int]]], *, packed: bool = False) -> int:
    """Write files of row groups of rows of these lengths; every token of row i is i. Returns the number of rows.

    Args:
        folder: where the files are written.
        files: tokens of each row of each row group of each file.
        packed: whether each row is a pack of two sequences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = pa.list_(pa.int32())
    number = 0
    for name, groups in enumerate(files):
        schema = pa.schema([("input_ids", kind), ("labels", kind), *([("seq_lengths", kind)] if packed else [])])
        with pq.ParquetWriter(folder / f"train-{name:05d}.parquet", schema) as writer:
            for lengths in groups:
                ids = [[number + row] * length for row, length in enumerate(lengths)]
                columns = {"input_ids": ids, "labels": ids}
                if packed:
                    columns["seq_lengths"] = [[length // 2, length - length // 2] for length in lengths]
                writer.write_table(pa.table(columns, schema), row_group_size=max(len(lengths), 1))
                number += len(lengths)
    return number


def write_manifest(folder: Path, *rows: int) -> None:
    """Write a manifest that records so many rows for each training file of a directory."""
    files = sorted(path.name for path in folder.glob("train-*.parquet"))
    shards = tuple(ShardInfo(name, count, 0, 0, 0, "") for name, count in zip(files, rows, strict=True))
    split = SplitInfo(sum(rows), 0, 0, 0, 0, {}, shards)
    manifest = Manifest(
        columns=(), text_column=None, splits={"train": split}, sources=(), rows_read=0, rows_written=0, rows_left_out=0,
        rows_repeated=0, dropped={}, quarantined=0, tokenizer=None, engine={}, fingerprint="", config={}, versions={},
    )  # fmt: skip
    (folder / MANIFEST_NAME).write_text(manifest.to_json())


def events(output: Path) -> list[dict[str, Any]]:
    """The log events of a run."""
    return [json.loads(line) for line in (output / "training_logs.jsonl").read_text().splitlines()]


def logged(output: Path, key: str) -> list[float]:
    """The values that a run logged under a key."""
    return [event[key] for event in events(output) if key in event]


def row_numbers(rows: SplitRows, refs: np.ndarray) -> list[int]:
    """The numbers of the rows that references point to."""
    return [int(rows.row(group, row).input_ids.values[0]) for group, row in refs.tolist()]
