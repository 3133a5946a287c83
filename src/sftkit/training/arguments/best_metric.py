"""The metrics of an evaluation by which the best model can be chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from sftkit.config.fields import did_you_mean

_EVALUATION = "eval_"
_GREATER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {"loss": False, "perplexity": False, "runtime": False, "trained_tokens_per_second": True}
)


def is_better_when_greater(metric: str) -> bool:
    """Whether a greater value of a metric is better; transformers says so of all whose name does not end with "loss".

    Args:
        metric: its name, with or without `eval_`.

    Example:
        >>> is_better_when_greater("eval_perplexity")
        False
    """
    return _GREATER_IS_BETTER.get(metric.removeprefix(_EVALUATION), not metric.endswith("loss"))


def best_metric_problems(metric: str | None) -> Iterator[str]:
    """Say what is wrong with `metric_for_best_model`: an evaluation has no such metric."""
    if metric is not None and metric.removeprefix(_EVALUATION) not in _GREATER_IS_BETTER:
        known = [_EVALUATION + name for name in _GREATER_IS_BETTER]
        hint = did_you_mean(metric, known)
        yield f"metric_for_best_model: an evaluation has no metric {metric!r}{hint}; choose one of {', '.join(known)}"
