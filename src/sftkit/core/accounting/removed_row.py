"""A row that was removed: why, and what it held."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sftkit.core.escape import escape_unprintable

MAX_CONTENT_CHARACTERS, MAX_REASON_CHARACTERS = 2000, 500
"""Characters kept of a removed row's content and of its reason."""


@dataclass(frozen=True)
class RemovedRow:
    """A row that is not kept: it was quarantined or dropped."""

    number: int
    """Row number within its source, starting at 1."""
    reason: str
    content: str
    """The beginning of the row, as text."""


def removed_row(number: int, reason: str, content: object) -> RemovedRow:
    """Describe a row: its reason on one line, for reasons quote untrusted data and are printed, and the start of it.

    Example:
        >>> removed_row(7, "no answer", {"text": "a"})
        RemovedRow(number=7, reason='no answer', content='{"text": "a"}')
    """
    return RemovedRow(
        number, escape_unprintable(reason[:MAX_REASON_CHARACTERS]), _to_text(content)[:MAX_CONTENT_CHARACTERS]
    )


def _to_text(content: object) -> str:
    if isinstance(content, str):
        return content
    try:
        return json.dumps(content, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # objects that user functions put into rows
        return f"({type(content).__name__} that JSON cannot hold)"
