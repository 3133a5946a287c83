"""Draw the losses in the log of a run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkit.training.metrics.evaluation_metrics import set_of_metric

CURVE_NAME = "training_curve.png"

_TRAIN, _EVAL = "#2a6f97", "#c8553d"
_LOSSES = (("loss", "training loss", _TRAIN), ("eval_loss", "validation loss", _EVAL))
_SETS = ("#e9a03b", "#5b8e3e", "#8a5a9e", "#3aa6a0", "#a0522d", "#7a7a7a")
"""Colors of the data sets of `eval_data`."""
_INCHES = (8.0, 4.5)
_DOTS_PER_INCH = 120
_MOST_MARKED_STEPS = 40


@dataclass(frozen=True)
class Curve:
    """One line of the picture: the losses of the steps that have one."""

    name: str
    color: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]


def draw_curve(log: Path, picture: Path) -> bool:
    """Draw training and validation loss over the steps.

    Args:
        log: a `training_logs.jsonl`, complete or truncated.
        picture: PNG file to write.

    Returns:
        Whether there was a loss to draw.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (extra: plot).
    """
    curves = [curve for curve in read_curves(log) if curve.steps]
    if not curves:
        return False
    # Imported here because it takes a second. Without pyplot, which would keep the figure and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve in curves:
        marker = "o" if curve.name != _LOSSES[0][1] or len(curve.steps) < _MOST_MARKED_STEPS else None
        label = f"{curve.name}, {curve.losses[-1]:.4g} at the end"
        axes.plot(curve.steps, curve.losses, label=label, color=curve.color, marker=marker, markersize=3.5, lw=1.4)
    axes.legend(frameon=False)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.locator_params(axis="x", integer=True)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(
        picture, dpi=_DOTS_PER_INCH, metadata={"Software": None}
    )  # without the version, so that the same log gives the same bytes
    return True


def read_curves(log: Path) -> list[Curve]:
    """The losses in a log; invalid lines and losses that are not finite are skipped."""
    events = [event for line in _lines(log) if isinstance(event := _event(line), dict)]
    curves = []
    sets = dict.fromkeys(key for event in events for key in event if set_of_metric(key) is not None)
    of_sets = [(key, f"{set_of_metric(key)} loss", _SETS[index % len(_SETS)]) for index, key in enumerate(sets)]
    for key, name, color in (*_LOSSES, *of_sets):
        points = [(_number(event.get("step")), _number(event.get(key))) for event in events]
        found = [(int(step), loss) for step, loss in points if step is not None and loss is not None]
        curves.append(Curve(name, color, tuple(step for step, _ in found), tuple(loss for _, loss in found)))
    return curves


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").split("\n") if log.is_file() else []


def _event(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
