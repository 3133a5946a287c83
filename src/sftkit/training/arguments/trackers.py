"""The experiment trackers that `report_to` may name: what each needs, and how to recognise its errors."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sftkit.core.error_text import single_line
from sftkit.errors import TrainingError

_NONE = "none"
_ALL = "all"
_AIM = "aim"


@dataclass(frozen=True)
class Tracker:
    """A tracker that transformers can write to."""

    modules: tuple[str, ...]
    """Python modules, any one of which is enough."""

    extra: str | None = None
    """The extra of sftkit that installs it; None where the user installs the tracker's own package."""


TRACKERS: Mapping[str, Tracker] = MappingProxyType(
    {
        "tensorboard": Tracker(("tensorboard", "tensorboardX"), "tensorboard"),
        "mlflow": Tracker(("mlflow",), "mlflow"),
        "trackio": Tracker(("trackio",), "trackio"),
        "wandb": Tracker(("wandb",), "wandb"),
        "azure_ml": Tracker(("azureml",)),
        "clearml": Tracker(("clearml",)),
        "codecarbon": Tracker(("codecarbon",)),
        "comet_ml": Tracker(("comet_ml",)),
        "dagshub": Tracker(("dagshub",)),
        "dvclive": Tracker(("dvclive",)),
        "flyte": Tracker(("flytekit",)),
        "kubeflow": Tracker(()),  # transformers sends HTTP requests itself
        "neptune": Tracker(("neptune",)),
        "swanlab": Tracker(("swanlab",)),
    }
)
"""The names in transformers' `INTEGRATION_TO_CALLBACK` (integrations/integration_utils.py, 5.23)."""


def tracker_problems(report_to: str | Sequence[str] | None) -> list[str]:
    """What is wrong with `report_to`, one sentence each. Nothing is imported or opened.

    Args:
        report_to: names of trackers; `none` and `all` (every installed one) are accepted too.

    Example:
        >>> tracker_problems("tensorbord")
        ["report_to: unknown tracker 'tensorbord'; did you mean tensorboard?"]
    """
    return [problem for name in _names(report_to) if (problem := _unknown(name) or _missing(name))]


def unknown_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """The part of `tracker_problems` that is wrong on any machine."""
    return [problem for name in _names(report_to) if (problem := _unknown(name))]


def missing_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """The part of `tracker_problems` that is right where more packages are installed."""
    return [problem for name in _names(report_to) if not _unknown(name) and (problem := _missing(name))]


def tracker_failure(error: Exception) -> TrainingError | None:
    """The error to show for an exception that a tracker raised; None if it came from elsewhere.

    Trackers share no exception class, so the module of the exception decides (`wandb.errors.UsageError`).
    """
    package = type(error).__module__.split(".")[0]
    name = next((name for name, tracker in TRACKERS.items() if package in tracker.modules), None)
    if name is None:
        return None
    reason = single_line(error)
    return TrainingError(f"report_to: cannot write to {name}: {reason}")


def _names(report_to: str | Sequence[str] | None) -> list[str]:
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    return [name for name in names if name not in (_NONE, _ALL)]


def _unknown(name: str) -> str | None:
    if name == _AIM:
        return "report_to: to log to Aim, set aim_repo"
    if name in TRACKERS:
        return None
    near = difflib.get_close_matches(name, TRACKERS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(TRACKERS)}"
    return f"report_to: unknown tracker {name!r}; {hint}"


def _missing(name: str) -> str | None:
    tracker = TRACKERS[name]
    if not tracker.modules or any(importlib.util.find_spec(module) for module in tracker.modules):
        return None
    remedy = f"pip install 'sftkit[{tracker.extra}]'" if tracker.extra else f"install {tracker.modules[0]}"
    return f"report_to: {name} is not installed; {remedy}"
