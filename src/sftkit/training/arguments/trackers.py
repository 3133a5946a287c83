"""Which trackers `report_to` may name, what each needs, and how one that fails is told from a bug."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sftkit.errors import TrainingError

_NONE = "none"
_ALL = "all"
_AIM = "aim"


@dataclass(frozen=True)
class Tracker:
    """A tracker that transformers writes to.

    modules: any of them will do. extra: of sftkit; None where the tracker's own package is to be installed.
    """

    modules: tuple[str, ...]
    extra: str | None = None


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
        "kubeflow": Tracker(()),  # speaks HTTP by itself
        "neptune": Tracker(("neptune",)),
        "swanlab": Tracker(("swanlab",)),
    }
)
"""The names in transformers' `INTEGRATION_TO_CALLBACK` (integrations/integration_utils.py, 5.23)."""


def tracker_problems(report_to: str | Sequence[str] | None) -> list[str]:
    """What is wrong with `report_to`, one sentence each; nothing is imported, nothing is opened.

    Args:
        report_to: names of trackers; `none` and `all` (all that are installed) stand for themselves.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    return [problem for name in names if name not in (_NONE, _ALL) and (problem := _problem(name))]


def tracker_failure(error: Exception) -> TrainingError | None:
    """The one sentence for an error that a tracker raised while it was set up or written to; None for any other.

    A tracker is told by the module of the error's class (`wandb.errors.UsageError`), for they share no base.
    """
    package = type(error).__module__.split(".")[0]
    name = next((name for name, tracker in TRACKERS.items() if package in tracker.modules), None)
    if name is None:
        return None
    reason = " ".join(str(error).split()) or type(error).__name__
    return TrainingError(f"report_to: {name} cannot be written to: {reason}")


def _problem(name: str) -> str | None:
    if name == _AIM:
        return "report_to: Aim is asked for with aim_repo"
    tracker = TRACKERS.get(name)
    if tracker is None:
        near = difflib.get_close_matches(name, TRACKERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TRACKERS)}"
        return f"report_to: {name!r} is no tracker; {hint}"
    if not tracker.modules or any(importlib.util.find_spec(module) for module in tracker.modules):
        return None
    needed = f"pip install 'sftkit[{tracker.extra}]'" if tracker.extra else f"it needs {tracker.modules[0]}"
    return f"report_to: {name} is not installed; {needed}"
