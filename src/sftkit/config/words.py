"""The words for true, false and null, in config files, on the command line and in training arguments."""

from __future__ import annotations

TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")
NULL_WORDS = ("null", "none", "~", "")


def parse_boolean(value: object) -> bool | None:
    """Read a boolean word, in any case, or a boolean; None if the value is neither.

    Example:
        >>> parse_boolean("Yes"), parse_boolean(0), parse_boolean("maybe")
        (True, False, None)
    """
    word = str(value).strip().lower()
    return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None


def is_null_word(value: object) -> bool:
    """Whether a value is a text that means null."""
    return isinstance(value, str) and value.strip().lower() in NULL_WORDS


def boolean_spellings(*, true: str, false: str) -> dict[str, str]:
    """Map all boolean words to two choices of an option (`option(words=...)`).

    Example:
        >>> boolean_spellings(true="bfd", false="none")["off"]
        'none'
    """
    return {**dict.fromkeys(TRUE_WORDS, true), **dict.fromkeys(FALSE_WORDS, false)}
