"""Compares fast engines with the reference while they are used.

The first rows of each work unit are verified, a sample of the others, and each kind of conversation that is new. The
first difference raises `EngineDifferenceError`, which ends the use of the engine: the whole run starts again with the
reference.
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

_FIRST_ROWS = 8
"""Rows that are always verified at the start of a unit."""
_MAX_KINDS = 512
_PLAIN = "plain"
_SAMPLE_CHARACTERS = 200


class VerificationSampler:
    """Chooses the rows to verify: the first rows of each unit, and a fraction of all rows.

    The choice depends only on the sequence of calls, so it is the same in every run.

    Example:
        >>> sampler = VerificationSampler(0.0)
        >>> [sampler.take_next() for _ in range(10)].count(True)
        8
    """

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self.verifies_all = fraction >= 1
        self._first_left = _FIRST_ROWS
        self._due = 0.0

    def start_unit(self) -> None:
        """Choose the first rows that follow."""
        self._first_left = _FIRST_ROWS

    def take_next(self) -> bool:
        """Return whether the next row is to be verified."""
        self._due += self._fraction
        if self._first_left > 0:
            self._first_left -= 1
            return True
        if self._due >= 1:
            self._due -= 1
            return True
        return False


class VerifiedEncoder:
    """A fast encoder that is compared with the reference on a sample of texts.

    All texts of a call are encoded by the fast encoder, and its result is returned. The sampled texts are encoded by
    the reference as well, and both ids and the tokens in spans must be equal. Of a long text, only the first million
    characters are compared, unless all rows are verified.

    This bounds the risk, it does not prove equality: what makes the fast encoder correct is that only tokenizers and
    texts known to be equal are given to it (`gigatoken_support`). The sample finds what that missed, such as a new
    version of a library, in the first rows of the run rather than in a trained model.
    """

    def __init__(self, fast: Encoder, reference: Encoder, sampler: VerificationSampler) -> None:
        self._fast, self._reference, self._sampler = fast, reference, sampler
        self.name = fast.name

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True, limit: int | None = None) -> Ragged:
        """Encode texts as the fast encoder does.

        Raises:
            EngineDifferenceError: the reference gives other ids.
        """

        def encode(engine: Encoder, some: Sequence[str], indices: Sequence[int]) -> tuple[Ragged, Mask]:
            ids = engine.encode(some, add_special_tokens=add_special_tokens, limit=limit)
            return ids, np.zeros(len(ids.values), np.bool_)

        return self._verify(texts, encode)[0]

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """Encode texts and find the tokens in spans as the fast encoder does.

        Raises:
            EngineDifferenceError: the reference gives other ids, or finds other tokens in the spans.
        """

        def encode(engine: Encoder, some: Sequence[str], indices: Sequence[int]) -> tuple[Ragged, Mask]:
            clipped = [_clip(spans[index], len(text)) for index, text in zip(indices, some, strict=True)]
            return engine.encode_spans(some, clipped, add_special_tokens=add_special_tokens)

        return self._verify(texts, encode)

    def _verify(
        self,
        texts: Sequence[str],
        encode: Callable[[Encoder, Sequence[str], Sequence[int]], tuple[Ragged, Mask]],
    ) -> tuple[Ragged, Mask]:
        """Encode all texts with the fast engine and compare a sample.

        Args:
            texts: the texts.
            encode: encodes some of the texts, or their beginnings, given the engine, the texts and their indices.
        """
        result = encode(self._fast, texts, range(len(texts)))
        sample = [index for index in range(len(texts)) if self._sampler.take_next()]
        whole = [index for index in sample if self._sampler.verifies_all or len(texts[index]) <= MIN_CHUNK_CHARACTERS]
        if whole:
            expected = encode(self._reference, [texts[index] for index in whole], whole)
            _compare(texts, whole, [_row(result, index) for index in whole], expected)
        for index in sorted({*sample} - {*whole}):
            beginning = [texts[index][:MIN_CHUNK_CHARACTERS]]
            expected = encode(self._reference, beginning, [index])
            _compare(texts, [index], [encode(self._fast, beginning, [index])], expected)
        return result


def _compare(
    texts: Sequence[str], indices: Sequence[int], results: Sequence[tuple[Ragged, Mask]], expected: tuple[Ragged, Mask]
) -> None:
    """Raise `EngineDifferenceError` for the first text whose result is not the expected one."""
    for row, (index, (ids, inside)) in enumerate(zip(indices, results, strict=True)):
        expected_ids, expected_inside = _row(expected, row)
        if not np.array_equal(ids.values, expected_ids.values) or not np.array_equal(inside, expected_inside):
            raise EngineDifferenceError(ENCODER, texts[index][:_SAMPLE_CHARACTERS], index)


def _row(result: tuple[Ragged, Mask], row: int) -> tuple[Ragged, Mask]:
    ids, inside = result
    here = slice(ids.offsets[row], ids.offsets[row + 1])
    return Ragged(ids.values[here], ids.offsets[row : row + 2] - ids.offsets[row]), inside[here]


def _clip(spans: Sequence[Span], length: int) -> Sequence[Span]:
    """Return the parts of spans that are in the first `length` characters."""
    if not spans or spans[-1][1] <= length:
        return spans
    return [(start, min(end, length)) for start, end in spans if start < length]


class VerifiedFunction(Generic[T]):
    """A function of conversations that uses a fast renderer, compared with the same function of the reference.

    The reference handles conversations that the fast renderer cannot render.
    """

    def __init__(
        self, fast: Callable[[Conversation], T], reference: Callable[[Conversation], T], sampler: VerificationSampler
    ) -> None:
        self._fast, self._reference, self._sampler = fast, reference, sampler
        self._kinds: set[object] = set()

    def __call__(self, conversation: Conversation) -> T:
        """Call the fast function, or the reference where it fails.

        Raises:
            EngineDifferenceError: the results differ.
            RowError: the reference cannot render the conversation either.
        """
        if self._sampler.take_next() or self._is_new_kind(conversation):
            return self._call_both(conversation)
        try:
            return self._fast(conversation)
        except RowError:
            return self._reference(conversation)

    def _call_both(self, conversation: Conversation) -> T:
        """Call both functions, the reference first: only there can time and memory of a template be limited."""
        refusal: RowError | None = None
        expected: T | None = None
        try:
            expected = self._reference(conversation)
        except RowError as error:
            refusal = error
        try:
            result = self._fast(conversation)
        except RowError:
            if refusal is not None:
                raise refusal from None
            assert expected is not None
            return expected
        if refusal is not None or expected != result:
            raise EngineDifferenceError(RENDERER, repr(conversation.messages)[:_SAMPLE_CHARACTERS])
        return result

    def _is_new_kind(self, conversation: Conversation) -> bool:
        """Return whether this is the first conversation of its kind; templates branch on roles, keys and types."""
        kind = conversation_kind(conversation)
        if kind in self._kinds or len(self._kinds) >= _MAX_KINDS:
            return False
        self._kinds.add(kind)
        return True


def conversation_kind(conversation: Conversation) -> object:
    """Return what templates usually branch on, apart from texts; equal for conversations of the same kind."""
    messages = conversation.messages
    with_more = conversation.tools is not None, conversation.documents is not None
    if conversation.plain is not None:
        roles = conversation.plain.roles
        return _PLAIN, frozenset(roles), roles[0], roles[-1], *with_more
    if isinstance(messages, Mapping):
        return frozenset(messages), *with_more
    some_roles = conversation.shape.roles
    ends = frozenset(some_roles), some_roles[0], some_roles[-1], *with_more
    return frozenset([(message.get("role"), *message, *map(type, message.values())) for message in messages]), ends
