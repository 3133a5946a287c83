"""The metrics of an evaluation, together and of each data set, and which of them can choose the best model."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sftkit.core.splits import VALIDATION
from sftkit.training.metrics.loss_totals import LossTotals, part_entries, perplexity

_LOSS_OF_SET = re.compile(r"eval_([^/]+)_loss")


def evaluation_metrics(sums: Mapping[str, LossTotals], seconds: float, prefix: str = "eval") -> dict[str, float]:
    """The metrics of an evaluation.

    The loss of all data sets together is the mean over their trained tokens. Perplexity is the exponential of a loss.
    The validation split alone has no metrics of its own name. Sources and kinds have those of all data sets together,
    and of each data set.

    Args:
        sums: of each data set, by name.
        seconds: how long the evaluation took.
        prefix: comes before the names of metrics.

    Example:
        >>> found = evaluation_metrics({"math": LossTotals(20.0, 10, 10), "code": LossTotals(30.0, 30, 30)}, 2.0)
        >>> found["eval_loss"], found["eval_math_loss"], found["eval_trained_tokens_per_second"]
        (1.25, 2.0, 20.0)
    """
    together = sum(sums.values(), LossTotals())
    metrics = {f"{prefix}_loss": together.mean, f"{prefix}_perplexity": perplexity(together.mean)}
    of_parts = part_entries(together, f"{prefix}_")
    for name, totals in sums.items() if list(sums) != [VALIDATION] else ():
        metrics |= {f"{prefix}_{name}_loss": totals.mean, f"{prefix}_{name}_perplexity": perplexity(totals.mean)}
        of_parts |= part_entries(totals, f"{prefix}_{name}_")
    return metrics | {
        f"{prefix}_runtime": seconds,
        f"{prefix}_trained_tokens_per_second": together.tokens / max(seconds, 1e-9),
        **of_parts,
    }


def set_of_metric(metric: str) -> str | None:
    """The data set whose loss a metric is; None for any other metric, also for the loss of a source or kind.

    Example:
        >>> set_of_metric("eval_math_loss"), set_of_metric("eval_loss"), set_of_metric("eval_loss/source/math_loss")
        ('math', None, None)
    """
    found = _LOSS_OF_SET.fullmatch(metric)
    return None if found is None else found[1]
