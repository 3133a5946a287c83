"""How long each output format takes to write, compared with Parquet, from rows that are staged.

    python -m benchmarks.output_formats --tokens 24000000

stages random rows of realistic lengths once, then writes one shard in each format in turn, several times, in this
process. The times include gathering the rows from the staged unit; the best of the runs counts. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sftkit.core.row_log import RowLog
from sftkit.core.rows import IGNORE_INDEX, Batch, Ragged, lengths_to_offsets
from sftkit.shards.formats.output_formats import OUTPUT_FORMATS, PARQUET, make_formats
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.shards.writing.row_gatherer import SequenceSelection
from sftkit.shards.writing.shard_format import FormatOptions, ShardPlace
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.shards.writing.shard_writer import ShardTask, ShardWriter, shard_name, write_indexes

_VOCABULARY = 150_000
_BATCH_ROWS = 1000
_SEED = 7


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=24_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        unit = _staged(Path(scratch), options.tokens)
        names = [PARQUET, *(name for name in OUTPUT_FORMATS if name != PARQUET)]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(options.runs):
            for name in names:
                seconds[name].append(_write(Path(scratch), unit, name))
    best = {name: min(times) for name, times in seconds.items()}
    result = {
        "tokens": int(unit.sizes.sum()),
        "rows": unit.rows,
        "seconds": {name: round(value, 2) for name, value in best.items()},
        "times Parquet": {name: round(value / best[PARQUET], 2) for name, value in best.items()},
    }
    sys.stdout.write(f"{json.dumps(result, indent=1)}\n")


def _staged(folder: Path, tokens: int) -> StagedUnit:
    """Stage random rows: ids by Zipf's law, log-normal lengths, and a loss on the second half of each row."""
    chance = np.random.default_rng(_SEED)
    with UnitWriter(folder / "unit.arrow") as writer:
        number, left = 0, tokens
        while left > 0:
            lengths = np.minimum(chance.lognormal(5.5, 0.8, _BATCH_ROWS).astype(np.int64) + 8, 4096)
            total = int(lengths.sum())
            ids = (chance.zipf(1.3, total) % _VOCABULARY).astype(np.int32)
            places = np.arange(total) - np.repeat(lengths_to_offsets(lengths)[:-1], lengths)
            labels = np.where(places * 2 < np.repeat(lengths, lengths), IGNORE_INDEX, ids).astype(np.int32)
            columns = {"input_ids": Ragged.from_lengths(ids, lengths), "labels": Ragged.from_lengths(labels, lengths)}
            numbers = np.arange(number + 1, number + _BATCH_ROWS + 1)
            writer.write(Batch([{} for _ in numbers], numbers, columns), None, RowLog())
            number, left = number + _BATCH_ROWS, left - total
    return writer.finish(0, RowLog(), {}, {})


def _write(folder: Path, unit: StagedUnit, name: str) -> float:
    """Write all rows in random order as one shard; the seconds that it takes."""
    layout = ShardLayout((unit.path,), (unit.rows,), ("input_ids", "labels"), None, unit.retained)
    rows = np.random.default_rng(_SEED).permutation(unit.rows)
    sequences = SequenceSelection(rows, unit.sizes[rows])
    with tempfile.TemporaryDirectory(dir=folder) as output:
        began = time.perf_counter()
        formats = make_formats((name,), layout, FormatOptions(eos_token_id=2))
        task = ShardTask(ShardPlace(Path(output), "train", shard_name("train", 0, 1)), sequences)
        written = ShardWriter(layout, formats)(task)
        write_indexes(Path(output), formats, {"train": sequences}, {"train": [written]})
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
