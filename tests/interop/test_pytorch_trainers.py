"""MosaicML Streaming, numpy, torchtune, LitGPT and torchtitan on our shards, loaded as docs/interop.md shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from interop.conftest import PACK_LENGTH
from interop.material import empty_modules, loss_of, page_module, sequences, trainer_module

VISION = ("transforms", "transforms.functional", "datasets", "datasets.vision", "datasets.folder")
"""Modules of torchvision, for pictures."""


@pytest.mark.parametrize("packed", [False, True])
def test_mosaicml_streaming(shards: Callable[..., Path], model: Any, packed: bool) -> None:
    with empty_modules("torchvision", *(f"torchvision.{name}" for name in VISION)):
        trainer_module("streaming")
    loader = page_module("mosaicml_shards.py")["loader"]
    path = shards("sftkit", packed=packed, output_format=("mds",))
    with torch.no_grad():
        found = model(**next(iter(loader(path, rows=4, shuffle=False)))).loss.item()
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=packed), range(4))), abs=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_numpy(shards: Callable[..., Path], model: Any, packed: bool) -> None:
    path = shards("sftkit", packed=packed, output_format=("parquet", "npy"))
    data = page_module("npy_shards.py")["Arrays"](path / "npy" / "train-00000-of-00001", packed)
    assert len(data) == len(sequences(path)) or packed
    for number in (0, len(data) - 1):
        row = {name: each[None].long() for name, each in data[number].items()}
        with torch.no_grad():
            found = model(**row).loss.item()
        assert found == pytest.approx(loss_of(model, sequences(path, [number])), abs=1e-5)


def shifted(labels: torch.Tensor) -> torch.Tensor:
    """As torchtune's recipes shift labels."""
    return torch.hstack((labels[..., 1:], torch.full((len(labels), 1), -100)))


def test_torchtune_rows(shards: Callable[..., Path], model: Any) -> None:
    torchtune = trainer_module("torchtune.data")
    from torchtune.modules.loss import CEWithChunkedOutputLoss

    data = page_module("torchtune_shards.py")["rows"](None, str(shards("sftkit", packed=False)))
    batch = torchtune.padded_collate_sft([data[number] for number in range(4)])
    with torch.no_grad():
        logits = model(batch["tokens"]).logits
        found = CEWithChunkedOutputLoss(num_output_chunks=1)([logits], shifted(batch["labels"])).item()
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=False), range(4))), abs=1e-5)


def test_torchtune_packs(shards: Callable[..., Path], model: Any) -> None:
    torchtune = trainer_module("torchtune.data")
    from torchtune.modules.loss import CEWithChunkedOutputLoss

    padded = shards("sftkit", packed=True, pad_pack_to_multiple_of=PACK_LENGTH)
    data = page_module("torchtune_shards.py")["packs"](None, str(padded))
    batch = torchtune.padded_collate_packed([data[number] for number in range(3)])
    with torch.no_grad():
        mask = batch["mask"][:, None]
        logits = model(batch["tokens"], attention_mask=mask, position_ids=batch["input_pos"]).logits
        found = CEWithChunkedOutputLoss(num_output_chunks=1)([logits], shifted(batch["labels"])).item()
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=True), range(3))), abs=1e-5)


def test_litgpt_rows(shards: Callable[..., Path], model: Any) -> None:
    utilities = trainer_module("litgpt.utils")
    module = page_module("litgpt_shards.py")["Shards"](str(shards("sftkit", packed=False)))
    module.connect(batch_size=16)
    batch = next(iter(module.train_dataloader()))
    with torch.no_grad():  # as in litgpt.finetune.full
        logits = model(batch["input_ids"]).logits[..., :-1, :]
        found = utilities.chunked_cross_entropy(logits, batch["labels"][..., 1:]).item()
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=False))), abs=1e-5)


def test_torchtitan_packs(shards: Callable[..., Path], model: Any) -> None:
    data = page_module("torchtitan_shards.py")["Packs"](str(shards("llamafactory", packed=True)))
    inputs, labels = next(iter(DataLoader(data, batch_size=3)))
    with torch.no_grad():  # without a mask, transformers makes a block-diagonal one from positions, too
        logits = model(inputs["input"], position_ids=inputs["positions"]).logits
    found = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()  # -100 is ignored
    assert found == pytest.approx(loss_of(model, sequences(shards("sftkit", packed=True), range(3))), abs=1e-5)
