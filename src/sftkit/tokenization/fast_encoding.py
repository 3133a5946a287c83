"""The fast engine for encoding: gigatoken. Where it may not be used, for a tokenizer or a text, the reference is.

Spans need no offsets where tokens are bytes (byte-level BPE): the tokens of a row lie end to end, so the characters
that begin in each, summed up, say where each lies. That holds for a row when they add up to the row's own, and it is
checked for each: whatever a tokenizer may do to a text (composing characters, a token that swallows the space beside
it), it only ever takes characters away. A row that does not add up is encoded by the reference, offsets and all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import is_normalized

import numpy as np
import numpy.typing as npt

from sftkit.memory import resident_bytes
from sftkit.rows import Ids, Mask, Offsets, Ragged, offsets_of, put_together
from sftkit.tokenization.encoding import ReferenceEncoder
from sftkit.tokenization.engines import EngineRefusedError
from sftkit.tokenization.loading import parts_of
from sftkit.tokenization.masks import CharacterCounts, Span, in_spans_by_count
from sftkit.tokenization.tokenizer_trust import COMPOSABLE, UNSAFE, check_tokenizer, scrutinize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

_COMPOSING = frozenset({"NFC", "NFD", "NFKC", "NFKD"})
_PROBES = ("", "a", "b c")
_MOST_GROWTH = 96 << 20
"""Bytes that an engine may grow before it is made anew."""


class GigatokenEncoder:
    """Encodes with gigatoken, which gives the ids of the `tokenizers` backend it is made from.

    Raises:
        EngineRefusedError: gigatoken cannot take this tokenizer, or is not known to give the same ids with it.
    """

    name = "gigatoken"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, backend_json: str | None, reference: ReferenceEncoder
    ) -> None:
        self._reference = reference
        self._cuts_right = tokenizer.truncation_side == "right"
        if backend_json is None:
            raise EngineRefusedError("it is a Python tokenizer")
        if getattr(tokenizer, "split_special_tokens", False):
            raise EngineRefusedError("it splits special tokens")
        check_tokenizer(tokenizer.backend_tokenizer)
        self._json = backend_json
        self._engine = _load(backend_json)
        self._grown = 0
        self._added = _Wrapping.of(reference)
        self._counts = _character_counts(tokenizer, self._engine)
        normalizer = parts_of(tokenizer.backend_tokenizer)["normalizer"]
        self._form = normalizer["type"] if normalizer is not None else None

    def encode(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> Ragged:
        """`tokenizer(text)["input_ids"]` of each text; `max_length` is in tokens."""
        added = self._added.count if add_special_tokens else 0
        cut_here = self._cuts_right and max_length is not None and max_length >= added

        def by_reference(some: Sequence[str]) -> Ragged:
            return self._reference.encode(
                some, add_special_tokens=add_special_tokens, truncation=truncation, max_length=max_length
            )

        def here(some: Sequence[str]) -> Ragged:
            ids = self._ids(some)
            if truncation and max_length is not None:
                ids = ids.head(np.full(len(ids), max_length - added, np.int64))
            return self._added.ids(ids) if added else ids

        if truncation and not cut_here:
            return by_reference(texts)
        safe = self._asked(texts) != UNSAFE
        if safe.all():
            return here(texts)
        return put_together(safe, here(_where(safe, texts)), by_reference(_where(~safe, texts)))

    def encode_spans(
        self, texts: Sequence[str], spans: Sequence[Sequence[Span]], *, add_special_tokens: bool
    ) -> tuple[Ragged, Mask]:
        """The same ids, and which tokens have a character in a span of their text: bool, shape (total tokens,)."""
        if self._counts is None:
            return self._reference.encode_spans(texts, spans, add_special_tokens=add_special_tokens)
        mine = self._left_alone(texts)
        ids = self._ids(_where(mine, texts))
        begun = np.append(self._counts.begun[ids.values], 0)
        covered = np.add.reduceat(begun, ids.offsets[:-1]) * (ids.lengths > 0)
        exact = covered == np.fromiter(map(len, _where(mine, texts)), np.int64, len(ids))
        if not exact.all():
            ids = ids.take(exact)
            mine[mine] = exact
        inside = in_spans_by_count(ids, self._counts, _where(mine, spans))
        if add_special_tokens and self._added.count:
            ids, inside = self._added.ids(ids), self._added.mask(ids, inside)
        if mine.all():
            return ids, inside
        other_ids, other_inside = self._reference.encode_spans(
            _where(~mine, texts), _where(~mine, spans), add_special_tokens=add_special_tokens
        )
        flags = (Ragged(inside.astype(np.int32), ids.offsets), Ragged(other_inside.astype(np.int32), other_ids.offsets))
        return put_together(mine, ids, other_ids), put_together(mine, *flags).values.astype(np.bool_)

    def _ids(self, texts: Sequence[str]) -> Ragged:
        """Ids of each text without what the post-processor adds."""
        if not texts:
            return Ragged.from_lists([])
        before = resident_bytes()
        encode = self._engine.encode  # ids, uint32, shape (tokens,)
        rows = [encode(text) for text in texts]
        self._renew_when_grown(resident_bytes() - before)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return Ragged.of_lengths(np.concatenate(rows).astype(np.int32), lengths)

    def _renew_when_grown(self, grown: int) -> None:
        """gigatoken remembers every word it met; now and then it has to forget, or memory would grow with the data."""
        self._grown += max(grown, 0)
        if self._grown > _MOST_GROWTH:
            del self._engine
            self._engine = _load(self._json)
            self._grown = 0

    def _asked(self, texts: Sequence[str]) -> npt.NDArray[np.uint8]:
        """What the characters of each text ask for (see `scrutinize`)."""
        return scrutinize(texts) if self._counts is not None else np.zeros(len(texts), np.uint8)

    def _left_alone(self, texts: Sequence[str]) -> Mask:
        """Which texts both engines know alike, and are in the composed form that the tokenizer brings them to."""
        asked = self._asked(texts)
        mine: Mask = asked != UNSAFE
        if self._form is not None:
            for index in np.flatnonzero(asked == COMPOSABLE).tolist():
                mine[index] = is_normalized(self._form, texts[index])
        return mine


@dataclass(frozen=True)
class _Wrapping:
    """The ids that a tokenizer's post-processor puts before and after every text (BOS, EOS)."""

    prefix: Ids
    suffix: Ids

    @classmethod
    def of(cls, reference: ReferenceEncoder) -> _Wrapping:
        """As the reference shows it on a few texts.

        Raises:
            EngineRefusedError: what it adds depends on the text, or stands inside of it.
        """
        found = set()
        for text in _PROBES:
            bare = reference.encode([text], add_special_tokens=False).values.tolist()
            whole = reference.encode([text]).values.tolist()
            starts = [start for start in range(len(whole) - len(bare) + 1) if whole[start : start + len(bare)] == bare]
            found.add(frozenset((tuple(whole[:start]), tuple(whole[start + len(bare) :])) for start in starts))
        shared = frozenset.intersection(*found)
        if len(shared) != 1:
            raise EngineRefusedError("its post-processor does not put the same tokens around every text")
        [(prefix, suffix)] = shared
        return cls(np.array(prefix, np.int32), np.array(suffix, np.int32))

    @property
    def count(self) -> int:
        """Tokens added to each text."""
        return len(self.prefix) + len(self.suffix)

    def ids(self, ids: Ragged) -> Ragged:
        """Ids with what is added."""
        return Ragged(*self._wrap(ids, ids.values, self.prefix, self.suffix))

    def mask(self, ids: Ragged, inside: Mask) -> Mask:
        """The mask of the ids with what is added: nothing before the text, and after it the fate of its last token."""
        last = np.append(inside, False)[ids.offsets[1:] - 1] & (ids.lengths > 0)
        before, after = np.zeros(len(self.prefix), np.bool_), np.zeros(len(self.suffix), np.bool_)
        wrapped: Mask
        wrapped, offsets = self._wrap(ids, inside, before, after)
        for place in range(1, len(self.suffix) + 1):
            wrapped[offsets[1:] - place] = last
        return wrapped

    def _wrap(self, ids: Ragged, values: Any, prefix: Any, suffix: Any) -> tuple[Any, Offsets]:
        lengths = ids.lengths
        offsets = offsets_of(lengths + self.count)
        wrapped = np.empty(int(offsets[-1]), values.dtype)
        moved_by = np.arange(len(ids)) * self.count + len(prefix)
        wrapped[np.arange(len(values)) + np.repeat(moved_by, lengths)] = values
        for place, value in enumerate(prefix):
            wrapped[offsets[:-1] + place] = value
        for place, value in enumerate(suffix):
            wrapped[offsets[1:] - len(suffix) + place] = value
        return wrapped, offsets


def _where(chosen: Mask, items: Sequence[T]) -> Sequence[T]:
    return items if chosen.all() else [item for item, taken in zip(items, chosen, strict=True) if taken]


def _load(backend_json: str) -> Any:
    """gigatoken's engine for a tokenizer.

    Raises:
        EngineRefusedError: it does not take it.
    """
    from gigatoken.gigatoken_rs import load_hf_json

    try:
        return load_hf_json(backend_json)
    except Exception as error:
        raise EngineRefusedError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _character_counts(tokenizer: PreTrainedTokenizerBase, engine: Any) -> CharacterCounts | None:
    """The characters in each token; None where tokens are not simply bytes."""
    parts = parts_of(tokenizer.backend_tokenizer)
    normalizer, pre_tokenizer = parts["normalizer"], parts["pre_tokenizer"]
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer and "pretokenizers" in pre_tokenizer else [pre_tokenizer]
    byte_level = [step for step in steps if step and step["type"] == "ByteLevel"]
    if not byte_level or any(step["add_prefix_space"] for step in byte_level):
        return None
    if normalizer is not None and normalizer["type"] not in _COMPOSING:
        return None
    vocabulary: dict[int, bytes] = engine.vocab
    if len({token for token in vocabulary.values() if len(token) == 1}) < 256:
        return None
    lengths = np.zeros(max(vocabulary) + 1, np.int64)
    lengths[list(vocabulary)] = np.fromiter(map(len, vocabulary.values()), np.int64, len(vocabulary))
    order = sorted(vocabulary)
    begins = (np.frombuffer(b"".join([vocabulary[token_id] for token_id in order]), np.uint8) & 0xC0) != 0x80
    starts = offsets_of(lengths)
    running = np.concatenate(([0], np.cumsum(begins)))
    continues = (lengths > 0) & ~np.append(begins, True)[starts[:-1]]
    return CharacterCounts(running[starts[1:]] - running[starts[:-1]], continues)
