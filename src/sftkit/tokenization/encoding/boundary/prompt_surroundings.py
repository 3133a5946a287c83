"""The ends of prompts and the starts of answers: what of them has tokens that depend on nothing else."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from sftkit.tokenization.encoding.chunked_encoder import TextChunker
from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.loading.tokenizer_identity import backend_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WINDOWS = (256, 1 << 14)
"""Characters next to the end of a prompt that are searched first."""


class Tail(NamedTuple):
    """The end of a prompt, whose tokens do not depend on what is before it."""

    start: int
    """In characters of the text."""
    is_constant: bool
    """Whether it may be the same for many prompts, because it begins with an added token close to the end."""


class PromptSurroundings:
    """Finds what next to the end of a prompt has tokens of its own.

    An added token, such as `<|im_start|>`, divides a text: what is before it and what follows are encoded apart. So are
    the words of a text, for tokenizers whose split pattern is known (`TextChunker`).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
        contents = {token.content for token in added}
        self._added = _any_of(contents)
        self._dividing = tuple(
            token.content
            for token in added
            if not (token.lstrip or token.rstrip or token.single_word or token.normalized)
            and not any(token.content[0] in other[1:] for other in contents)
        )
        self._splits_words = not _is_one_word(tokenizer)
        try:
            self._chunker: TextChunker | None = TextChunker(tokenizer)
        except UnsupportedByEngineError:
            self._chunker = None

    def tail(self, text: str, end: int) -> Tail:
        """Return the tail of the prompt that ends at a position of a text."""
        for window in (*_WINDOWS, end):
            first = max(end - window, 0)
            starts = [match.start() for match in self._added.finditer(text, first, end)]
            if starts:
                return Tail(starts[-1], window == _WINDOWS[0])
            cut = None if self._chunker is None else self._chunker.last_cut(text, first, end)
            if cut is not None:
                return Tail(cut, is_constant=False)
            if not first:
                break
        return Tail(0, is_constant=False)

    def head_end(self, text: str, start: int) -> int:
        """Return up to where the tokens of an answer depend on how it begins, in characters of the text."""
        for window in (*_WINDOWS, len(text)):
            stop = min(start + window, len(text))
            cut = None if self._chunker is None else self._chunker.next_cut(text, start, stop)
            if cut is not None:
                return cut
            added = self._added.search(text, start + 1, stop)
            if added is not None:
                return added.start()
            if stop == len(text):
                break
        return len(text)

    def divides(self, text: str, position: int) -> bool:
        """Return whether an added token begins at a position, so that no token covers it, whatever is before it.

        It must not take white space away from its neighbours, and no other added token can begin before it and reach
        into it.
        """
        return text.startswith(self._dividing, position)

    def ends_words(self, tail: str) -> bool:
        """Return whether a new word begins behind the tail of a prompt, unless white space does."""
        return not self.may_join(f"{tail}a", len(tail))

    def may_join(self, text: str, position: int) -> bool:
        """Return whether a word may begin before a position and end after it, and have a token that ends there.

        Such a word can have other tokens than its parts: `:` and `'s` become `:'` and `s`. A new word begins behind a
        line end, unless more white space follows, and behind an added token. If the tokenizer splits texts into no
        words, all tokens after the edge of a token are those of the text after it.
        """
        if not self._splits_words or (
            text[position - 1 : position] == "\n" and not text[position : position + 1].isspace()
        ):
            return False
        return not (text.endswith(self._dividing, 0, position) or self.divides(text, position))


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of some texts, the longest first."""
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _is_one_word(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer merges characters wherever they are (BPE in the style of SentencePiece)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "BPE" or getattr(backend.model, "ignore_merges", False):
        return False
    pre_tokenizer = backend_parts(backend)["pre_tokenizer"]
    return pre_tokenizer is None or pre_tokenizer["type"] == "Metaspace"
