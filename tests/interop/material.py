"""Losses to compare with, and modules that only other parts of a trainer need."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from docs.pages import ROOT, blocks_of

Sequences = list[tuple[list[int], list[int]]]
"""Ids and labels of each sequence."""


def sequences(shards: Path, rows: Sequence[int] | None = None) -> Sequences:
    """The sequences of some rows of the train split (by default of all), which has the columns of sftkit."""
    found = []
    table = pq.read_table(shards / "train-00000-of-00001.parquet").to_pylist()
    for row in table if rows is None else [table[number] for number in rows]:
        start = 0
        for length in row.get("seq_lengths", [len(row["input_ids"])]):
            part = slice(start, start + length)
            found.append((row["input_ids"][part], row["labels"][part]))
            start += length
    return found


def loss_of(model: Any, expected: Sequences) -> float:
    """The mean loss of the tokens of sequences that are computed one by one: what no batch may change."""
    total, count = 0.0, 0
    with torch.no_grad():
        for ids, labels in expected:
            logits = model(torch.tensor([ids])).logits[0, :-1].float()
            target = torch.tensor(labels[1:])
            total += torch.nn.functional.cross_entropy(logits, target, ignore_index=-100, reduction="sum").item()
            count += int((target != -100).sum())
    return total / count


def trainer_module(name: str) -> Any:
    """A module of a package that `make interop` installs; where it need not be there, the test is skipped without."""
    if os.environ.get("SFTKIT_INTEROP"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason="make interop installs it")


def page_module(name: str) -> dict[str, Any]:
    """What the file of this name defines that docs/interop.md shows."""
    block = next(block for block in blocks_of(ROOT / "docs" / "interop.md") if block.file_name == name)
    names: dict[str, Any] = {}
    exec(compile(block.text, block.place, "exec"), names)
    return names


@contextmanager
def empty_modules(*names: str) -> Iterator[None]:
    """Let packages import modules that have no build for this torch, and that text does not need."""

    class Empty(types.ModuleType):
        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for name in names:
        module = Empty(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
