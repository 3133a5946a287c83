"""Load weights whose files name tensors in another way than the model in memory does.

transformers stacks the experts of a mixture in one tensor when it loads a model, and saves them one by one, as they are
on the Hub; other models have only names that differ. The Trainer loads the weights of a checkpoint by name, and would
leave all tensors with other names as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sftkit.errors import TrainingError

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def load_converted_weights(model: Any, folder: Path) -> bool:
    """Load the weights of a checkpoint as transformers loads a model, if their names differ from those in memory.

    Args:
        model: a model of transformers; its weights are changed in place.
        folder: a checkpoint of it.

    Returns:
        Whether the names differ; if not, nothing is loaded.

    Raises:
        TrainingError: the checkpoint lacks weights of the model.
    """
    if saved_names(folder) <= model.state_dict().keys():
        return False
    load: Any = type(model).from_pretrained
    loaded, report = load(folder, config=model.config, dtype=model.dtype, output_loading_info=True)
    missing = sorted(report["missing_keys"])
    if missing:
        raise TrainingError(f"{folder}: {len(missing)} weights of the model are missing, including {missing[0]}")
    model.load_state_dict(loaded.state_dict())
    return True


def saved_names(folder: Path) -> set[str]:
    """The names of the tensors in the files of a model; empty if it has no safetensors files."""
    from safetensors import safe_open

    if (folder / _INDEX).is_file():
        return set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"])
    if not (folder / _WEIGHTS).is_file():
        return set()
    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        return set(file.keys())
