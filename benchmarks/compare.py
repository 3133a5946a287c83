"""Time and memory of comparing two large data sets: `python -m benchmarks.compare ROWS [ROWS ...]`.

It writes two data sets of short rows (20 to 50 tokens) with known differences, compares them in a process of its own,
checks that it counts what was planted, and deletes them. A row follows from its number alone, so that the rows of B can
be written in any order. 20 million rows take 8 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.core.rows import IGNORE_INDEX, Ids, Offsets, Ragged
from sftkit.ordering.mixing import MixSource, order_splits
from sftkit.shards.arrow_arrays import list_array
from sftkit.shards.manifest import Manifest, ShardInfo, SplitInfo
from sftkit.shards.source_info import SourceInfo, WrittenRows
from sftkit.shards.writing.shard_writer import shard_name

from .watching import watched

Hashes = npt.NDArray[np.uint64]

_SHORTEST, _LONGEST, _VOCABULARY = 20, 50, 50_000
_OPENING = np.array([1, 882, 198, 4], np.int32)
"""Every row begins with these tokens, as with those of a chat template, and ends with the last of them."""

_GROUP_ROWS, _SHARD_ROWS = 60_000, 1_200_000
"""Row groups of about 16 MB, as `preprocess` writes."""

_SEED = 42
_OPEN_FILES = 256

UNCHANGED, CHANGED, RELABELLED, REMOVED, ADDED_AFTER = range(5)


@dataclass(frozen=True)
class Case:
    """Two data sets."""

    name: str
    per_thousand: Mapping[int, int]
    """Rows with each kind of difference; all others are unchanged."""
    shuffled: bool
    """Whether B has another order."""


_FEW = {CHANGED: 5, RELABELLED: 2, REMOVED: 1, ADDED_AFTER: 1}
CASES = {
    "order": Case("same order, 0.9 % differ", _FEW, shuffled=False),
    "shuffled": Case("shuffled, 0.9 % differ", _FEW, shuffled=True),
    "changed": Case("shuffled, all ids differ", {CHANGED: 1000}, shuffled=True),
}


def main() -> int:
    """Print a line per number of rows and case. Returns 1 if a count is not what was planted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", type=int)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where the data is written")
    options = parser.parse_args()
    sys.stdout.write(
        "| rows of each | | seconds | of processors | peak memory | bytes a row | pairs found, of changed rows |\n"
    )
    sys.stdout.write("| ---: | --- | ---: | ---: | ---: | ---: | ---: |\n")
    failed = False
    for rows in options.rows:
        for name in options.cases:
            with tempfile.TemporaryDirectory(dir=options.scratch, prefix="sftkit-benchmark-") as folder:
                failed |= not _measure(CASES[name], rows, Path(folder))
    return int(failed)


def _measure(case: Case, rows: int, folder: Path) -> bool:
    """Compare two data sets of a case, print a line, and return whether the counts are right."""
    started = time.perf_counter()
    planted = plant(case, rows)
    write_dataset(folder / "a", np.arange(rows), np.zeros(rows, np.int8), shuffled=False)
    kinds = planted[planted != REMOVED]
    numbers = np.flatnonzero(planted != REMOVED)
    added = np.flatnonzero(kinds == ADDED_AFTER)
    numbers = np.insert(numbers, added + 1, numbers[added] + rows)
    kinds = np.insert(kinds, added + 1, UNCHANGED)
    write_dataset(folder / "b", numbers, kinds, shuffled=case.shuffled)
    sys.stderr.write(f"{rows:,} rows written in {time.perf_counter() - started:.0f} s\n")
    command = [sys.executable, "-m", "sftkit", "inspect-shards", str(folder / "a"), "--compare", str(folder / "b")]
    result = folder / "result.json"
    shell = ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", str(result)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = watched([*shell, *command, "--format", "json", "--rows", "0"], _OPEN_FILES)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counts = json.loads(result.read_text(encoding="utf-8"))["counts"]
    planted_counts = np.bincount(planted, minlength=5).tolist()
    lost = planted_counts[CHANGED] - counts["ids_differ"]
    expected = {
        "identical": planted_counts[UNCHANGED] + planted_counts[ADDED_AFTER],
        "moved": 0,
        "labels_differ": planted_counts[RELABELLED],
        "ids_differ": planted_counts[CHANGED] - lost,
        "only_in_a": planted_counts[REMOVED] + lost,
        "only_in_b": planted_counts[ADDED_AFTER] + lost,
    }
    megabytes, each = used.main / 1e6, used.main / (2 * rows)
    numbers = f"{used.seconds:.0f} | {processor:.0f} | {megabytes:,.0f} MB | {each:.0f}"
    sys.stdout.write(
        f"| {rows:,} | {case.name} | {numbers} | {counts['ids_differ']:,} of {planted_counts[CHANGED]:,} |\n"
    )
    sys.stdout.flush()
    if counts != expected:
        sys.stderr.write(f"counted {counts}, planted {expected}\n")
    return bool(counts == expected)


def plant(case: Case, rows: int) -> npt.NDArray[np.int8]:
    """Choose what happens to each row of A, int8, shape (rows,)."""
    drawn = _mix(np.arange(rows, dtype=np.uint64) ^ np.uint64(0xD1FF)) % np.uint64(1000)
    kinds = np.zeros(rows, np.int8)
    start = 0
    for kind, share in case.per_thousand.items():
        kinds[(drawn >= start) & (drawn < start + share)] = kind
        start += share
    return kinds


def make_rows(numbers: Offsets, kinds: npt.NDArray[np.int8]) -> tuple[Ragged, Ids]:
    """Return the ids of rows and the label of each token.

    Args:
        numbers: what each row follows from, shape (rows,).
        kinds: what happens to it, shape (rows,).
    """
    seeds = _mix(numbers.astype(np.uint64))
    lengths = (seeds % np.uint64(_LONGEST - _SHORTEST + 1)).astype(np.int64) + _SHORTEST
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    drawn = _mix(np.repeat(seeds, lengths) + position.astype(np.uint64)) >> np.uint64(40)
    share = drawn.astype(np.float32) / np.float32(1 << 24)
    ids = (share * share * share * _VOCABULARY).astype(np.int32) + 100  # few ids are frequent, as in texts
    for at, token in enumerate(_OPENING):
        ids[offsets[:-1] + at] = token
    ids[offsets[1:] - 1] = _OPENING[-1]
    inner = (seeds >> np.uint64(32)).astype(np.int64) % (lengths // 2) + lengths // 2 - 1
    changed = kinds == CHANGED
    ids[offsets[:-1][changed] + inner[changed]] += 1
    labels = np.where(position < np.repeat(lengths // 3, lengths), np.int32(IGNORE_INDEX), ids)
    relabelled = kinds == RELABELLED
    labels[offsets[:-1][relabelled] + inner[relabelled]] = IGNORE_INDEX
    return Ragged(ids, offsets), labels


def _mix(values: Hashes) -> Hashes:
    """Hash numbers (splitmix64, Steele and others, 2014)."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def write_dataset(folder: Path, numbers: Offsets, kinds: npt.NDArray[np.int8], *, shuffled: bool) -> None:
    """Write shards and their manifest; the first three fifths of the rows are of one source, the others of another."""
    folder.mkdir()
    sizes = [3 * len(numbers) // 5, len(numbers) - 3 * len(numbers) // 5]
    names = ("chats", "pairs")
    parts = [MixSource(name, size, None, None, shuffled) for name, size in zip(names, sizes, strict=True)]
    order = order_splits(parts, _SEED, "all_exhausted")["train"]
    shards, starts = [], range(0, len(order), _SHARD_ROWS)
    for shard, start in enumerate(starts):
        name = f"{shard_name('train', shard, len(starts))}.parquet"
        shards.append(_write_shard(folder / name, numbers, kinds, order[start : start + _SHARD_ROWS]))
    datasets: list[dict[str, Any]] = [
        {"name": name, "data_paths": [f"{name}.jsonl"], "shuffle": True if shuffled else None} for name in names
    ]
    config = {
        "datasets": datasets,
        "dataprocessor": {"type": "default", "seed": _SEED, "sampling_stopping_strategy": "all_exhausted"},
    }
    sources = [
        SourceInfo(name, f"{name}.jsonl", 0, "", size, size, {}, 0, written={"train": WrittenRows(size, 0)})
        for name, size in zip(names, sizes, strict=True)
    ]
    manifest = _manifest(shards, sources, config)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")


def _write_shard(path: Path, numbers: Offsets, kinds: npt.NDArray[np.int8], order: Offsets) -> ShardInfo:
    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})
    tokens = trained = 0
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for start in range(0, len(order), _GROUP_ROWS):
            chosen = order[start : start + _GROUP_ROWS]
            ids, labels = make_rows(numbers[chosen], kinds[chosen])
            columns = [list_array(ids).cast(schema.types[0]), list_array(Ragged(labels, ids.offsets))]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            tokens += len(ids.values)
            trained += int(np.count_nonzero(labels != IGNORE_INDEX))
    return ShardInfo(path.name, len(order), tokens, trained, path.stat().st_size, "")


def _manifest(shards: Sequence[ShardInfo], sources: Sequence[SourceInfo], config: Mapping[str, Any]) -> Manifest:
    rows = sum(shard.rows for shard in shards)
    split = SplitInfo(
        rows=rows,
        tokens=sum(shard.tokens for shard in shards),
        trained_tokens=sum(shard.trained_tokens for shard in shards),
        length_min=_SHORTEST,
        length_max=_LONGEST,
        length_histogram={},
        shards=tuple(shards),
    )
    return Manifest(
        columns=("input_ids", "labels"),
        text_column=None,
        splits={"train": split},
        sources=tuple(sources),
        rows_read=rows,
        rows_written=rows,
        rows_left_out=0,
        rows_repeated=0,
        dropped={},
        quarantined=0,
        tokenizer=None,
        engine={},
        fingerprint="benchmark",
        config=config,
        versions={},
    )


if __name__ == "__main__":
    sys.exit(main())
