"""Check what `model_name_or_path` names before anything is imported, read or written."""

from __future__ import annotations

from pathlib import Path

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, TrainingError
from sftkit.storage.model_location import adapter_base, location_problem, model_location

_CONFIG = "config.json"
_MERGED = "merged"
"""Where `merge_lora` saves a whole model, below its adapter."""


def check_model_name(config: TrainConfig) -> None:
    """Refuse a name that cannot be that of a model. What is on the Hub is only known when it is loaded.

    Raises:
        ConfigError: no model is named.
        TrainingError: the name is that of a missing directory, a file, or a directory without a model.
    """
    name = config.model_name_or_path
    if name is None:
        raise ConfigError("model_name_or_path is missing; set it to the model to train")
    problem = location_problem(name)
    if problem is not None:
        raise TrainingError(f"model_name_or_path: model {name!r} cannot be loaded: {problem}")
    base = adapter_base(name)
    if base is not None:
        raise adapter_error(name, base)
    folder = Path(model_location(name))
    if folder.is_dir() and not (folder / _CONFIG).exists():
        raise TrainingError(
            f"model_name_or_path: model {name!r} cannot be loaded: the directory has no {_CONFIG}, so it holds no "
            f"model; correct the path{_model_below(folder)}"
        )


def adapter_error(name: str, base: str) -> TrainingError:
    """Return the error for a LoRA adapter where a model should be.

    Args:
        name: where the adapter is.
        base: the model that it was trained for; empty if that is unknown.
    """
    merged = Path(model_location(name)) / _MERGED
    whole = (
        f"set model_name_or_path={merged}, which is this model with the adapter merged into it"
        if (merged / _CONFIG).is_file()
        else "repeat the run that made it with merge_lora=true, which also saves the whole model"
    )
    return TrainingError(
        f"model_name_or_path: {name!r} is a LoRA adapter{f' of the model {base!r}' if base else ''}, not a model; train"
        f" {'that model' if base else 'its base model'} (use_peft=true makes a new adapter), or {whole}"
    )


def _model_below(folder: Path) -> str:
    """Return a hint at a directory further in that holds a model, such as a checkpoint or a snapshot of the cache."""
    found = next(
        (path for pattern in ("*", "snapshots/*") for path in sorted(folder.glob(f"{pattern}/{_CONFIG}"))), None
    )
    return f", such as to {found.parent}" if found is not None else ""
