"""Tokens per second that the audit checks on one core: `python -m benchmarks.audit [SHARDS TOKENIZER]`.

Without shards, it builds some from the sample's conversations. Digests (for duplicates) are timed separately.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from sftkit.audit.checks.duplicates import row_digests
from sftkit.audit.checks.row_checks import check_rows
from sftkit.audit.expectations.expected import CONVERSATIONS, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.core.rows import IGNORE_INDEX, Ragged
from sftkit.core.startup.transformers_import import import_transformers_without_torch

_TOKENS = 20_000_000
_ROWS = 20_000
_BATCH = 250_000
"""About as many tokens as a worker checks at once."""


def main() -> None:
    """Print the speed of learning expectations, checking rows and computing digests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="?", type=Path)
    parser.add_argument("tokenizer", nargs="?", default="sample:model")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import_transformers_without_torch()
    with tempfile.TemporaryDirectory() as scratch:
        shards = options.shards or _sample(Path(scratch))
        _measure(shards, options.tokenizer)


def _sample(folder: Path) -> Path:
    from sftkit.config.commands import PreprocessConfig
    from sftkit.core.progress import SilentProgress
    from sftkit.preprocessing.build import run
    from sftkit.preprocessing.planning import plan

    config = PreprocessConfig(
        output_dir=str(folder / "out"),
        training_data_path=("sample:conversations.jsonl",),
        model_name_or_path="sample:model",
    )
    run(plan(config), SilentProgress())
    return folder / "out"


def _measure(shards: Path, name: str) -> None:
    from sftkit.tokenization.loading.special_tokens import stop_tokens
    from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer

    tokenizer = load_tokenizer(TokenizerSpec(name))
    began = time.perf_counter()
    origin = RowOrigin(CONVERSATIONS, trains_all=False, variables={})
    expected = learn_expectations(tokenizer, origin, stop_tokens(tokenizer, name))
    sys.stdout.write(f"learning the expectations: {time.perf_counter() - began:.3f} s\n")
    rows = [row for path in sorted(shards.glob("*.parquet"))[:1] for row in _rows(path)][:_ROWS]
    batches, size = [], 0
    batch: list[tuple[np.ndarray, np.ndarray]] = []
    for row in rows:
        batch.append(row)
        size += len(row[0])
        if size >= _BATCH:
            batches.append(_as_columns(batch))
            batch, size = [], 0
    batches += [_as_columns(batch)] if batch else []
    tokens = sum(len(ids.values) for ids, _ in batches)
    sys.stdout.write(f"{tokens:,} tokens in {len(batches)} batches, {tokens / len(rows):.0f} per row\n")
    for what, work in (
        ("checks", lambda ids, labels: check_rows(ids, labels, labels != IGNORE_INDEX, expected)),
        ("digests", lambda ids, labels: row_digests(ids)),
    ):
        done = 0
        began = time.process_time()
        while done < _TOKENS:
            for ids, labels in batches:
                work(ids, labels)
            done += tokens
        seconds = time.process_time() - began
        sys.stdout.write(f"{what}: {done / seconds / 1e6:.1f} million tokens per second\n")


def _rows(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    table = pq.read_table(path, columns=["input_ids", "labels"])
    ids, labels = (table.column(name).to_pylist() for name in ("input_ids", "labels"))
    return [(np.array(one, np.int32), np.array(other, np.int32)) for one, other in zip(ids, labels, strict=True)]


def _as_columns(rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Ragged, np.ndarray]:
    return Ragged.from_lists([ids for ids, _ in rows]), np.concatenate([labels for _, labels in rows])


if __name__ == "__main__":
    main()
