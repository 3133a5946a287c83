"""Shards with sources, kinds of tokens and weights, and their loss in plain torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from sftkit.core.token_kinds import TRAINED_KINDS
from sftkit.shards.manifest import Manifest, ShardInfo, SplitInfo

SOURCES = ("math", "code", "chat/en")
WEIGHTS = (0.25, 0.5, 1.0, 3.0)
VOCABULARY = 250
IDS = pa.list_(pa.int32())


@dataclass(frozen=True)
class Example:
    """One sequence; the first token of each is not trained."""

    ids: list[int]
    labels: list[int]
    kinds: list[int]
    weights: list[float]
    source: int


def make_sequences(count: int, seed: int = 0) -> list[Example]:
    """Random sequences of 3 to 24 tokens, of which about half are trained."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        length = int(random.integers(3, 25))
        ids = random.integers(2, VOCABULARY, length).tolist()
        trained = random.random(length) < 0.5
        trained[:2] = [False, True]
        labels = np.where(trained, ids, -100).tolist()
        kinds = np.where(trained, random.integers(1, 5, length), 0).tolist()
        weights = np.where(trained, random.choice(WEIGHTS, length), 0).tolist()
        found.append(Example(ids, labels, kinds, weights, number % len(SOURCES)))
    return found


def columns_of(packs: Sequence[Sequence[Example]], *, packed: bool) -> dict[str, pa.Array]:
    """The columns of some rows, each of several sequences if they are packed."""

    def joined(name: str) -> list[list[Any]]:
        return [[value for each in pack for value in getattr(each, name)] for pack in packs]

    sources = [[each.source for each in pack] for pack in packs]
    columns = {
        "input_ids": pa.array(joined("ids"), IDS),
        "labels": pa.array(joined("labels"), IDS),
        "token_kinds": pa.array(joined("kinds"), IDS),
        "loss_weights": pa.array(joined("weights"), pa.list_(pa.float32())),
    }
    if not packed:
        return columns | {"source": pa.array([each[0] for each in sources], pa.int32())}
    lengths = [[len(each.ids) for each in pack] for pack in packs]
    return columns | {"source": pa.array(sources, IDS), "seq_lengths": pa.array(lengths, IDS)}


def write_shards(
    folder: Path,
    splits: dict[str, Sequence[Example]],
    *,
    pack: int = 1,
    without: Sequence[str] = (),
    files: int = 2,
) -> None:
    """Write shards with a manifest.

    Args:
        folder: where to.
        splits: the sequences of each split.
        pack: sequences of a row.
        without: columns that are left out.
        files: how many files a split has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, sequences in splits.items():
        packs = [sequences[start : start + pack] for start in range(0, len(sequences), pack)]
        table = pa.table({k: v for k, v in columns_of(packs, packed=pack > 1).items() if k not in without})
        shards = []
        for number, part in enumerate(np.array_split(np.arange(len(packs)), files)):
            name = f"{split}-{number:05d}.parquet"
            pq.write_table(table.take(pa.array(part)), folder / name, row_group_size=4)
            shards.append(ShardInfo(name, len(part), 0, 0, (folder / name).stat().st_size, ""))
        found[split] = SplitInfo(len(packs), 0, 0, 0, 0, {}, tuple(shards))
    manifest = Manifest(
        columns=tuple(table.column_names), text_column=None, splits=found, sources=(), rows_read=0, rows_written=0,
        rows_left_out=0, rows_repeated=0, dropped={}, quarantined=0, tokenizer=None, engine={}, fingerprint=str(splits),
        config={}, versions={}, source_names=() if "source" in without else SOURCES,
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.to_json())


def uniform(sequences: Sequence[Example]) -> list[Example]:
    """The same sequences, where every trained token has the weight 1."""
    return [replace(each, weights=[float(label != -100) for label in each.labels]) for each in sequences]


def plain_loss(
    model: torch.nn.Module, sequences: Sequence[Example], smoothing: float = 0.0
) -> tuple[torch.Tensor, dict[str, float]]:
    """The weighted mean over the trained tokens of some sequences, each run alone; and what is logged of each part."""
    losses, weights, sources, kinds = [], [], [], []
    for each in sequences:
        logits = model(input_ids=torch.tensor([each.ids])).logits[0, :-1].double()
        labels = torch.tensor(each.labels[1:])
        losses.append(functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing))
        weights.append(torch.tensor(each.weights[1:], dtype=torch.float64))
        sources.append(torch.full_like(labels, each.source))
        kinds.append(torch.tensor(each.kinds[1:]))
    loss, weight, source, kind = map(torch.cat, (losses, weights, sources, kinds))
    total = (loss * weight).sum() / weight.sum()
    groups = {f"source/{name}": (source == number) & (kind > 0) for number, name in enumerate(SOURCES)}
    groups |= {each.label: kind == each for each in TRAINED_KINDS}
    entries: dict[str, float] = {}
    loss = loss.detach()
    for name, chosen in groups.items():
        if chosen.any():
            of_part = weight[chosen].sum()
            entries[f"loss/{name}"] = float((loss * weight)[chosen].sum() / of_part)
            entries[f"weight_share/{name}"] = float(of_part / weight.sum())
            entries[f"trained_tokens/{name}"] = int(chosen.sum())
    return total, entries


def plain_run(
    model_dir: Path, steps: Sequence[Sequence[Example]], rate: float, smoothing: float = 0.0
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Train by plain gradient descent, a step on each of some sequences: what is logged, and the final weights."""
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    logs = []
    for sequences in steps:
        optimizer.zero_grad()
        loss, entries = plain_loss(model, sequences, smoothing)
        loss.backward()
        optimizer.step()
        logs.append({"loss": loss.item(), **entries})
    return logs, {name: values.detach() for name, values in model.named_parameters()}


def sums(event: dict[str, Any], prefix: str = "") -> Iterator[float]:
    """The loss as the sum over sources, and as the sum over kinds."""
    names = [key.removeprefix(f"{prefix}loss/") for key in event if key.startswith(f"{prefix}loss/")]
    for of_source in (True, False):
        chosen = [name for name in names if name.startswith("source/") == of_source]
        yield sum(event[f"{prefix}loss/{name}"] * event[f"{prefix}weight_share/{name}"] for name in chosen)
