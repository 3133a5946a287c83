"""The end of the produced part of an assistant turn: the end of its stop token."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sftkit.tokenization.conversations import Message, reasoning_texts, text_after_reasoning, text_of
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.probing.turn_format import TurnFormat

_NO_SIMPLE_TURNS = ("\x00\x00", 0)
"""A tail that no turn ends with."""
_MAX_TAG_CHARACTERS = 128
_TAG = r"<\|[^|<>\s]+\|>"
_TAG_AT_END = re.compile(rf"{_TAG}\Z")


class TurnEnd:
    """Finds where the produced part of a turn ends, by the stop tokens of a template.

    The stop tokens are the eos token, those of the model's generation config, and the special tokens that the template
    writes after the content of made-up turns. The text after a content may consist of several special tokens and white
    space; the turn ends after the first stop token among the special tokens at its end.
    """

    def __init__(
        self, stop_tokens: Sequence[str], special_tokens: Sequence[str], turn_format: TurnFormat | None
    ) -> None:
        """Collect the stop tokens of a template.

        Args:
            stop_tokens: the eos token and the stop tokens of the generation config, as text.
            special_tokens: all special tokens of the tokenizer, as text.
            turn_format: how the template renders made-up turns; None if it renders none.
        """
        tails = turn_format.tails if turn_format is not None else []
        special = _any_of([*special_tokens, *stop_tokens], _TAG)
        groups = [found[1] for found in map(re.compile(rf"\s*((?:{special})+)").match, tails) if found]
        own = [re.findall(special, text)[-1] for text in groups if not any(stop in text for stop in stop_tokens)]
        if not groups and turn_format is not None:
            own += _common_start(re.compile(special), turn_format)
        self._special_tokens = tuple(sorted({*special_tokens, *stop_tokens} - {""}, key=len, reverse=True))
        self._stop = re.compile(_any_of([*stop_tokens, *own]) or r"(?!)")
        self._stop_follows = re.compile(rf"\s*(?:{self._stop.pattern})")
        self._keeps_space = turn_format is not None and turn_format.keeps_space
        self._separators = frozenset(turn_format.separators if turn_format is not None else ())
        self._tails = tuple(dict.fromkeys(tails))
        with_stop = ((tail, stop) for tail in tails if (stop := self._stop_in(tail)) is not None)
        self.simple: tuple[str, int] = next(with_stop, _NO_SIMPLE_TURNS)
        """What simple turns write after their content, and its characters up to the end of the stop token."""

    def find(self, text: str, start: int, end: int, message: Message) -> int:
        """Return where the produced part of a turn ends: after its stop token.

        A turn without a stop token ends with its content. If a stop token follows the turn directly, the turn ends
        after that: an eos token after the last message, or, for models that stop at it, the header of the next turn.

        Args:
            text: the whole conversation.
            start: where the produced part starts.
            end: where the text of the turn ends.
            message: its content is searched at the start and, before the tail of a simple turn, at the end.
        """
        content_end = self._end_of_content(text, start, end, text_of(message))
        tail_start = self._end_of_reasoning(text, start, end, message) if content_end is None else content_end
        tail = text[tail_start:end]
        stop = self._stop_in(tail)
        if stop is not None:
            return end - len(tail) + stop
        following = self._stop_follows.match(text, end)
        if following is not None:
            return following.end()
        stripped_end = tail_start if tail in self._separators else end - len(tail) + len(tail.rstrip())
        if content_end is not None and self._keeps_space:
            return stripped_end
        return start + len(text[start:stripped_end].rstrip())

    def start_of_stop(self, text: str, start: int, end: int) -> int:
        """Return where the first of the stop tokens starts that the turn at [start, end) ends with; `end` without one.

        White space may stand between and after them.
        """
        first = end
        for found in reversed([*self._stop.finditer(text, start, end)]):
            if text[found.end() : first].strip():
                break
            first = found.start()
        return first

    def first_stop(self, text: str, start: int, end: int) -> Span | None:
        """Return the first stop token in [start, end) of a text; None if there is none."""
        found = self._stop.search(text, start, end)
        return None if found is None else found.span()

    def _end_of_content(self, text: str, start: int, end: int, content: str) -> int | None:
        """Return where the content ends in the turn; None if it was not rendered unchanged."""
        for variant in dict.fromkeys((content, content.strip(), text_after_reasoning(content))):
            if not variant:
                continue
            if text.startswith(variant, start, end):
                return start + len(variant)
            for tail in self._tails:  # something, such as reasoning, stands before the content
                content_end = end - len(tail)
                if text.endswith(tail, start, end) and text.endswith(variant, start, content_end):
                    return content_end
        return None

    def _end_of_reasoning(self, text: str, start: int, end: int, message: Message) -> int:
        """Return the end of reasoning that contains what looks like a stop token; `start` for other reasoning."""
        for piece in reasoning_texts(message):
            if self._stop.search(piece) is not None and (found := text.find(piece, start, end)) >= 0:
                return found + len(piece)
        return start

    def _stop_in(self, tail: str) -> int | None:
        """Find the first stop token among the special tokens that a tail ends with.

        Returns:
            The number of characters up to its end; up to the end of the last special token if none of them is a known
            stop token; None if the tail ends with no special token.
        """
        stripped = len(tail.rstrip())
        first = stripped
        while (length := self._length_of_special_token_before(tail, first)) > 0:
            first = len(tail[: first - length].rstrip())
        if first == stripped:
            return None
        found = self._stop.search(tail, first)
        return stripped if found is None else found.end()

    def _length_of_special_token_before(self, tail: str, end: int) -> int:
        """Return the length of the longest special token that ends at a position of a tail; 0 if there is none."""
        if tail.endswith(self._special_tokens, 0, end):
            return max(len(special) for special in self._special_tokens if tail.endswith(special, 0, end))
        tag = _TAG_AT_END.search(tail, max(0, end - _MAX_TAG_CHARACTERS), end)
        return 0 if tag is None else end - tag.start()


def _common_start(special: re.Pattern[str], turn_format: TurnFormat) -> list[str]:
    """Return the special token that follows made-up turns both at the end and before another message, if there is one.

    Some templates write the stop token of a turn only when the next message starts, or after the last message.
    """
    found = [match[0] if (match := special.match(text)) else "" for text in turn_format.followers]
    starts_a_turn = any(turn.startswith(found[0]) for turn in turn_format.turns) if found else True
    return found[:1] if len(found) > 1 and len(set(found)) == 1 and not starts_a_turn else []


def _any_of(texts: Sequence[str], *patterns: str) -> str:
    """Return a pattern that matches any of some texts, longer ones first, or any of some patterns."""
    ordered = sorted(set(texts), key=lambda text: (-len(text), text))
    return "|".join([*map(re.escape, (text for text in ordered if text)), *patterns])
