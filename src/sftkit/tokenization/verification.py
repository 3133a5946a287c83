"""Fast engines held against the reference: on the first rows of every unit, on a sample of the others, and on every
kind of conversation that was not met before. The first difference ends the use of the engine (`EngineDifferenceError`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from sftkit.core.row_log import EngineDifferenceError, RowError
from sftkit.core.rows import Mask, Ragged
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.encoding.chunked_encoder import MIN_CHUNK_CHARACTERS
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.engines import ENCODER, RENDERER

T = TypeVar("T")

_FIRST = 8
_KINDS = 512
_SHOWN = 200


class VerificationSampler:
    """Says which rows are made a second time by the reference.

    fraction: of all rows, besides the first of every unit.
    """

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self.verifies_all = fraction >= 1
        self._left = _FIRST
        self._owed = 0.0

    def start_unit(self) -> None:
        """The first rows of a unit are always taken."""
        self._left = _FIRST

    def take_next(self) -> bool:
        """Whether the next row is one."""
        self._owed += self._fraction
        if self._left > 0:
            self._left -= 1
            return True
        if self._owed >= 1:
            self._owed -= 1
            return True
        return False


class VerifiedEncoder:
    """A fast encoder whose ids, and tokens in spans, are compared with the reference's on a sample of texts. Of a long
    text, a million characters are compared, unless all rows are.
    """

    def __init__(self, fast: Encoder, reference: Encoder, sampler: VerificationSampler) -> None:
        self._fast, self._reference, self._sampler = fast, reference, sampler
        self.name = fast.name

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """As the fast encoder.

        Raises:
            EngineDifferenceError: the reference gives other ids.
        """

        def encode(engine: Encoder, some: Sequence[str], numbers: Sequence[int]) -> tuple[Ragged, Mask]:
            ids = engine.encode(some, add_special_tokens=add_special_tokens, limit=limit)
            return ids, np.zeros(len(ids.values), np.bool_)

        return self._proven(texts, encode)[0]

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """As the fast encoder.

        Raises:
            EngineDifferenceError: the reference gives other ids, or sees other tokens in the spans.
        """

        def encode(engine: Encoder, some: Sequence[str], numbers: Sequence[int]) -> tuple[Ragged, Mask]:
            within = [_within(spans[number], len(text)) for number, text in zip(numbers, some, strict=True)]
            return engine.encode_spans(some, within, add_special_tokens=add_special_tokens)

        return self._proven(texts, encode)

    def _proven(
        self,
        texts: Sequence[str],
        encode: Callable[[Encoder, Sequence[str], Sequence[int]], tuple[Ragged, Mask]],
    ) -> tuple[Ragged, Mask]:
        """What `encode` makes of all texts with the fast engine.

        encode: encodes some texts, or their beginnings, with an engine; their places among all texts are given, too.
        """
        made = encode(self._fast, texts, range(len(texts)))
        sample = [index for index in range(len(texts)) if self._sampler.take_next()]
        whole = [index for index in sample if self._sampler.verifies_all or len(texts[index]) <= MIN_CHUNK_CHARACTERS]
        if whole:
            expected = encode(self._reference, [texts[index] for index in whole], whole)
            _compare(texts, whole, [_row(made, index) for index in whole], expected)
        for index in sorted({*sample} - {*whole}):
            beginning = [texts[index][:MIN_CHUNK_CHARACTERS]]
            expected = encode(self._reference, beginning, [index])
            _compare(texts, [index], [encode(self._fast, beginning, [index])], expected)
        return made


def _compare(
    texts: Sequence[str], numbers: Sequence[int], made: Sequence[tuple[Ragged, Mask]], expected: tuple[Ragged, Mask]
) -> None:
    """Raise `EngineDifferenceError` where a text, by its number, became other tokens than expected."""
    for place, (number, (ids, inside)) in enumerate(zip(numbers, made, strict=True)):
        expected_ids, expected_inside = _row(expected, place)
        if not np.array_equal(ids.values, expected_ids.values) or not np.array_equal(inside, expected_inside):
            raise EngineDifferenceError(ENCODER, texts[number][:_SHOWN], number)


def _row(made: tuple[Ragged, Mask], place: int) -> tuple[Ragged, Mask]:
    ids, inside = made
    here = slice(ids.offsets[place], ids.offsets[place + 1])
    return Ragged(ids.values[here], ids.offsets[place : place + 2] - ids.offsets[place]), inside[here]


def _within(spans: Sequence[Span], length: int) -> Sequence[Span]:
    """The spans of a text that are in its first characters."""
    if not spans or spans[-1][1] <= length:
        return spans
    return [(start, min(end, length)) for start, end in spans if start < length]


class VerifiedFunction(Generic[T]):
    """What a fast renderer makes of a conversation, compared with what the reference makes of it.

    A conversation that the fast engine cannot render is the reference's to render, or to refuse with its own reason.
    """

    def __init__(
        self, fast: Callable[[Conversation], T], reference: Callable[[Conversation], T], sampler: VerificationSampler
    ) -> None:
        self._fast, self._reference, self._sampler = fast, reference, sampler
        self._kinds: set[object] = set()

    def __call__(self, conversation: Conversation) -> T:
        """As the fast engine.

        Raises:
            EngineDifferenceError: the reference makes something else of it.
            RowError: the reference cannot render it either.
        """
        if self._sampler.take_next() or self._is_new(conversation):
            return self._compared(conversation)
        try:
            return self._fast(conversation)
        except RowError:
            return self._reference(conversation)

    def _compared(self, conversation: Conversation) -> T:
        """By both. The reference comes first: what a template takes can be limited there as it cannot elsewhere."""
        refusal: RowError | None = None
        expected: T | None = None
        try:
            expected = self._reference(conversation)
        except RowError as error:
            refusal = error
        try:
            made = self._fast(conversation)
        except RowError:
            if refusal is not None:
                raise refusal from None
            assert expected is not None
            return expected
        if refusal is not None or expected != made:
            raise EngineDifferenceError(RENDERER, repr(conversation.messages)[:_SHOWN])
        return made

    def _is_new(self, conversation: Conversation) -> bool:
        """Whether no conversation of this kind was met: templates branch on roles, on keys and on types."""
        kind = conversation_kind(conversation)
        if kind in self._kinds or len(self._kinds) >= _KINDS:
            return False
        self._kinds.add(kind)
        return True


def conversation_kind(conversation: Conversation) -> object:
    """What templates can tell conversations apart by, apart from their texts: equal for conversations of one kind."""
    messages = conversation.messages
    with_more = conversation.tools is not None, conversation.documents is not None
    if isinstance(messages, Mapping):
        return frozenset(messages), *with_more
    roles = [message.get("role") for message in messages]
    contents = frozenset([type(message.get("content")) for message in messages])
    shapes: frozenset[object] = frozenset(map(len, messages))
    if shapes != {2}:  # more than a role and a content
        shapes = frozenset([(message.get("role"), *message, *map(type, message.values())) for message in messages])
    return frozenset(roles), contents, shapes, roles[0], roles[-1], *with_more
