"""All texts of a row, wherever they are in its columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_NO_TEXTS = frozenset({"role", "from", "type"})


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a value, in order, without keys of objects, roles and types of parts.

    A text that is a list or an object in JSON, such as a conversation in a column of texts, is yielded after the texts
    in it: there, its escapes (`\\n`, `\\u00e9`) are characters.

    Example:
        >>> list(texts_in({"messages": [{"role": "user", "content": "Hi"}], "id": 7}))
        ['Hi']
    """
    waiting = [value]  # not a recursion: values may be nested deeper than Python calls may be
    while waiting:
        each = waiting.pop()
        if isinstance(each, _Whole):
            yield each.text
        elif isinstance(each, str):
            inside = parsed_json(each)
            if inside is None:
                yield each
            else:
                waiting += [_Whole(each), inside]
        elif isinstance(each, Mapping):
            waiting += reversed([item for key, item in each.items() if key not in _NO_TEXTS])
        elif isinstance(each, (list, tuple)):
            waiting += reversed(each)


def parsed_json(text: str) -> list[Any] | dict[str, Any] | None:
    """Return the list or object that a text is in JSON; None if it is none.

    Example:
        >>> parsed_json('[{"value": 1}]'), parsed_json("[draft] Hi")
        ([{'value': 1}], None)
    """
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    assert isinstance(value, (list, dict))
    return value


class _Whole:
    """A text that was taken apart already."""

    def __init__(self, text: str) -> None:
        self.text = text
