"""Helpers for tests: small files, configs, whole runs, and reading their output."""

from __future__ import annotations

import json
import mmap
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig, ProcessorConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Row
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest
from sftkit.sources.discovery.source_files import find_source_files
from sftkit.sources.work_units import read_unit, scan_files
from sftkit.tokenization.engines import EnginePolicy

OWN_TOKENIZERS = ("bpe", "bos", "bos_eos", "trim", "metaspace", "sample:model")
SHARED_TOKENIZERS = ("granite", "qwen3", "tinyllama")
ALL_TOKENIZERS = (*OWN_TOKENIZERS, *SHARED_TOKENIZERS)

UNIT_SIZE = 8 << 20

EFFORT = float(os.environ.get("SFTKIT_EXAMPLES") or 1)
"""How many times as many examples generated tests try. `make test` sets the environment variable to 0.1; with more than
1, fuzzers draw other examples each time.
"""

WATCHED = EnginePolicy(frozenset(), verify_fraction=1.0)
"""The engines of `auto`, with every row verified against the reference."""


def new_memory(size: int) -> mmap.mmap:
    """Map memory that the process did not have before; `bytes` may get memory that was freed and never given back.

    Args:
        size: in bytes.

    Raises:
        MemoryError: there is not as much.
    """
    try:
        return mmap.mmap(-1, size)
    except OSError as error:
        raise MemoryError from error


def examples(count: int) -> int:
    """Scale the number of examples of a generated test; at least 1."""
    return max(1, round(count * EFFORT))


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def wait_until(question: Callable[[], bool], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until the answer is yes, as long as it takes. A process that has to make it so must be running."""
    while not question():
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def without_progress(stderr: str) -> str:
    """What a command printed, without the lines that show progress, or what it does, when that takes seconds."""
    return re.sub(r"^([\w ]+: +\d+%,.*|[a-z].* \.\.\.)\n", "", stderr, flags=re.MULTILINE)


def handler(name: str, **fn_kwargs: Any) -> HandlerConfig:
    return HandlerConfig(name=name, arguments={"fn_kwargs": fn_kwargs})


def dataset(*paths: object, **keys: Any) -> DatasetConfig:
    keys.setdefault("name", "data")
    if "data_handlers" in keys:
        keys["data_handlers"] = tuple(keys["data_handlers"])
    return DatasetConfig(data_paths=tuple(str(path) for path in paths), **keys)


def read(*paths: object, unit_size: int = UNIT_SIZE, **keys: Any) -> tuple[list[tuple[int, Row]], RowLog]:
    """(row number, row) of a data set in order, with token columns as lists, and the log of unreadable rows."""
    log = RowLog()
    found: list[tuple[int, Row]] = []
    for file in scan_files(find_source_files(dataset(*paths, **keys)), unit_size):
        for unit in file.units:
            for batch in read_unit(unit, log):
                for index, (number, row) in enumerate(zip(batch.numbers.tolist(), batch.rows, strict=True)):
                    tokens = {name: column[index].tolist() for name, column in batch.tokens.items()}
                    found.append((number, {**row, **tokens}))
    return found, log


def rows(*paths: object, **keys: Any) -> list[Row]:
    """The rows of a data set without bad rows."""
    found, log = read(*paths, **keys)
    assert not log.bad
    return [row for _, row in found]


def preprocess(
    output: Path, *datasets: DatasetConfig, processor: dict[str, Any] | None = None, **options: Any
) -> Manifest:
    options.setdefault("num_workers", 1)
    config = PreprocessConfig(
        output_dir=str(output), datasets=datasets, dataprocessor=ProcessorConfig(**(processor or {})), **options
    )
    return run(plan(config), SilentProgress())


def written(output: Path, split: str = "train") -> list[Row]:
    """The rows of the shards of a split in order, read by pyarrow."""
    files = sorted(output.glob(f"{split}-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def shard_bytes(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.parquet"))}


def trained_texts(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    return [text[start:stop] for start, stop in spans]
