"""Texts as words that can be compared: letter case, punctuation, white space and forms of characters do not count."""

from __future__ import annotations

import re
import unicodedata

_ASCII_WORDS = bytes(byte if chr(byte).isalnum() else ord(" ") for byte in range(128)) + bytes(128)
"""A table for `bytes.translate` that leaves letters and digits."""

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Scripts that write no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""

_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def comparable_words(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits, case-folded, in Unicode's normal form NFKC.

    In scripts without spaces between words, every character is a word.

    Example:
        >>> comparable_words("What's 7×8?"), comparable_words("ＡＢＣ 首都")
        (['what', 's', '7', '8'], ['abc', '首', '都'])
    """
    if text.isascii():
        return [word.decode() for word in ascii_words(text)]
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def ascii_words(text: str) -> list[bytes]:
    """Return the words of a text that is ASCII, as ASCII. This is several times as fast as a regular expression."""
    return text.encode().lower().translate(_ASCII_WORDS).split()
