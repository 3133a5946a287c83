"""Change the data type of the weights in the directory of a model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sftkit.storage.files import atomic_replace
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)

_WEIGHTS = "*.safetensors"
_CONFIG = "config.json"


def save_as(folder: Path, dtype: torch.dtype) -> None:
    """Rewrite the weights of a model or adapter in another data type, and name that type in its config.

    The files are rewritten one at a time, after they were saved, so that it does not matter how a sharded model was
    gathered. A tensor that the type cannot hold keeps its own, with a warning: float16 ends at 65,504. Numbers that are
    not floating-point stay as they are.

    Args:
        folder: has the files that `save_pretrained` wrote.
        dtype: a floating-point type.

    Raises:
        OSError: a file cannot be read or written.
    """
    bytes_in_all = 0
    for path in sorted(folder.glob(_WEIGHTS)):
        with safe_open(path, framework="pt") as weights:
            metadata = weights.metadata()
            tensors = {name: _cast(name, weights.get_tensor(name), dtype) for name in weights.keys()}  # noqa: SIM118  # safe_open is no mapping
        with atomic_replace(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
        bytes_in_all += sum(values.numel() * values.element_size() for values in tensors.values())
    for index in folder.glob(f"{_WEIGHTS}.index.json"):
        content = json.loads(index.read_text(encoding="utf-8"))
        content.setdefault("metadata", {})["total_size"] = bytes_in_all
        _write(index, content)
    config = folder / _CONFIG
    if config.is_file():
        _write(config, _with_dtype(json.loads(config.read_text(encoding="utf-8")), str(dtype).removeprefix("torch.")))


def _cast(name: str, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not values.is_floating_point():
        return values
    cast = values.to(dtype)
    if bool(torch.isfinite(values).all()) and not bool(torch.isfinite(cast).all()):
        shown = str(dtype).removeprefix("torch.")
        warn_on_main_process(_log, f"{name} has values beyond those of {shown}: it is saved as {values.dtype}")
        return values
    return cast


def _with_dtype(config: Any, dtype: str) -> Any:
    """The config, and those of parts in it, with another value wherever they name the data type."""
    if not isinstance(config, dict):
        return config
    names = ("dtype", "torch_dtype")
    return {key: dtype if key in names and value else _with_dtype(value, dtype) for key, value in config.items()}


def _write(path: Path, content: Any) -> None:
    with atomic_replace(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
