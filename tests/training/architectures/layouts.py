"""How each architecture is trained, and why: the rows of docs/architectures.md."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sftkit.config.commands import TrainConfig
from sftkit.training.models.sequence_separation import determine_capabilities
from sftkit.training.trials.runs import evaluation_mode

from .tiny_models import NOT_TRAINED, architectures, tiny_model

PAGE = Path(__file__).resolve().parents[3] / "docs" / "architectures.md"

_RECURRENT = re.compile("mamba|linear|conv|recurrent|hybrid")
_ROW = re.compile(r"^\| `([\w-]+)` \| ([\w ]+) \|")


def rows() -> list[tuple[str, str, str]]:
    """Architecture, layout and reason of all architectures."""
    trained = [(name, *layout_and_reason(name)) for name in architectures()]
    return sorted([*trained, *((name, "not tried", reason) for name, reason in NOT_TRAINED.items())])


def layouts_of_page() -> dict[str, str]:
    """The layout of each architecture according to docs/architectures.md."""
    return {match[1]: match[2] for line in PAGE.read_text().splitlines() if (match := _ROW.match(line))}


def layout_and_reason(name: str) -> tuple[str, str]:
    """How an architecture is trained: `flat`, `padded` or `one sequence`, and why."""
    model = tiny_model(name)
    arguments: Any = SimpleNamespace(device=torch.device("cpu"), bf16=False, fp16=False, torch_compile=False)
    able = determine_capabilities(model, TrainConfig(output_dir="o"), arguments)
    if able.separates_sequences:
        return "flat", ""
    return "padded" if able.ignores_padding else "one sequence", _reason(model)


def _reason(model: Any) -> str:
    config = model.config
    layers = [*(getattr(config, "layer_types", None) or ()), *(getattr(config, "layers_block_type", None) or ())]
    if getattr(model, "_is_stateful", False) or any(_RECURRENT.search(layer) for layer in layers):
        return "the state of recurrent layers runs through the row"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return "takes no positions, and so sees no sequences"
    if _keeps_few_tokens_apart(model):
        return "mixes sequences, or fails, beyond its first chunk or the end of a table"
    return "its mask or its positions are those of the row"


def _keeps_few_tokens_apart(model: Any) -> bool:
    first, second = torch.arange(3, 8)[None], torch.arange(5, 11)[None]
    positions = torch.cat([torch.arange(5), torch.arange(6)])[None]
    with evaluation_mode(model, None):
        alone = model(input_ids=second, use_cache=False).logits
        flat = model(input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits
    return torch.allclose(flat[:, 5:], alone, atol=1e-4)
