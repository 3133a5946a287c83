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

from .tiny_models import tiny_model

PACKS = ((40, 7, 61), (1, 90), (16, 33, 2), (128,), (75, 20), (5, 5, 5))
"""Tokens of the sequences of each row: beyond windows and chunks of 16, and up to the 128 positions of a model."""

RUN = (
    "--use_cpu=true",
    "--learning_rate=0",
    "--num_train_epochs=1",
    "--per_device_train_batch_size=3",
    "--gradient_accumulation_steps=2",
    "--logging_steps=1",
    "--save_strategy=no",
)
"""One step over all rows, in two micro-batches."""


@dataclass(frozen=True)
class Computed:
    """Loss of one step, and the norm of its gradient."""

    loss: float
    norm: float


def write_packs(folder: Path, vocabulary: int) -> Path:
    """Write `PACKS` as shards of random ids; 6 of 10 tokens are trained."""
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, vocabulary, sum(pack)).tolist() for pack in PACKS]
    labels = [[token if generator.random() < 0.6 else -100 for token in row] for row in ids]
    kind = pa.list_(pa.int32())
    columns = {"input_ids": ids, "labels": labels, "seq_lengths": [list(pack) for pack in PACKS]}
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: pa.array(values, kind) for name, values in columns.items()})
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    return folder


def save_tiny_model(name: str, folder: Path, **overrides: Any) -> None:
    """Save a tiny model of an architecture."""
    tiny_model(name, **overrides).save_pretrained(folder)


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
