"""The metrics of an evaluation by which the best model can be chosen, and what early stopping needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from sftkit.config.commands import TrainConfig
from sftkit.config.fields import did_you_mean
from sftkit.core.splits import VALIDATION
from sftkit.training.arguments.usual_arguments import OWN_DEFAULTS

_EVALUATION = "eval_"
_GREATER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {"loss": False, "perplexity": False, "runtime": False, "trained_tokens_per_second": True}
)


_SAVE_STEPS = 500
"""Default of transformers."""
_OF_SETS = ("loss", "perplexity")
"""The metrics of a single data set."""


def is_better_when_greater(metric: str) -> bool:
    """Whether a greater value of a metric is better; transformers says so of all whose name does not end with "loss".

    Args:
        metric: its name, with or without `eval_`.

    Example:
        >>> is_better_when_greater("eval_perplexity")
        False
    """
    return _GREATER_IS_BETTER.get(metric.removeprefix(_EVALUATION), not metric.endswith(_OF_SETS))


def best_metric_problems(metric: str | None, sets: Collection[str] = ()) -> Iterator[str]:
    """Say what is wrong with `metric_for_best_model`: an evaluation has no such metric.

    Args:
        metric: its value.
        sets: names of the data sets in `eval_data`.
    """
    names = [*sets, VALIDATION] if sets else []
    known = [*_GREATER_IS_BETTER, *(f"{name}_{kind}" for name in names for kind in _OF_SETS)]
    if metric is not None and metric.removeprefix(_EVALUATION) not in known:
        shown = [_EVALUATION + name for name in known]
        hint = did_you_mean(metric, shown)
        yield f"metric_for_best_model: an evaluation has no metric {metric!r}{hint}; choose one of {', '.join(shown)}"


def add_early_stopping(config: TrainConfig, values: dict[str, Any]) -> Iterator[str]:
    """Add the training arguments that early stopping needs, and yield what is wrong with those given.

    Unless the run saves at other steps than it evaluates, the best model is loaded at the end.

    Args:
        config: the run.
        values: training arguments; changed.
    """
    if config.early_stopping_patience is None:
        if config.early_stopping_threshold:
            yield "early_stopping_threshold is given without early_stopping_patience; set both"
        return
    strategy = values.get("eval_strategy") or "no"
    if strategy == "no":
        yield (
            "early_stopping_patience counts evaluations; set eval_strategy=steps with eval_steps=N, or "
            "eval_strategy=epoch"
        )
        return
    if values.get("metric_for_best_model") is None:
        values["metric_for_best_model"] = "eval_loss"
    if values.get("load_best_model_at_end") is None:
        every = values.get("eval_steps") or values.get("logging_steps") or OWN_DEFAULTS["logging_steps"]
        if values.keys().isdisjoint(("save_strategy", "save_steps")):
            values |= {"save_strategy": strategy} | ({"save_steps": every} if strategy == "steps" else {})
        saves, save_steps = values.get("save_strategy", "steps"), values.get("save_steps", _SAVE_STEPS)
        fits = strategy == "epoch" or save_steps == every or (min(save_steps, every) >= 1 and save_steps % every == 0)
        values["load_best_model_at_end"] = saves == "best" or (saves == strategy and fits)
