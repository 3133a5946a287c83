"""The ends of prompts: where their tokens can be compared without encoding a whole prompt."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from sftkit.tokenization.encoding.chunked_encoder import TextChunker
from sftkit.tokenization.engines import UnsupportedByEngineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WINDOWS = (256, 1 << 14)
"""Characters before the end of a prompt that are searched first."""


class Tail(NamedTuple):
    """The end of a prompt, whose tokens do not depend on what is before it."""

    start: int
    """In characters of the text."""
    is_constant: bool
    """Whether it may be the same for many prompts, because it begins with an added token close to the end."""


class TailFinder:
    """Finds from where on the end of a prompt has tokens of its own.

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
        try:
            self._chunker: TextChunker | None = TextChunker(tokenizer)
        except UnsupportedByEngineError:
            self._chunker = None

    def find(self, text: str, end: int) -> Tail:
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

    def divides(self, text: str, position: int) -> bool:
        """Return whether an added token begins at a position, so that no token covers it, whatever is before it.

        It must not take white space away from its neighbours, and no other added token can begin before it and reach
        into it.
        """
        return text.startswith(self._dividing, position)


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of some texts, the longest first."""
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
