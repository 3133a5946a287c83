"""Looks up which texts share runs of words with the questions of evaluation sets.

A run of n words is an n-gram. Those of all questions are kept as hashes in a sorted array, so a batch of texts is
looked up with a few operations on arrays; every hit is then compared word by word. Overlaps of 13 words are those of
Brown et al., "Language Models are Few-Shot Learners" (2020, appendix C), overlaps of 8 words that cover half of a
question those of Lambert et al., "Tulu 3" (2024).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat

import numpy as np
import numpy.typing as npt

from sftkit.core.rows import Ids, Offsets, lengths_to_offsets
from sftkit.decontamination.comparable_words import ascii_words, comparable_words

_Hashes = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SLOTS_PER_RUN, _MOST_FILTER_BITS = 16, 24
_MIN_CONTAINED_WORDS = 5
MOST_QUESTIONS = 10
"""What more questions have in common identifies none of them."""
_COMMON_WORDS = 8
"""Words in a run that questions have in common."""

_UNKNOWN = -1


@dataclass(frozen=True)
class Question:
    """A question of an evaluation set."""

    place: str
    """Where it is, as `path:row`."""
    words: tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """A run of words that a text and a question have in common."""

    question: Question
    words: tuple[str, ...]


class QuestionIndex:
    """The questions of evaluation sets, by their words.

    A text overlaps with a question in one of these cases:

    - They share a run of as many words as the largest of `sizes`.
    - They share runs of one of the other sizes, and these are at least `min_share` of all runs of this size in the
      question, or all of those in the text.
    - The question has fewer words than the smallest of `sizes`, and the text consists of it, or contains it if it has
      at least 5 words.

    Words in runs of 8 that more than 10 questions have, such as an instruction that all of them begin with, are not a
    question's own. Runs count if 8 of their words are, or if no run of the question has more. Repeated runs count once.

    Memory: about 80 bytes for each word of the questions and each size. Pickling keeps the questions only.

    Example:
        >>> index = QuestionIndex([Question("test.jsonl:1", tuple(comparable_words("What is the capital of France?")))])
        >>> found = index.find(["Tell me: what is the CAPITAL of France", "What is a capital?"])
        >>> [overlap and overlap.question.place for overlap in found]
        ['test.jsonl:1', None]
    """

    def __init__(self, questions: Sequence[Question], sizes: Sequence[int] = (8, 13), min_share: float = 0.5) -> None:
        """Index questions.

        Args:
            questions: with at least one word each. Of questions with the same words, the first is named.
            sizes: lengths of the runs, in words.
            min_share: share of a question that runs of the smaller sizes have to make up, 0 to 1.
        """
        self.questions = list({question.words: question for question in reversed(questions)}.values())[::-1]
        self._sizes, self._min_share = sorted(set(sizes)), min_share

    def __reduce__(self) -> tuple[type[QuestionIndex], tuple[list[Question], list[int], float]]:
        return QuestionIndex, (self.questions, self._sizes, self._min_share)

    @cached_property
    def digest(self) -> str:
        """Hash everything that decides which texts are found; the places of the questions do not."""
        content = [sorted({question.words for question in self.questions}), self._sizes, self._min_share]
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def find(self, texts: Sequence[str]) -> list[Overlap | None]:
        """Find a question for each text that it overlaps with: the one that shares the most runs, or comes first."""
        rows = [self._numbers_in(text) for text in texts]
        offsets = lengths_to_offsets(np.array([len(row) for row in rows], np.int64))
        words = np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1]))
        found: list[Overlap | None] = [None] * len(texts)
        for grams in self._grams:
            missing = np.array([each is None for each in found], np.bool_)
            for text, question, start in self._overlaps(grams, words, offsets, missing):
                run = tuple(self._vocabulary[word] for word in words[start : start + grams.size])
                found[text] = Overlap(self.questions[question], run)
        return found

    def _numbers_in(self, text: str) -> list[int]:
        """Return the number of each word of a text, and an unknown word that keeps runs from crossing its end."""
        if text.isascii():
            return [*map(self._ascii_numbers.get, ascii_words(text), repeat(_UNKNOWN)), _UNKNOWN]
        return [*map(self._numbers.get, comparable_words(text), repeat(_UNKNOWN)), _UNKNOWN]

    @cached_property
    def _vocabulary(self) -> list[str]:
        return list(dict.fromkeys(word for question in self.questions for word in question.words))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self._vocabulary)}

    @cached_property
    def _ascii_numbers(self) -> dict[bytes, int]:
        return {word.encode(): number for word, number in self._numbers.items() if word.isascii()}

    @cached_property
    def _grams(self) -> list[_Grams]:
        """The runs of all questions: the longest first, those of short questions last."""
        counts = np.array([len(question.words) for question in self.questions], np.int64)
        offsets = lengths_to_offsets(counts)
        known = self._numbers
        words = np.fromiter((known[w] for q in self.questions for w in q.words), np.int32, int(offsets[-1]))
        own = _own_words(words, offsets, min(_COMMON_WORDS, self._sizes[0]))
        short = sorted({*counts[counts < self._sizes[0]].tolist()}, reverse=True)
        sizes = [*reversed(self._sizes), *short]
        return [_Grams(words, offsets, own, size, is_short=size < self._sizes[0]) for size in sizes]

    def _overlaps(
        self, grams: _Grams, words: Ids, offsets: Offsets, wanted: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[int, int, int]]:
        """Yield the largest overlap of one size of each wanted text: (text, question, first word of a shared run)."""
        starts = grams.candidates(words)
        texts = np.searchsorted(offsets, starts, side="right") - 1
        starts, texts = starts[wanted[texts]], texts[wanted[texts]]
        runs_of_text = offsets[1:] - offsets[:-1] - grams.size  # the separator is not a word
        for places in np.split(starts, np.flatnonzero(np.diff(texts)) + 1) if len(starts) else ():
            text = int(np.searchsorted(offsets, places[0], side="right")) - 1
            # A run that a text repeats counts once.
            different = {words[start : start + grams.size].tobytes(): start for start in reversed(places.tolist())}
            first: dict[int, int] = {}
            shared: Counter[int] = Counter()
            for start in sorted(different.values()):
                for question in grams.questions_at(words, start):
                    first.setdefault(question, start)
                    shared[question] += 1
            is_covered = len(places) == runs_of_text[text]
            for question, runs in shared.most_common():
                if self._is_overlap(grams, question, runs, len(different) if is_covered else None):
                    yield text, question, first[question]
                    break

    def _is_overlap(self, grams: _Grams, question: int, shared: int, runs_of_text: int | None) -> bool:
        """Return whether a text overlaps with a question.

        Args:
            grams: the runs of one size.
            question: index of the question.
            shared: runs that both have.
            runs_of_text: all runs of the text; None if it has some that no question has.
        """
        if shared == runs_of_text:
            return True
        if grams.is_short:
            return grams.size >= _MIN_CONTAINED_WORDS
        if grams.size == self._sizes[-1]:
            return True
        return shared >= self._min_share * int(grams.runs_of_question[question])


class _Grams:
    """The runs of one size of all questions."""

    def __init__(self, words: Ids, offsets: Offsets, own: npt.NDArray[np.bool_], size: int, *, is_short: bool) -> None:
        """Index runs.

        Args:
            words: the numbers of the words of all questions, concatenated.
            offsets: where each question starts in them, shape (questions + 1,).
            own: which words are not in a run that many questions have, shape (words,).
            size: words of a run.
            is_short: only questions of exactly this many words count.
        """
        self.size, self.is_short = size, is_short
        self._words = words
        starts, owners = _starts_of_runs(offsets, size)
        if is_short:
            counts = np.diff(offsets)[owners] == size
        else:
            own_in_run = np.concatenate([[0], np.cumsum(own)])
            own_in_run = own_in_run[starts + size] - own_in_run[starts]
            most = np.zeros(len(offsets) - 1, np.int64)
            np.maximum.at(most, owners, own_in_run)
            counts = own_in_run >= np.clip(most, 1, _COMMON_WORDS)[owners]
        starts, owners = starts[counts], owners[counts]
        self._hashes, self._starts, self._owners = _different_runs(words, starts, owners, size)
        self.runs_of_question = np.bincount(self._owners, minlength=len(offsets) - 1)
        self._bits = min((_SLOTS_PER_RUN * len(self._hashes)).bit_length() + 1, _MOST_FILTER_BITS)
        self._filter = np.zeros(1 << self._bits, np.bool_)
        self._filter[_slots(self._hashes, self._bits)] = True

    def candidates(self, words: Ids) -> Offsets:
        """Return where runs begin whose hash is that of a run of a question, ascending.

        Args:
            words: the numbers of the words of some texts, concatenated.
        """
        if len(words) < self.size or not len(self._hashes):
            return np.zeros(0, np.int64)
        hashes = _hashes(words, self.size)
        starts = np.flatnonzero(self._filter[_slots(hashes, self._bits)])
        at = np.searchsorted(self._hashes, hashes[starts])
        at[at == len(self._hashes)] = 0
        found: Offsets = starts[self._hashes[at] == hashes[starts]]
        return found

    def questions_at(self, words: Ids, start: int) -> list[int]:
        """Return the questions that have the run of words that begins at a place."""
        run = words[start : start + self.size]
        value = _hashes(run, self.size)[0]
        first, last = np.searchsorted(self._hashes, value), np.searchsorted(self._hashes, value, side="right")
        same = [
            int(self._owners[each])
            for each in range(int(first), int(last))
            if np.array_equal(self._words[self._starts[each] : self._starts[each] + self.size], run)
        ]
        return list(dict.fromkeys(same))


def _own_words(words: Ids, offsets: Offsets, size: int) -> npt.NDArray[np.bool_]:
    """Return which words of all questions are in no run of `size` words that more than `MOST_QUESTIONS` have."""
    starts, owners = _starts_of_runs(offsets, size)
    if not len(starts):
        return np.ones(len(words), np.bool_)
    hashes, _, _ = _different_runs(words, starts, owners, size)
    values, counts = np.unique(hashes, return_counts=True)
    common = starts[np.isin(_hashes(words, size)[starts], values[counts > MOST_QUESTIONS])]
    changes = np.zeros(len(words) + 1, np.int64)
    np.add.at(changes, common, 1)
    np.add.at(changes, common + size, -1)
    own: npt.NDArray[np.bool_] = np.cumsum(changes)[:-1] == 0
    return own


def _starts_of_runs(offsets: Offsets, size: int) -> tuple[Offsets, Offsets]:
    """Return where the runs of `size` words of all questions start, and the questions that they are in."""
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    starts = np.flatnonzero(np.arange(len(owners)) + size <= offsets[owners + 1])
    return starts, owners[starts]


def _different_runs(words: Ids, starts: Offsets, owners: Offsets, size: int) -> tuple[_Hashes, Offsets, Offsets]:
    """Return the hashes, starts and questions of runs by their hashes; of those that a question repeats, the first."""
    if not len(starts):
        return np.zeros(0, np.uint64), starts, owners
    hashes = _hashes(words, size)[starts]
    order = np.argsort(hashes, kind="stable")
    hashes, starts, owners = hashes[order], starts[order], owners[order]
    first = np.concatenate([[True], (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])])
    return hashes[first], starts[first], owners[first]


def _hashes(words: Ids, size: int) -> _Hashes:
    """Hash every run of `size` words, shape (words - size + 1,)."""
    count = len(words) - size + 1
    values = words.astype(np.int64).astype(np.uint64) + np.uint64(1)
    hashes = np.zeros(count, np.uint64)
    for place in range(size):
        hashes = hashes * _MULTIPLIER + values[place : place + count]
    return hashes ^ (hashes >> np.uint64(32))


def _slots(hashes: _Hashes, bits: int) -> _Hashes:
    """Return a number of so many bits for each hash."""
    slots: _Hashes = (hashes * _MULTIPLIER) >> np.uint64(64 - bits)
    return slots
