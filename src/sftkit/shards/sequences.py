"""What shards are to hold, in order: staged rows or pieces of them, each a row of its own or many to a pack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftkit.rows import Offsets, offsets_of
from sftkit.shards.staging import Counts


@dataclass(frozen=True)
class Sequences:
    """Some sequences, shape (sequences,) each.

    rows: the staged row of each, by index into all staged rows. sizes: its tokens (characters of text). starts: its
    first token within the row, None where all are whole. packs: pack i is the sequences from packs[i] to packs[i + 1],
    shape (packs + 1,); None where each is a row of its own.
    """

    rows: Offsets
    sizes: Counts
    starts: Counts | None = None
    packs: Offsets | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_sizes(self) -> Counts | Offsets:
        """Tokens of each row of the shards: of each pack, where sequences are packed."""
        if self.packs is None:
            return self.sizes
        return np.diff(offsets_of(self.sizes.astype(np.int64))[self.packs])

    def part(self, start: int, stop: int) -> Sequences:
        """Rows of the shards (packs, where sequences are packed) from start to stop."""
        if self.packs is None:
            packs, first, last = None, start, stop
        else:
            first, last = int(self.packs[start]), int(self.packs[stop])
            packs = self.packs[start : stop + 1] - first
        starts = None if self.starts is None else self.starts[first:last]
        return Sequences(self.rows[first:last], self.sizes[first:last], starts, packs)
