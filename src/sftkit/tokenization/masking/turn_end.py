"""Where the part of an assistant turn that the model produces ends: with its stop token."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sftkit.tokenization.conversations import Message, reasoning_texts, text_after_reasoning, text_of

_NONE = ("\x00\x00", 0)
_LONGEST_TAG = 128  # characters
_TAG = r"<\|[^|<>\s]+\|>"
_TAG_AT_END = re.compile(rf"{_TAG}\Z")


class TurnEnd:
    """Knows the stop tokens of a template, and finds the end of a turn by them.

    plain: what plain turns write after their content, and how many characters of it there are up to the end of the stop
    token; something that no turn ends with where they have none.

    Args:
        stops: stop tokens as text: the eos token, others that the model's generation config names.
        specials: all special tokens of the tokenizer, as text.
        tails: what the template writes after the content of made-up assistant turns.
        keeps_space: whether the template keeps the white space around a content.
    """

    def __init__(
        self, stops: Sequence[str], specials: Sequence[str], tails: Sequence[str], *, keeps_space: bool
    ) -> None:
        special = _any_of([*specials, *stops], _TAG)
        groups = [found[1] for found in map(re.compile(rf"\s*((?:{special})+)").match, tails) if found]
        own = [re.findall(special, text)[-1] for text in groups if not any(stop in text for stop in stops)]
        self._specials = tuple(sorted({*specials, *stops} - {""}, key=len, reverse=True))
        self._stop = re.compile(_any_of([*stops, *own]) or r"(?!)")
        self._stop_follows = re.compile(rf"\s*(?:{self._stop.pattern})")
        self._keeps_space = keeps_space
        self._tails = tuple(dict.fromkeys(tails))
        self.plain = next(((tail, stop) for tail in tails if (stop := self._stop_in(tail)) is not None), _NONE)

    def find(self, text: str, start: int, end: int, message: Message) -> int:
        """Where in a text the produced part of the turn ends that begins at `start` and was rendered up to `end`.

        That is behind its stop token. A turn without one ends with its content, or, where a stop token follows the
        turn (an eos behind the last message, the header of the next one for models that stop by it), behind that.

        Args:
            text: the whole conversation.
            start: where what the model produces begins.
            end: where the turn's own text ends.
            message: its content is looked for at the beginning and, before a plain turn's tail, at the end.
        """
        rest = self._end_of_content(text, start, end, text_of(message))
        tail = text[self._end_of_reasoning(text, start, end, message) if rest is None else rest : end]
        stop = self._stop_in(tail)
        if stop is not None:
            return end - len(tail) + stop
        following = self._stop_follows.match(text, end)
        if following is not None:
            return following.end()
        written = end - len(tail) + len(tail.rstrip())
        return written if rest is not None and self._keeps_space else start + len(text[start:written].rstrip())

    def _end_of_content(self, text: str, start: int, end: int, content: str) -> int | None:
        """Where the content of a turn ends in it, None where it does not stand there as it is."""
        for written in dict.fromkeys(
            (content, content.strip(), text_after_reasoning(content))
        ):  # as it is, trimmed, split
            if not written:
                continue
            if text.startswith(written, start, end):
                return start + len(written)
            for tail in self._tails:  # something (reasoning) stands before the content
                rest = end - len(tail)
                if text.endswith(tail, start, end) and text.endswith(written, start, rest):
                    return rest
        return None

    def _end_of_reasoning(self, text: str, start: int, end: int, message: Message) -> int:
        """Behind the reasoning of a turn where that holds what looks like a stop token, else the turn's start."""
        for piece in reasoning_texts(message):
            if self._stop.search(piece) is not None and (place := text.find(piece, start, end)) >= 0:
                return place + len(piece)
        return start

    def _stop_in(self, tail: str) -> int | None:
        """How many characters of a tail there are up to the end of the first stop token among the special tokens that
        it ends with; up to the last of them where no stop is known there; None when it ends with none.
        """
        whole = len(tail.rstrip())
        first = whole
        while (length := self._special_before(tail, first)) > 0:
            first = len(tail[: first - length].rstrip())
        if first == whole:
            return None
        found = self._stop.search(tail, first)
        return whole if found is None else found.end()

    def _special_before(self, tail: str, end: int) -> int:
        """Characters of the special token that ends at a place of a tail, 0 for none."""
        if tail.endswith(self._specials, 0, end):
            return max(len(special) for special in self._specials if tail.endswith(special, 0, end))
        tag = _TAG_AT_END.search(tail, max(0, end - _LONGEST_TAG), end)
        return 0 if tag is None else end - tag.start()


def _any_of(texts: Sequence[str], *patterns: str) -> str:
    """A pattern for any of some texts, the longest first."""
    ordered = sorted(set(texts), key=lambda text: (-len(text), text))
    return "|".join([*map(re.escape, (text for text in ordered if text)), *patterns])
