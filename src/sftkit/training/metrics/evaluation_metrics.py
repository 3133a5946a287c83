"""The metrics of an evaluation, together and of each data set, and which of them can choose the best model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from sftkit.core.splits import VALIDATION

_LARGEST_EXPONENT = math.log(1.7e308)  # exp() of more overflows
_LOSS_OF_SET = re.compile(r"eval_(.+)_loss")


def evaluation_metrics(sums: Mapping[str, Sequence[float]], seconds: float, prefix: str = "eval") -> dict[str, float]:
    """The metrics of an evaluation.

    The loss of all data sets together is the mean over their trained tokens. Perplexity is the exponential of a loss.
    The validation split alone has no metrics of its own name.

    Args:
        sums: for each data set by name, the sum of the losses of its trained tokens, and their number.
        seconds: how long the evaluation took.
        prefix: comes before the names of metrics.

    Example:
        >>> found = evaluation_metrics({"math": (20.0, 10), "code": (30.0, 30)}, 2.0)
        >>> found["eval_loss"], found["eval_math_loss"], found["eval_trained_tokens_per_second"]
        (1.25, 2.0, 20.0)
    """
    losses = {name: total / max(tokens, 1) for name, (total, tokens) in sums.items() if list(sums) != [VALIDATION]}
    tokens = sum(count for _, count in sums.values())
    mean = sum(total for total, _ in sums.values()) / max(tokens, 1)
    metrics = {f"{prefix}_loss": mean, f"{prefix}_perplexity": _perplexity(mean)}
    for name, loss in losses.items():
        metrics |= {f"{prefix}_{name}_loss": loss, f"{prefix}_{name}_perplexity": _perplexity(loss)}
    return metrics | {
        f"{prefix}_runtime": seconds,
        f"{prefix}_trained_tokens_per_second": tokens / max(seconds, 1e-9),
    }


def set_of_metric(metric: str) -> str | None:
    """The data set whose loss a metric is; None for any other metric.

    Example:
        >>> set_of_metric("eval_math_loss"), set_of_metric("eval_loss")
        ('math', None)
    """
    found = _LOSS_OF_SET.fullmatch(metric)
    return None if found is None else found[1]


def _perplexity(loss: float) -> float:
    return math.inf if loss >= _LARGEST_EXPONENT else math.exp(loss)
