"""Save adapters that began with parts of the base weights (PiSSA, OLoRA) for the base as it was.

PiSSA (https://arxiv.org/abs/2404.02948) and OLoRA (https://arxiv.org/abs/2406.01775) take B0 A0 out of a weight W and
train B A in its place. With the original W, the trained layer is W - s B0 A0 + s B A: an adapter of twice the rank,
[B, -B0] and [A; A0], at the same scale s. peft can make it, too (`path_initial_model_for_weight_conversion`), but
leaves out everything that is not LoRA: trained modules and rows of embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sftkit.storage.adapter_files import SETTINGS_NAME, WEIGHTS_NAMES
from sftkit.storage.files import atomic_replace

InitialWeights = Mapping[str, torch.Tensor]
"""Name in the file of an adapter -> the tensor that a run began with, on the CPU."""

_A, _B = ".lora_A.", ".lora_B."


def initial_weights(model: Any) -> InitialWeights:
    """Copy the LoRA weights of a model with new adapters, under the names that they have in a file."""
    from peft import get_peft_model_state_dict

    weights: Mapping[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: values.detach().to("cpu", copy=True) for name, values in weights.items() if _A in name or _B in name}


def convert_for_original_base(folder: Path, initial: InitialWeights) -> None:
    """Rewrite the adapter in a directory such that it belongs to the original base weights.

    Args:
        folder: has the adapter as trained.
        initial: its weights before the first step.

    Raises:
        OSError: a file cannot be read or written.
    """
    path = folder / WEIGHTS_NAMES[0]
    weights = load_file(path)
    for name, before in initial.items():
        parts = [weights[name], before.to(weights[name].dtype) * (-1 if _B in name else 1)]
        weights[name] = torch.cat(parts, dim=1 if _B in name else 0)
    settings = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
    scale = 2**0.5 if settings.get("use_rslora") else 2  # alpha / sqrt(r) or alpha / r stays the same
    settings["init_lora_weights"] = True
    settings["r"] *= 2
    settings["lora_alpha"] *= scale
    settings["rank_pattern"] = {key: 2 * value for key, value in (settings.get("rank_pattern") or {}).items()}
    settings["alpha_pattern"] = {key: scale * value for key, value in (settings.get("alpha_pattern") or {}).items()}
    with atomic_replace(path) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    with atomic_replace(folder / SETTINGS_NAME) as temporary:
        temporary.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
