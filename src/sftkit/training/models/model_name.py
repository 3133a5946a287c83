"""Check what `model_name_or_path` names before anything is imported, read or written."""

from __future__ import annotations

from pathlib import Path

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, TrainingError
from sftkit.storage.model_location import location_problem, model_location

_CONFIG = "config.json"


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
    folder = Path(model_location(name))
    if folder.is_dir() and not (folder / _CONFIG).exists():
        raise TrainingError(
            f"model_name_or_path: model {name!r} cannot be loaded: the directory has no {_CONFIG}, so it holds no "
            f"model; correct the path{_model_below(folder)}"
        )


def adapter_error(name: str, base: str) -> TrainingError:
    """Return the error for a LoRA adapter of the Hub where a model should be; a local one is recognized before.

    Args:
        name: where the adapter is.
        base: the model that it was trained for; empty if that is unknown.
    """
    return TrainingError(
        f"model_name_or_path: {name!r} is a LoRA adapter{f' of the model {base!r}' if base else ''}, not a model; set"
        f" model_name_or_path={base or 'BASE'} and adapter_name_or_path={name}"
    )


def _model_below(folder: Path) -> str:
    """Return a hint at a directory further in that holds a model, such as a checkpoint or a snapshot of the cache."""
    found = next(
        (path for pattern in ("*", "snapshots/*") for path in sorted(folder.glob(f"{pattern}/{_CONFIG}"))), None
    )
    return f", such as to {found.parent}" if found is not None else ""
