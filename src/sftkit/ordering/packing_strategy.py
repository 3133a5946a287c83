"""What a packing strategy is: it distributes rows over packs, looking at their lengths only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sftkit.core.rows import Ids, Offsets, lengths_to_offsets


@dataclass(frozen=True)
class Packs:
    """Which rows, or pieces of rows, make up each pack."""

    rows: Ids
    """The row of each piece, int32, shape (pieces,)."""
    starts: Ids
    """The first token of each piece within its row, int32, shape (pieces,)."""
    lengths: Ids
    """The tokens of each piece, int32, shape (pieces,)."""
    offsets: Offsets
    """Pack i consists of the pieces from offsets[i] to offsets[i + 1], int64, shape (packs + 1,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Offsets:
        """Tokens of each pack, shape (packs,)."""
        return np.diff(lengths_to_offsets(self.lengths.astype(np.int64))[self.offsets])

    def take(self, packs: Offsets) -> Packs:
        """Return these packs in this order."""
        counts = np.diff(self.offsets)[packs]
        offsets = lengths_to_offsets(counts)
        pieces = np.arange(offsets[-1])
        pieces += np.repeat(self.offsets[packs] - offsets[:-1], counts)
        return Packs(self.rows[pieces], self.starts[pieces], self.lengths[pieces], offsets)


def join_packs(parts: Sequence[Packs]) -> Packs:
    """Put packs of the same rows behind one another."""
    nothing = np.zeros(0, np.int32)
    rows, starts, lengths = (
        np.concatenate([nothing, *(getattr(part, name) for part in parts)]) for name in ("rows", "starts", "lengths")
    )
    pieces = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.offsets) for part in parts)])
    return Packs(rows, starts, lengths, lengths_to_offsets(pieces))


class PackingStrategy(ABC):
    """Base class of the packing strategies, which the option `packing` names.

    A strategy in this folder is found by its `registered_as`; `packing` in `sftkit.config.schema.shared_options` lists
    its name. A strategy of another package is registered as an entry point of the group `sftkit.packing` (see
    `sftkit.core.plugins`).
    """

    registered_as: ClassVar[str] = ""
    """The name of a built-in strategy; "" for strategies of other packages."""

    cuts_inside_packs: ClassVar[bool] = False
    """Whether pieces of rows may lie anywhere in a pack. Only for strategies that do not keep rows whole."""

    keeps_order: ClassVar[bool] = False
    """Whether a row of an earlier pack never comes after one of a later pack. Such packs are not shuffled."""

    @property
    @abstractmethod
    def keeps_rows_whole(self) -> bool:
        """Whether each row is in one pack, uncut. Usually a class attribute: `keeps_rows_whole = True`.

        If so, a row longer than a pack is cut, dropped or quarantined before packing, as `overflow` says. If not, a
        pack may begin with the end of a row and end with the beginning of one; between those, rows must be whole,
        unless `cuts_inside_packs`.
        """

    @abstractmethod
    def pack(self, lengths: Offsets | Ids, capacity: int) -> Packs:
        """Distribute rows over packs. Every token of every row must be in exactly one pack.

        Args:
            lengths: tokens of each row, shape (rows,); 1 to `capacity` if rows are kept whole.
            capacity: the most tokens that a pack may hold.
        """
