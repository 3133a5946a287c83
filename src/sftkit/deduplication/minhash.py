"""MinHash signatures of texts: small arrays whose agreement estimates how many runs of words two texts share.

A. Broder, "On the resemblance and containment of documents" (1997): for a random order of all runs of words, two texts
have the same smallest run with a probability that is their Jaccard similarity. The orders are those of `a * h + b`
modulo 2^32, where `h` is a hash of a run; `a` and `b` come from a generator with a fixed seed, so that signatures are
the same on every machine. Of each smallest value, one byte is kept: P. Li and C. König, "b-bit minwise hashing" (2010).
Different runs have the same byte with a probability of 1/256, which raises the estimate by less than 0.002 where it
matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Mask, lengths_to_offsets
from sftkit.deduplication.word_hashes import Hashes, Words, mix, words_of

Signatures = npt.NDArray[np.uint8]

_SEED = 0xB70DE2
_AT_ONCE = 256 << 10  # bytes of text
_PIECE = 1 << 20  # bytes
_RUN_MULTIPLIER = np.uint64(0xD1342543DE82EF95)
_SCRAMBLE = np.uint32(0x9E3779B1)


@dataclass(frozen=True)
class MinHasher:
    """Computes signatures.

    Example:
        >>> hasher = MinHasher(hashes=128, ngram=2)
        >>> texts = ["to be or not to be", "To be, or not", "to be or not to be", ""]
        >>> signatures, has_words = hasher.signatures(texts)
        >>> has_words.tolist(), bool((signatures[0] == signatures[2]).all())
        ([True, True, True, False], True)
    """

    hashes: int
    """Bytes of a signature."""
    ngram: int
    """Words in a run. A text with fewer words is one run."""

    def signatures(self, texts: Sequence[str]) -> tuple[Signatures, Mask]:
        """Return the signature of each text, uint8, shape (texts, hashes), and which texts have words.

        Texts are processed some at a time, in about 40 MB of memory. A text of more than 1 MiB is cut into pieces, so
        runs across their borders are missing.
        """
        smallest = np.full((len(texts), self.hashes), np.iinfo(np.uint32).max, np.uint32)
        has_words = np.zeros(len(texts), np.bool_)
        for owners, pieces in _groups(texts):
            runs, counts = _runs_of(words_of(pieces), self.ngram)
            filled = np.flatnonzero(counts)
            if not len(filled):
                continue
            found = self._smallest(runs, lengths_to_offsets(counts[filled])[:-1])
            owned = np.array(owners)[filled]
            for start, stop in pairwise([0, *(np.flatnonzero(np.diff(owned) == 0) + 1).tolist(), len(owned)]):
                rows = owned[start:stop]  # of different texts
                smallest[rows] = np.minimum(smallest[rows], found[start:stop])
            has_words[owned] = True
        return ((smallest * _SCRAMBLE) >> np.uint32(24)).astype(np.uint8), has_words

    def _smallest(self, runs: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Return, for each text, the smallest value in each order, uint32, shape (texts, hashes)."""
        numbers = np.random.PCG64(_SEED).random_raw(2 * self.hashes) >> np.uint64(32)
        factors, terms = numbers[::2].astype(np.uint32) | np.uint32(1), numbers[1::2].astype(np.uint32)
        found = np.empty((self.hashes, len(starts)), np.uint32)
        values = np.empty_like(runs)
        for index in range(self.hashes):
            np.multiply(runs, factors[index], out=values)
            values += terms[index]
            np.minimum.reduceat(values, starts, out=found[index])
        return found.T


def jaccard(first: str, second: str, ngram: int) -> float:
    """Return the similarity that signatures estimate: shared runs of words, of all that either text has.

    Example:
        >>> jaccard("to be or not to be", "to be or not", ngram=2)
        0.75
    """
    runs = [set(_runs_of(words_of([text.encode()]), ngram)[0].tolist()) for text in (first, second)]
    together = runs[0] | runs[1]
    return len(runs[0] & runs[1]) / len(together) if together else 0.0


def _groups(texts: Sequence[str]) -> Iterator[tuple[list[int], list[bytes]]]:
    """Yield texts in UTF-8, some at a time, cut into pieces; and for each piece the index of its text."""
    owners: list[int] = []
    pieces: list[bytes] = []
    size = 0
    for index, text in enumerate(texts):
        encoded = text.encode("utf-8", "replace")
        for start in range(0, len(encoded), _PIECE):
            owners.append(index)
            pieces.append(encoded[start : start + _PIECE])
            size += len(pieces[-1])
            if size >= _AT_ONCE:
                yield owners, pieces
                owners, pieces, size = [], [], 0
    if pieces:
        yield owners, pieces


def _runs_of(words: Words, ngram: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Hash the runs of `ngram` words of each text.

    Returns:
        The hashes, uint32, and the number of runs of each text.
    """
    counts = words.counts
    hashes = words.hashes
    padded = np.where(counts > 0, np.maximum(counts, ngram), 0)
    if (padded != counts).any():  # fill short texts up with zeros
        hashes = np.zeros(int(padded.sum()), np.uint64)
        shift = np.repeat(lengths_to_offsets(padded)[:-1] - lengths_to_offsets(counts)[:-1], counts)
        hashes[np.arange(len(words.hashes)) + shift] = words.hashes
    if not len(hashes):
        return np.zeros(0, np.uint32), counts
    size = len(hashes) - ngram + 1
    runs: Hashes = hashes[:size].copy()
    for index in range(1, ngram):
        runs *= _RUN_MULTIPLIER
        runs += hashes[index : index + size]
    is_run = np.ones(len(hashes), np.bool_)  # false for runs that would cross the end of a text
    ends = np.cumsum(padded[padded > 0])
    for index in range(1, ngram):
        is_run[ends - index] = False
    mixed = mix(runs[is_run[:size]]) >> np.uint64(32)
    return mixed.astype(np.uint32), np.where(padded > 0, padded - ngram + 1, 0)
