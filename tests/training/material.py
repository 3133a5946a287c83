"""Rows in memory for the tests of batching: what `SplitRows` knows of rows, without files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.shards.reading import open_shards
from sftkit.training.feeding.split_rows import SplitRows, open_split


def written(folder: Path, lengths: Sequence[int], *, group: int = 4, file: int = 12, held: int = 10_000) -> SplitRows:
    """Rows of these lengths; every token of row i is i, and every one but the first is trained."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [[number] * length for number, length in enumerate(lengths)]
    for start in range(0, len(ids), file):
        part = ids[start : start + file]
        table = pa.table(
            {"input_ids": pa.array(part, pa.list_(pa.int32())), "labels": pa.array(part, pa.list_(pa.int32()))}
        )
        pq.write_table(table, folder / f"train-{start:05d}.parquet", row_group_size=group)
    return open_split(open_shards(str(folder)), "train", max(len(ids), 1), None, held)


def events(output: Path) -> list[dict[str, Any]]:
    """The log events of a run."""
    return [json.loads(line) for line in (output / "training_logs.jsonl").read_text().splitlines()]


def logged(output: Path, key: str) -> list[float]:
    """What a run logged under a key, event by event."""
    return [event[key] for event in events(output) if key in event]


def numbers(rows: SplitRows, refs: np.ndarray) -> list[int]:
    """The numbers of the rows that refs stand for."""
    return [int(rows.group(group).row(row).input_ids.values[0]) for group, row in refs.tolist()]
