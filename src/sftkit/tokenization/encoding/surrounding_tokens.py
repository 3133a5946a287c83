"""What a tokenizer's post-processor puts before and after every text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sftkit.core.rows import Ids, Mask, Offsets, Ragged, lengths_to_offsets
from sftkit.tokenization.encoding.reference_encoder import Encoder
from sftkit.tokenization.engines import UnsupportedByEngineError

_PROBES = ("", "a", "b c")


@dataclass(frozen=True)
class SurroundingTokens:
    """The ids that are put before and after every text (BOS, EOS)."""

    prefix: Ids
    suffix: Ids

    @classmethod
    def learn(cls, reference: Encoder) -> SurroundingTokens:
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
            raise UnsupportedByEngineError("its post-processor does not put the same tokens around every text")
        [(prefix, suffix)] = shared
        return cls(np.array(prefix, np.int32), np.array(suffix, np.int32))

    @property
    def count(self) -> int:
        """Tokens added to each text."""
        return len(self.prefix) + len(self.suffix)

    def add_to_ids(self, ids: Ragged) -> Ragged:
        """Ids with what is added."""
        return Ragged(*self._wrap(ids, ids.values, self.prefix, self.suffix))

    def add_to_mask(self, ids: Ragged, inside: Mask) -> Mask:
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
        offsets = lengths_to_offsets(lengths + self.count)
        wrapped = np.empty(int(offsets[-1]), values.dtype)
        moved_by = np.arange(len(ids)) * self.count + len(prefix)
        wrapped[np.arange(len(values)) + np.repeat(moved_by, lengths)] = values
        for place, value in enumerate(prefix):
            wrapped[offsets[:-1] + place] = value
        for place, value in enumerate(suffix):
            wrapped[offsets[1:] - len(suffix) + place] = value
        return wrapped, offsets
