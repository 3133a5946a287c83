"""Finds the prompts in texts whose tokens are not the first tokens of the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sftkit.core.row_log import EngineDifferenceError
from sftkit.core.rows import Ids, Mask, Offsets, Ragged
from sftkit.tokenization.encoding.boundary.prompt_tails import TailFinder
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_KNOWN, _LONGEST_KNOWN = 64, 256
"""Tails that are remembered, and the characters of the longest one."""


class _End(NamedTuple):
    """Where a prompt ends."""

    row: int
    position: int
    """In characters of the text."""
    tokens: int
    """The tokens of the row before the first one with a character behind the prompt; -1 if it is not known."""


class PromptCheck:
    """Compares the tokens of prompts, encoded alone, with the first tokens of texts that begin with them.

    They differ where a token covers the end of a prompt and what follows: a line end, and an answer that begins with
    another. They also differ where what follows changes how the end of the prompt is split into words: a run of spaces
    ends before its last space if a word follows. Neither can be seen in the text for any tokenizer, so the prompts
    are encoded, but only their tails (`TailFinder`), and each tail only once. For most templates, this is one
    tail for all rows, such as `<|im_start|>assistant` and a line end.
    """

    def __init__(self, encoder: Encoder, tokenizer: PreTrainedTokenizerBase) -> None:
        self._encoder = encoder
        self._tails = TailFinder(tokenizer)
        self._known: dict[str, Ids] = {}

    def find_cuts(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        ends: Sequence[Sequence[int]],
        ids: Ragged,
        inside: Mask,
    ) -> dict[int, list[int]]:
        """Find the ends of prompts whose tokens are not the first tokens of their text.

        Args:
            texts: the texts.
            spans: for each text spans of it, ordered, disjoint and not adjacent.
            ends: for each text where the prompts in it end, ascending.
            ids: the tokens of the texts, without tokens around them.
            inside: which tokens have a character in a span, shape (total tokens,).

        Returns:
            Row -> those of its `ends`, ascending; rows without any are left out.
        """
        rows: list[int] = np.flatnonzero(self._may_differ(texts, spans, ends, ids, inside)).tolist()
        if not rows:
            return {}
        chosen = np.zeros(len(ids), np.bool_)
        chosen[rows] = True
        with rows_of_errors(rows):
            found = self._find_cuts(
                [texts[row] for row in rows],
                [spans[row] for row in rows],
                [ends[row] for row in rows],
                ids.filter(chosen),
                inside[np.repeat(chosen, ids.lengths)],
            )
        return {rows[row]: positions for row, positions in found.items()}

    def _may_differ(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        ends: Sequence[Sequence[int]],
        ids: Ragged,
        inside: Mask,
    ) -> Mask:
        """Return the rows that are not known to have the tokens of inference, shape (rows,).

        This is the quick check of rows whose spans begin where prompts end: the prompts have a tail that is known.
        """
        counts = np.fromiter(map(len, ends), np.int64, len(ends))
        firsts = np.flatnonzero(np.append(inside[:1], inside[1:] & ~inside[:-1]))  # of runs of tokens in spans
        rows = np.searchsorted(ids.offsets, firsts, side="right") - 1
        is_located = np.bincount(rows, minlength=len(ids)) == counts
        if [start for row in spans for start, _ in row] != list(chain.from_iterable(ends)):
            is_located &= [[start for start, _ in row] == row_ends for row, row_ends in zip(spans, ends, strict=True)]
        if not is_located.all():
            firsts, rows = firsts[is_located[rows]], rows[is_located[rows]]
            chosen = np.flatnonzero(is_located).tolist()
            texts, ends = [texts[row] for row in chosen], [ends[row] for row in chosen]
        is_open = np.ones(len(firsts), np.bool_)
        for tail, tokens in self._known.items():
            if not is_open.any():
                break
            fits = is_open & (firsts - ids.offsets[rows] >= len(tokens)) & _end_with(tail, texts, ends)
            places = np.flatnonzero(fits)
            window = ids.values[firsts[places][:, None] - np.arange(len(tokens), 0, -1)]
            is_open[places[(window == tokens).all(axis=1)]] = False
        differing: Mask = (counts > 0) & ~is_located
        differing[rows[is_open]] = True
        return differing

    def _find_cuts(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        ends: Sequence[Sequence[int]],
        ids: Ragged,
        inside: Mask,
    ) -> dict[int, list[int]]:
        """Find as `find_cuts`, end by end."""
        suspects: list[_End] = []
        by_tail: dict[str, list[_End]] = {}
        for end in self._locate(spans, ends, ids, inside):
            text = texts[end.row]
            if end.tokens < 0 and self._tails.divides(text, end.position):
                continue
            tail = next((known for known in self._known if text.endswith(known, 0, end.position)), None)
            if tail is not None and end.tokens >= 0:
                by_tail.setdefault(tail, []).append(end)
            else:
                suspects.append(end)
        for tail, some in by_tail.items():
            suspects += _unequal(some, [self._known[tail]] * len(some), ids)
        suspects = self._compare_tails(suspects, texts, ids)
        found: dict[int, list[int]] = {}
        for end in sorted(self._compare_prompts(suspects, texts, ids)):
            found.setdefault(end.row, []).append(end.position)
        return found

    @staticmethod
    def _locate(
        spans: Sequence[Sequence[Span]], ends: Sequence[Sequence[int]], ids: Ragged, inside: Mask
    ) -> list[_End]:
        """Return the ends with their tokens: those at the start of a span have the tokens before it.

        This is known where each span has tokens of its own, apart from the others.
        """
        before = np.append(False, inside)[:-1]
        before[ids.offsets[:-1][ids.lengths > 0]] = False
        runs = inside & ~before
        counts = ids.count_per_row(runs).tolist()
        firsts = iter(np.flatnonzero(runs).tolist())
        offsets = ids.offsets.tolist()
        located: list[_End] = []
        for row, (row_spans, row_ends) in enumerate(zip(spans, ends, strict=True)):
            own = [next(firsts) - offsets[row] for _ in range(counts[row])]
            if not row_ends:
                continue
            starts = [start for start, _ in row_spans]
            if len(own) != len(starts):
                located += [_End(row, end, -1) for end in row_ends]
            elif starts == list(row_ends):
                located += [_End(row, end, first) for end, first in zip(starts, own, strict=True)]
            else:
                tokens = dict(zip(starts, own, strict=True))
                located += [_End(row, end, tokens.get(end, -1)) for end in row_ends]
        return located

    def _compare_tails(self, ends: Sequence[_End], texts: Sequence[str], ids: Ragged) -> list[_End]:
        """Return the ends whose tail has other tokens than the text, or whose tokens are not known."""
        if not ends:
            return []
        others = [end for end in ends if end.tokens < 0]
        some = [end for end in ends if end.tokens >= 0]
        tails = [self._tails.find(texts[end.row], end.position) for end in some]
        written = [texts[end.row][tail.start : end.position] for end, tail in zip(some, tails, strict=True)]
        distinct = list(dict.fromkeys(written))
        with rows_of_errors([some[written.index(tail)].row for tail in distinct]):
            encoded = self._encoder.encode(distinct, add_special_tokens=False)
        tokens = {tail: encoded[index] for index, tail in enumerate(distinct)}
        for text, tail in zip(written, tails, strict=True):
            if tail.is_constant and len(text) <= _LONGEST_KNOWN and len(self._known) < _MOST_KNOWN:
                self._known[text] = tokens[text]
        return others + _unequal(some, [tokens[text] for text in written], ids)

    def _compare_prompts(self, ends: Sequence[_End], texts: Sequence[str], ids: Ragged) -> list[_End]:
        """Return the ends whose whole prompt has other tokens than the text."""
        if not ends:
            return []
        with rows_of_errors([end.row for end in ends]):
            prompts = self._encoder.encode([texts[end.row][: end.position] for end in ends], add_special_tokens=False)
        return [
            end
            for end, own in zip(ends, range(len(ends)), strict=True)
            if not np.array_equal(ids[end.row][: len(prompts[own])], prompts[own])
        ]


@contextmanager
def rows_of_errors(rows: Sequence[int]) -> Iterator[None]:
    """Give an `EngineDifferenceError` about one of some texts the row of the text."""
    try:
        yield
    except EngineDifferenceError as error:
        index = None if error.index is None else rows[error.index]
        raise EngineDifferenceError(error.engine, error.sample, index) from None


def _end_with(tail: str, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> Mask:
    """Return which of the prompts of some texts have a tail, shape (ends,)."""
    size = len(tail)
    found = [text[max(end - size, 0) : end] == tail for text, row in zip(texts, ends, strict=True) for end in row]
    return np.array(found, np.bool_)


def _unequal(ends: Sequence[_End], tails: Sequence[Ids], ids: Ragged) -> list[_End]:
    """Return the ends before which a row does not have the tokens of their tail."""
    lengths: Offsets = np.fromiter(map(len, tails), np.int64, len(tails))
    firsts: Offsets = np.fromiter((end.tokens for end in ends), np.int64, len(ends)) - lengths
    rows = np.fromiter((end.row for end in ends), np.int64, len(ends))
    fits = firsts >= 0
    unequal: Mask = ~fits
    for length in set(lengths[fits].tolist()):
        some = np.flatnonzero(fits & (lengths == length))
        places = (ids.offsets[rows[some]] + firsts[some])[:, None] + np.arange(length)
        wanted = np.stack([tails[index] for index in some.tolist()])
        unequal[some] = (ids.values[places] != wanted).any(axis=1)
    return [ends[index] for index in np.flatnonzero(unequal).tolist()]
