"""Which option of `reader` may be the remedy, if files cannot be read as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable

_ENCODING = "if the file has another encoding than UTF-8, set `encoding` in the `reader` of its data set"
_DELIMITER = "if the fields have another delimiter, set `delimiter` in the `reader` of its data set"
_DELIMITERS = (";", "\t", "|")


def hint_for_reasons(reasons: Iterable[str]) -> str:
    """Return a hint for the reasons of bad rows, to be appended to an error message; "" if there is none.

    Example:
        >>> hint_for_reasons(["invalid UTF-8 at byte 7"])
        '; if the file has another encoding than UTF-8, set `encoding` in the `reader` of its data set'
    """
    found = {_hint(reason): None for reason in reasons}
    return "".join(f"; {hint}" for hint in found if hint)


def hint_for_columns(columns: Collection[str]) -> str:
    """Return a hint if the columns look like one that contains delimiters; "" otherwise.

    Example:
        >>> hint_for_columns(["input", "output"]), hint_for_columns(["input;output"])
        ('', '; if the fields have another delimiter, set `delimiter` in the `reader` of its data set')
    """
    [*names] = columns
    is_uncut = len(names) == 1 and any(delimiter in names[0] for delimiter in _DELIMITERS)
    return f"; {_DELIMITER}" if is_uncut else ""


def _hint(reason: str) -> str:
    if reason.startswith("invalid UTF-8"):
        return _ENCODING
    return _DELIMITER if "fields where the header has" in reason else ""
