"""The tokens that a tokenizer's post-processor adds before and after every text."""

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
    """The ids added before and after every text, such as BOS and EOS."""

    prefix: Ids
    suffix: Ids

    @classmethod
    def learn(cls, reference: Encoder) -> SurroundingTokens:
        """Compare what the reference gives for a few texts with and without added tokens.

        Raises:
            UnsupportedByEngineError: the added tokens depend on the text, or are not around it.
        """
        candidates = set()
        for text in _PROBES:
            bare = reference.encode([text], add_special_tokens=False).values.tolist()
            whole = reference.encode([text]).values.tolist()
            starts = [start for start in range(len(whole) - len(bare) + 1) if whole[start : start + len(bare)] == bare]
            candidates.add(frozenset((tuple(whole[:start]), tuple(whole[start + len(bare) :])) for start in starts))
        shared = frozenset.intersection(*candidates)
        if len(shared) != 1:
            raise UnsupportedByEngineError("its post-processor does not add the same tokens around every text")
        [(prefix, suffix)] = shared
        return cls(np.array(prefix, np.int32), np.array(suffix, np.int32))

    @property
    def count(self) -> int:
        """Number of tokens added to each text."""
        return len(self.prefix) + len(self.suffix)

    def add_to_ids(self, ids: Ragged) -> Ragged:
        """Return ids with the added tokens."""
        return Ragged(*self._surround(ids, ids.values, self.prefix, self.suffix))

    def add_to_mask(self, ids: Ragged, inside: Mask) -> Mask:
        """Return a mask of ids for the ids with added tokens.

        The prefix is outside of all spans; the suffix is inside if the last token of the text is.

        Args:
            ids: ids without the added tokens.
            inside: which of them are in a span, shape (total tokens,).
        """
        last = np.append(inside, False)[ids.offsets[1:] - 1] & (ids.lengths > 0)
        before, after = np.zeros(len(self.prefix), np.bool_), np.zeros(len(self.suffix), np.bool_)
        surrounded: Mask
        surrounded, offsets = self._surround(ids, inside, before, after)
        for place in range(1, len(self.suffix) + 1):
            surrounded[offsets[1:] - place] = last
        return surrounded

    def _surround(self, ids: Ragged, values: Any, prefix: Any, suffix: Any) -> tuple[Any, Offsets]:
        lengths = ids.lengths
        offsets = lengths_to_offsets(lengths + self.count)
        surrounded = np.empty(int(offsets[-1]), values.dtype)
        shift = np.arange(len(ids)) * self.count + len(prefix)
        surrounded[np.arange(len(values)) + np.repeat(shift, lengths)] = values
        for place, value in enumerate(prefix):
            surrounded[offsets[:-1] + place] = value
        for place, value in enumerate(suffix):
            surrounded[offsets[1:] - len(suffix) + place] = value
        return surrounded, offsets
