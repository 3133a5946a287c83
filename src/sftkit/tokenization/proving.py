"""Fast engines held against the reference: on the first rows of every unit, on a sample of the others, and on every
kind of conversation that was not met before. The first difference ends the use of the engine (`EngineDifferenceError`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from sftkit.rows import EngineDifferenceError, Mask, Ragged, RowError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.encoding import Encoder, ReferenceEncoder
from sftkit.tokenization.engines import ENCODER, RENDERER
from sftkit.tokenization.masks import Span

T = TypeVar("T")

_FIRST = 8
_KINDS = 512
_SHOWN = 200


class Sampler:
    """Says which rows are made a second time by the reference.

    fraction: of all rows, besides the first of every unit.
    """

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self._left = _FIRST
        self._owed = 0.0

    def begin_unit(self) -> None:
        """The first rows of a unit are always taken."""
        self._left = _FIRST

    def takes_next(self) -> bool:
        """Whether the next row is one."""
        self._owed += self._fraction
        if self._left > 0:
            self._left -= 1
            return True
        if self._owed >= 1:
            self._owed -= 1
            return True
        return False


class ProvenEncoder:
    """A fast encoder whose ids, and tokens in spans, are compared with the reference's on a sample of texts."""

    def __init__(self, fast: Encoder, reference: ReferenceEncoder, sampler: Sampler) -> None:
        self._fast, self._reference, self._sampler = fast, reference, sampler
        self.name = fast.name

    def encode(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> Ragged:
        """As the fast encoder.

        Raises:
            EngineDifferenceError: the reference gives other ids.
        """

        def encode(engine: Encoder, texts: Sequence[str]) -> tuple[Ragged, Mask]:
            ids = engine.encode(
                texts, add_special_tokens=add_special_tokens, truncation=truncation, max_length=max_length
            )
            return ids, np.zeros(len(ids.values), np.bool_)

        made = encode(self._fast, texts)
        self._compare(texts, made, self._sample(texts), lambda some: encode(self._reference, [texts[i] for i in some]))
        return made[0]

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """As the fast encoder.

        Raises:
            EngineDifferenceError: the reference gives other ids, or sees other tokens in the spans.
        """

        def expected(some: Sequence[int]) -> tuple[Ragged, Mask]:
            return self._reference.encode_spans(
                [texts[i] for i in some], [spans[i] for i in some], add_special_tokens=add_special_tokens
            )

        made = self._fast.encode_spans(texts, spans, add_special_tokens=add_special_tokens)
        self._compare(texts, made, self._sample(texts), expected)
        return made

    def _sample(self, texts: Sequence[str]) -> list[int]:
        return [index for index in range(len(texts)) if self._sampler.takes_next()]

    def _compare(
        self,
        texts: Sequence[str],
        made: tuple[Ragged, Mask],
        sample: Sequence[int],
        expected_of: Callable[[Sequence[int]], tuple[Ragged, Mask]],
    ) -> None:
        if not sample:
            return
        ids, inside = made
        expected_ids, expected_inside = expected_of(sample)
        for place, index in enumerate(sample):
            here = slice(ids.offsets[index], ids.offsets[index + 1])
            there = slice(expected_ids.offsets[place], expected_ids.offsets[place + 1])
            same_ids = np.array_equal(ids.values[here], expected_ids.values[there])
            if not same_ids or not np.array_equal(inside[here], expected_inside[there]):
                raise EngineDifferenceError(ENCODER, texts[index][:_SHOWN], index)


class ProvenFunction(Generic[T]):
    """What a fast renderer makes of a conversation, compared with what the reference makes of it.

    A conversation that the fast engine cannot render is the reference's to render, or to refuse with its own reason.
    """

    def __init__(
        self, fast: Callable[[Conversation], T], reference: Callable[[Conversation], T], sampler: Sampler
    ) -> None:
        self._fast, self._reference, self._sampler = fast, reference, sampler
        self._kinds: set[object] = set()

    def __call__(self, conversation: Conversation) -> T:
        """As the fast engine.

        Raises:
            EngineDifferenceError: the reference makes something else of it.
            RowError: the reference cannot render it either.
        """
        if self._sampler.takes_next() or self._is_new(conversation):
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
        kind = kind_of(conversation)
        if kind in self._kinds or len(self._kinds) >= _KINDS:
            return False
        self._kinds.add(kind)
        return True


def kind_of(conversation: Conversation) -> object:
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
