"""Hashes of the words of texts, computed for many texts at once.

A word is a run of letters, digits and underscores. Every other character that is no white space is a word of its own,
so that `a+b` differs from `a-b`. So is every character from U+0800 on: Chinese, Japanese, Thai and others are written
without spaces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Offsets

Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_SPACE, _LETTER, _SINGLE, _CONTINUED = range(4)
_CHUNK = 8  # bytes
_LONGEST = 64
"""Bytes of a word; the rest of a longer one, such as base64, is another word."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def _byte_kinds() -> Bytes:
    """What each byte of UTF-8 begins. Bytes 0xC2 begin signs, those from 0xC3 to 0xDF letters of alphabets."""
    kinds = np.full(256, _SINGLE, np.uint8)
    for byte in range(128):
        if chr(byte).isalnum() or chr(byte) == "_":
            kinds[byte] = _LETTER
        elif byte <= 32 or byte == 127:
            kinds[byte] = _SPACE
    kinds[0x80:0xC0] = _CONTINUED
    kinds[0xC3:0xE0] = _LETTER
    return kinds


_KINDS = _byte_kinds()
_MASKS = np.array([(1 << (8 * size)) - 1 for size in range(_CHUNK + 1)], np.uint64)


@dataclass(frozen=True)
class Words:
    """The words of some texts."""

    hashes: Hashes
    """A hash of each word, uint64, shape (words,)."""
    counts: Offsets
    """The number of words of each text, int64, shape (texts,)."""


def words_of(texts: list[bytes]) -> Words:
    """Find the words of texts in UTF-8, and hash them.

    Example:
        >>> words = words_of([b"So it is, so", "日本 ist".encode(), b" "])
        >>> words.counts.tolist(), bool(words.hashes[1] == words.hashes[0]), len(set(words.hashes.tolist()))
        ([5, 3, 0], False, 8)
    """
    buffer = np.frombuffer(b"\n".join([*texts, bytes(_CHUNK)]), np.uint8)
    kinds = _KINDS[buffer]
    starts, stops = _find_words(kinds)
    text_stops = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
    counts = np.diff(np.searchsorted(starts, text_stops), prepend=0)
    return Words(_hash_words(buffer, starts, stops), counts)


def mix(values: Hashes) -> Hashes:
    """Spread every bit of integers over all 64: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _find_words(kinds: Bytes) -> tuple[Offsets, Offsets]:
    """Return the byte offsets at which words start and stop."""
    characters = np.flatnonzero(kinds != _CONTINUED)
    of_characters = kinds[characters]
    is_letter = of_characters == _LETTER
    starts = is_letter.copy()
    starts[1:] &= ~is_letter[:-1]
    starts |= of_characters == _SINGLE
    breaks = np.flatnonzero(starts | (of_characters == _SPACE))
    places = np.append(characters[breaks], len(kinds))
    is_word = starts[breaks]
    begin, end = places[:-1][is_word], places[1:][is_word]
    pieces = (end - begin + _LONGEST - 1) // _LONGEST
    if not len(pieces) or pieces.max() == 1:
        return begin, end
    index = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = np.repeat(begin, pieces) + index * _LONGEST
    return begin, np.minimum(begin + _LONGEST, np.repeat(end, pieces))


def _hash_words(buffer: Bytes, starts: Offsets, stops: Offsets) -> Hashes:
    """Hash the bytes of words, eight at a time."""
    windows = np.lib.stride_tricks.sliding_window_view(buffer, _CHUNK)
    lengths = stops - starts
    hashes = lengths.astype(np.uint64)
    longer = np.arange(len(starts))
    for done in range(0, _LONGEST, _CHUNK):
        left = lengths[longer] - done
        chunks = windows[starts[longer] + done].view("<u8").ravel() & _MASKS[np.minimum(left, _CHUNK)]
        hashes[longer] = mix(hashes[longer] * _MULTIPLIER + chunks)
        longer = longer[left > _CHUNK]
        if not len(longer):
            break
    return hashes
