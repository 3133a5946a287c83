"""The metrics of an evaluation by which the best model can be chosen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from sftkit.config.fields import did_you_mean
from sftkit.core.splits import VALIDATION

_EVALUATION = "eval_"
_GREATER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {"loss": False, "perplexity": False, "runtime": False, "trained_tokens_per_second": True}
)


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
