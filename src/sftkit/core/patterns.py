"""Regular expressions of users, matched in time linear in the text by RE2."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

Finder = Callable[[str], list[tuple[int, int]]]
"""Returns the matches of a pattern in a text that are not empty, in characters [start, end): ordered and disjoint."""


class PatternError(ValueError):
    """A text is no regular expression of RE2."""


@lru_cache(maxsize=16)
def finder(pattern: str) -> Finder:
    """Return a function that finds a pattern in texts.

    RE2 has no backtracking, so that no pattern takes long, and neither look-around nor references to groups.

    Raises:
        PatternError: the pattern is not valid.
        ImportError: `google-re2` is not installed.

    Example:
        >>> finder("[0-9]+")("12 é 345")
        [(0, 2), (5, 8)]
    """
    import re2

    options = re2.Options()
    options.log_errors = False  # they are raised
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        [reason] = error.args
        raise PatternError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None
    return lambda text: [match.span() for match in compiled.finditer(text) if match.end() > match.start()]
