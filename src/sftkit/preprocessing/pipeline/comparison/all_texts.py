"""All texts of a row, wherever they are in its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NO_TEXTS = frozenset({"role", "from", "type"})


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a value, in order, without keys of objects, roles and types of parts.

    Example:
        >>> list(texts_in({"messages": [{"role": "user", "content": "Hi"}], "id": 7}))
        ['Hi']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _NO_TEXTS:
                yield from texts_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_in(item)
