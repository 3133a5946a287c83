"""Columns of a source that hold data and are not used: how often each is filled, and if its text is used anyway."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MAX_NAMES, MAX_NAME_LENGTH = 200, 200
"""How many different columns are counted, and how many characters of their names are kept: both come from the data."""

_LABEL_KEYS = frozenset({"role", "from", "type"})
"""Keys whose values say what a text is, and are no text themselves."""


def is_filled(value: object) -> bool:
    """Whether a value is neither null nor empty; an object whose values are all null counts as empty.

    Example:
        >>> [is_filled(value) for value in (None, "", [], {"a": None}, 0, "a")]
        [False, False, False, False, True, True]
    """
    if isinstance(value, dict):
        return any(each is not None for each in value.values())
    return value is not None and not (isinstance(value, (str, list, tuple)) and not value)


def count_column(counts: Counter[str], name: str, rows: int = 1) -> None:
    """Count rows in which a column is filled; columns beyond the first `MAX_NAMES` are not counted."""
    short = name[:MAX_NAME_LENGTH]
    if short in counts or len(counts) < MAX_NAMES:
        counts[short] += rows


def add_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up the counts of several parts of the data; the names are in alphabetical order.

    Example:
        >>> add_counts([{"system": 1}, {"id": 2, "system": 2}])
        {'id': 2, 'system': 3}
    """
    total: Counter[str] = Counter()
    for part in parts:
        for name, rows in part.items():
            count_column(total, name, rows)
    return dict(sorted(total.items()))


def occurs_in(value: object, others: Iterable[object]) -> bool:
    """Whether all texts in a value occur in some other values too, as in a prompt that is also the first message.

    Example:
        >>> occurs_in([{"role": "user", "content": "Hi! "}], ["Question: Hi!"]), occurs_in("Hi!", ["Hello!"])
        (True, False)
    """
    texts = [text for text in map(str.strip, _texts(value)) if text]
    found = list(_texts(list(others))) if texts else []
    return bool(texts) and all(any(text in other for other in found) for text in texts)


def describe_unused(filled: int, rows: int, *, of_sample: bool = False) -> str:
    """Say in how many rows a column is filled.

    Example:
        >>> describe_unused(1000, 1000)
        '1,000 of 1,000 rows filled'
    """
    return f"{filled:,} of {'the first ' if of_sample else ''}{rows:,} rows filled"


def _texts(value: object) -> Iterator[str]:
    """Yield the texts in a value at any depth, without a recursion that hostile data could exhaust."""
    pending: list[Any] = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            parsed = _parsed(each)
            if not parsed:
                yield each
            pending += parsed
        elif isinstance(each, dict):
            pending += [item for key, item in each.items() if key not in _LABEL_KEYS]
        elif isinstance(each, (list, tuple)):
            pending += each


def _parsed(text: str) -> list[Any]:
    """Return the value of a JSON text of a list or an object, in a list; an empty list for any other text."""
    if not text.startswith(("[", "{")):
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [value]
