"""Evaluates templates and expressions of the user on a row, within limits; what goes wrong is about the row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sftkit.core.row_log import RowError
from sftkit.sandbox.render_limits import TemplateLimitError, render_within_limits

T = TypeVar("T")


def evaluate_on_row(evaluate: Callable[[], T], row: Mapping[str, Any], subject: str, failure: str) -> T:
    """Call `evaluate` within the limits, and return its result.

    Args:
        evaluate: renders a template or evaluates an expression of Jinja with the values of the row.
        row: the row.
        subject: what messages call it: `template`, `condition`.
        failure: what it does if it fails, for the message.

    Raises:
        RowError: it uses a value that the row lacks, or fails on the row in another way.
        TemplateLimitError: it exceeds a limit on time or memory.

    Example:
        >>> evaluate_on_row(lambda: 1 / 0, {"text": "a"}, "condition", "cannot be evaluated")
        Traceback (most recent call last):
        sftkit.core.row_log.RowError: the condition cannot be evaluated: division by zero
    """
    from jinja2 import UndefinedError

    try:
        return render_within_limits(evaluate, row)
    except TemplateLimitError as error:
        raise error.about(subject) from None
    except UndefinedError as error:
        raise RowError(
            f"the {subject} uses a missing value: {error}; columns here: {', '.join(row) or 'none'}"
        ) from None
    except Exception as error:  # code of the user may raise anything on data that it was not written for
        raise RowError(f"the {subject} {failure}: {error}") from None
