"""Classifies texts by their characters: which ones gigatoken and `tokenizers` treat in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import lengths_to_offsets

PLAIN, COMPOSABLE, UNSAFE = range(3)
"""Classes of characters: unchanged by Unicode composition (NFC); possibly changed by it; treated differently by the two
engines, because gigatoken has newer Unicode tables."""

# Blocks in which no character is changed by composition, or composes with another one.
_INERT = (
    (0x00, 0x2FF), (0x400, 0x482), (0x48A, 0x52F), (0x5D0, 0x5EA), (0x2010, 0x2027), (0x2030, 0x205E),
    (0x20A0, 0x20BF), (0x2190, 0x2328), (0x2460, 0x2ADB), (0x3001, 0x3029), (0x3041, 0x3096), (0x30A1, 0x30FA),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF01, 0xFF60), (0x1F300, 0x1FAFF),
)  # fmt: skip

# Letters and numbers of gigatoken's tables that the tables of `tokenizers` do not contain.
_NEW_CHARACTERS = (
    (0x88f, 0x88f), (0x897, 0x897), (0xc5c, 0xc5c), (0xcdc, 0xcdc), (0x1acf, 0x1aeb), (0x20c1, 0x20c1),
    (0x2b96, 0x2b96), (0xa7ce, 0xa7cf), (0xa7d2, 0xa7d2), (0xa7d4, 0xa7d4), (0xa7f1, 0xa7f1), (0xfbc3, 0xfbd2),
    (0xfd90, 0xfd91), (0xfdc8, 0xfdce), (0x10940, 0x10959), (0x10d69, 0x10d6d), (0x10ec5, 0x10eff),
    (0x113ce, 0x113d0), (0x11b60, 0x11b67), (0x11db0, 0x11de9), (0x11f41, 0x11f42), (0x1612f, 0x1612f),
    (0x16ea0, 0x16ed3), (0x16ff2, 0x16ff6), (0x187f8, 0x187ff), (0x18d09, 0x18df2), (0x1ccfa, 0x1cef0),
    (0x1e08f, 0x1e08f), (0x1e4ec, 0x1e6ff), (0x1f6d8, 0x1f6d8), (0x1f777, 0x1f77a), (0x1f8d0, 0x1f8d8),
    (0x1fa54, 0x1fa57), (0x1fa8a, 0x1fa8e), (0x1fac8, 0x1facd), (0x1faea, 0x1faef), (0x1fbfa, 0x1fbfa),
    (0x2b73b, 0x2b73f), (0x2cea2, 0x2cead), (0x323b0, 0x33479),
)  # fmt: skip

# Combining marks that gigatoken reorders when it composes a text, and `tokenizers` does not.
_NEW_MARKS = (
    (0x7fd, 0x7fd), (0x898, 0x89f), (0x8ca, 0x8d3), (0x9fe, 0x9fe), (0xc3c, 0xc3c), (0xd3b, 0xd3c), (0xeba, 0xeba),
    (0x1715, 0x1715), (0x1abf, 0x1ace), (0x1df6, 0x1dfa), (0xa82c, 0xa82c), (0x10d24, 0x10d27), (0x10eab, 0x10eac),
    (0x10f46, 0x10f50), (0x10f82, 0x10f85), (0x11070, 0x11070), (0x1133b, 0x1133b), (0x1145e, 0x1145e),
    (0x11839, 0x1183a), (0x11930, 0x11930), (0x11935, 0x11935), (0x11938, 0x11938), (0x1193d, 0x1193e),
    (0x11943, 0x11943), (0x119e0, 0x119e0), (0x11a34, 0x11a34), (0x11a47, 0x11a47), (0x11a99, 0x11a99),
    (0x11d42, 0x11d42), (0x11d44, 0x11d45), (0x11d97, 0x11d97), (0x16ff0, 0x16ff1), (0x1e130, 0x1e136),
    (0x1e2ae, 0x1e2ae), (0x1e2ec, 0x1e2ef),
)  # fmt: skip


def classify_characters(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the highest class of the characters of each text, shape (texts,).

    Example:
        >>> classify_characters(["the cat", "e\u0301", "\u088f"]).tolist() == [PLAIN, COMPOSABLE, UNSAFE]
        True
    """
    classes = np.zeros(len(texts), np.uint8)
    others = [index for index, text in enumerate(texts) if not text.isascii()]
    if others:
        points = np.frombuffer("".join([texts[index] for index in others]).encode("utf-32-le"), np.uint32)
        starts = lengths_to_offsets(np.fromiter((len(texts[index]) for index in others), np.int64, len(others)))[:-1]
        classes[others] = np.maximum.reduceat(_class_of_code_point()[points], starts)
    return classes


@cache
def _class_of_code_point() -> npt.NDArray[np.uint8]:
    """The class of each code point, shape (0x110000,)."""
    table = np.full(0x110000, COMPOSABLE, np.uint8)
    for first, last in _INERT:
        table[first : last + 1] = PLAIN
    for first, last in (*_NEW_CHARACTERS, *_NEW_MARKS):
        table[first : last + 1] = UNSAFE
    return table
