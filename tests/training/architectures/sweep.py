"""Train tiny models at learning rate 0, and compute the same loss sequence by sequence without any code of sftkit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional

from training.material import logged

from .tiny_models import VOCABULARY

PACKS = ((40, 7, 61), (1, 90), (16, 33, 2), (120,), (75, 20), (5, 5, 5))
"""Tokens of the sequences of each row: beyond windows and chunks of 16, nearly up to the 128 positions of a model."""

_RUN = ("--use_cpu=true", "--learning_rate=0", "--num_train_epochs=1", "--logging_steps=1", "--save_strategy=no")
STEP = (*_RUN, "--per_device_train_batch_size=3", "--gradient_accumulation_steps=2")
"""One step over all packs, in two micro-batches (of each of two processes, in one)."""

ONE_BY_ONE = (*_RUN, "--per_device_train_batch_size=1", f"--gradient_accumulation_steps={sum(map(len, PACKS))}")
"""One step over all sequences, each in a micro-batch of its own."""


@dataclass(frozen=True)
class Computed:
    """Loss of one step, and the norm of its gradient."""

    loss: float
    norm: float


def write_rows_of_packs(folder: Path, *, packed: bool = True) -> Path:
    """Write shards of random ids, of which 6 of 10 are trained: a row for each pack, or for each of its sequences."""
    generator = np.random.default_rng(0)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "seq_lengths": []}
    for pack in PACKS:
        ids = generator.integers(3, VOCABULARY - 30, sum(pack)).tolist()
        labels = [token if generator.random() < 0.6 else -100 for token in ids]
        ends = np.cumsum(pack).tolist()
        for start, end, lengths in [(0, ends[-1], pack)] if packed else zip([0, *ends], ends, zip(pack), strict=False):
            columns["input_ids"].append(ids[start:end])
            columns["labels"].append(labels[start:end])
            columns["seq_lengths"].append([*lengths])
    table = pa.table({name: pa.array(values, pa.list_(pa.int32())) for name, values in columns.items()})
    pq.write_table(table if packed else table.drop_columns(["seq_lengths"]), folder / "train-00000-of-00001.parquet")
    return folder


def alone(model: Any, shards: Path) -> Computed:
    """Every sequence by itself."""
    rows = pq.read_table(shards / "train-00000-of-00001.parquet").to_pylist()
    sequences = []
    for row in rows:
        ends = np.cumsum(row["seq_lengths"])
        for start, end in zip([0, *ends], ends, strict=False):
            sequences.append((row["input_ids"][start:end], row["labels"][start:end]))
    trained = sum(label != -100 for _, labels in sequences for label in labels[1:])
    model.zero_grad()
    total = 0.0
    for ids, labels in sequences:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        losses = functional.cross_entropy(
            logits[:-1].float(), torch.tensor(labels[1:], dtype=torch.int64), ignore_index=-100, reduction="sum"
        )
        (losses / trained).backward()
        total += float(losses.detach())
    squares = [(values.grad.double() ** 2).sum() for values in model.parameters() if values.grad is not None]
    return Computed(total / trained, float(torch.stack(squares).sum().sqrt()))


def trained(output: Path) -> Computed:
    """What a run logged in its first step."""
    return Computed(logged(output, "loss")[0], logged(output, "grad_norm")[0])


def layout_of(records: list[logging.LogRecord]) -> str:
    """How the batches of a run were laid out, from what it said."""
    texts = [record.getMessage() for record in records]
    if any("padding changes what the model computes" in text for text in texts):
        return "one sequence"
    return "padded" if any("batches are padded" in text for text in texts) else "flat"
