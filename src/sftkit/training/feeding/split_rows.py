"""The rows of one split, read lazily: Parquet footers at start, row groups when they are needed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.errors import DataError, TrainingError
from sftkit.rows import INPUT_IDS, LABELS, SEQ_LENGTHS, Offsets, predicted
from sftkit.shards.reading import ShardSet, open_parquet
from sftkit.training.distributed import warn_once
from sftkit.training.feeding.row_groups import GroupPlace, RowGroup, kept, places_of, sequences_of

_log = logging.getLogger(__name__)

_FOOTERS_AT_ONCE = 8  # files
_GROUPS_HELD = 4  # at least, whatever they weigh: the end of one window and the beginning of the next


@dataclass(frozen=True)
class RowLimit:
    """The longest sequence, in tokens, and what happens to a longer one (`overflow`: truncate, drop or error)."""

    tokens: int
    overflow: str


@dataclass
class RowAccount:
    """What became of the sequences read so far: how many there were, were too long, carry no loss."""

    seen: int = 0
    long: int = 0
    untrained: int = 0


class SplitRows:
    """The row groups of one split. What was read last is held, up to a number of tokens (8 bytes each).

    places: of the row groups known so far, by number; `groups_of` looks into a file and adds its own.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        vocabulary_size: int,
        limit: RowLimit | None,
        held_tokens: int,
        *,
        packed: bool,
    ) -> None:
        self.name = name
        self.packed = packed
        self.places: list[GroupPlace] = []
        self.account = RowAccount()
        self._paths = paths
        self._groups: dict[int, list[int]] = {}
        self._vocabulary_size = vocabulary_size
        self._limit = limit
        self._held_tokens = held_tokens
        self._held: OrderedDict[int, RowGroup] = OrderedDict()
        self._counted: set[int] = set()
        self._found_usable: dict[int, Offsets] = {}
        self._usable: dict[int, Offsets] = {}

    @property
    def files(self) -> int:
        """Files of the split."""
        return len(self._paths)

    def groups_of(self, file: int) -> list[int]:
        """Numbers of the row groups of a file; its footer is read the first time.

        Raises:
            SourceError, DataError: it cannot be read.
        """
        if file not in self._groups:
            self._add(file, places_of(self._paths[file]))
        return self._groups[file]

    def find_all(self) -> None:
        """Read the footers of all files.

        Raises:
            SourceError, DataError: one cannot be read.
        """
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            for file, places in enumerate(pool.map(places_of, self._paths)):
                if file not in self._groups:
                    self._add(file, places)

    def __len__(self) -> int:
        """Rows; those known to be left out are not counted."""
        return sum(self.count_in(group) for group in range(len(self.places)))

    def count_in(self, group: int) -> int:
        """Rows of a row group; those known to be left out are not counted."""
        return len(self._usable[group]) if group in self._usable else self.places[group].rows

    def rows_in(self, group: int) -> Offsets:
        """Numbers, within a row group, of its rows; those known to be left out are not among them."""
        return self._usable[group] if group in self._usable else np.arange(self.places[group].rows)

    def leave_out(self) -> None:
        """From now on, rows that were read and found to be left out take no place in the order of rows.

        To be called once, when all processes have read the same row groups: the order must be the same in all.
        """
        self._usable = dict(self._found_usable)

    def __getstate__(self) -> dict[str, object]:
        """A loader's worker process reads for itself."""
        return {**self.__dict__, "_held": OrderedDict()}

    def sizes(self, refs: npt.NDArray[np.int64]) -> Offsets:
        """Tokens of some rows, by (row group, number within it), shape (rows, 2), as they are used: 0 if left out."""
        sizes: Offsets = np.empty(len(refs), np.int64)
        for group in np.unique(refs[:, 0]).tolist():
            mine = refs[:, 0] == group
            sizes[mine] = self.group(group).sizes[refs[mine, 1]]
        return sizes

    def group(self, number: int) -> RowGroup:
        """One row group, from memory or from its file.

        Raises:
            DataError: a row of it cannot be used; it is named as `path:row`.
        """
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        group = self._read(number)
        self._held[number] = group
        while len(self._held) > _GROUPS_HELD and self._weight() > self._held_tokens:
            self._held.popitem(last=False)
        return group

    def warn(self) -> None:
        """Say once, in the main process, what of the rows read so far is cut or left out."""
        account, limit = self.account, self._limit
        among = f"{account.seen}" if len(self._counted) == len(self.places) else f"the first {account.seen}"
        among += " sequences" if self.packed else " rows"
        if account.long and limit is not None:
            done = "cut" if limit.overflow == "truncate" else "left out"
            what = f"{account.long} of {among} are longer than max_seq_length={limit.tokens} and are {done}"
            warn_once(_log, f"{self.name}: {what}")
        if account.untrained:
            warn_once(_log, f"{self.name}: {account.untrained} of {among} carry no loss and are left out")

    def _add(self, file: int, places: list[GroupPlace]) -> None:
        self._groups[file] = list(range(len(self.places), len(self.places) + len(places)))
        self.places += places

    def _weight(self) -> int:
        return sum(len(group.input_ids.values) for group in self._held.values())

    def _read(self, number: int) -> RowGroup:
        place = self.places[number]
        try:
            with open_parquet(place.path) as file:
                names = [name for name in (INPUT_IDS, LABELS, SEQ_LENGTHS) if name in file.schema_arrow.names]
                table = file.read_row_group(place.number, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{place.path}: cannot be read: {' '.join(str(error).split())}") from None
        group = sequences_of(place, table, self._vocabulary_size)
        account = RowAccount(seen=len(group.input_ids))
        if self._limit is not None:
            group = self._within(self._limit, group, place, account)
        keep = group.labels.sums(predicted(group.labels)) > 0
        account.untrained = int((~keep).sum())
        if number not in self._counted:
            self._counted.add(number)
            self.account.seen += account.seen
            self.account.long += account.long
            self.account.untrained += account.untrained
        left = kept(group, keep)
        usable = np.flatnonzero(left.sizes)
        if len(usable) < place.rows:
            self._found_usable[number] = usable
        return left

    def _within(self, limit: RowLimit, group: RowGroup, place: GroupPlace, account: RowAccount) -> RowGroup:
        fits = group.input_ids.lengths <= limit.tokens
        if fits.all():
            return group
        account.long = int((~fits).sum())
        if limit.overflow == "error":
            sequence = int(fits.argmin())
            row = place.first_row + int(np.searchsorted(group.firsts, sequence, side="right")) - 1
            length = group.input_ids.lengths[sequence]
            raise DataError(
                f"{place.path}:{row}: {length} tokens, more than max_seq_length={limit.tokens}; "
                "overflow=truncate or drop would use the rest"
            )
        if limit.overflow == "drop":
            return kept(group, fits)
        limits: Offsets = np.full(len(fits), limit.tokens, np.int64)
        return RowGroup(group.input_ids.head(limits), group.labels.head(limits), group.firsts)


def open_split(
    shards: ShardSet,
    split: str,
    vocabulary_size: int,
    limit: RowLimit | None,
    held_tokens: int,
    *,
    streaming: bool = False,
) -> SplitRows:
    """Find the rows of one split; no row is read before it is needed.

    Args:
        shards: where the rows are.
        split: `train` or `validation`.
        vocabulary_size: rows of the model's embedding; every token id is below it.
        limit: the longest sequence there may be; None for any length.
        held_tokens: how many tokens may be held in memory at a time.
        streaming: files are looked into when they are reached, instead of all at once.

    Raises:
        TrainingError: there are no token columns, or no rows.
        SourceError: a file cannot be read, or is not Parquet.
    """
    packed = SEQ_LENGTHS in _columns(shards, split)
    rows = SplitRows(
        f"{shards.root} ({split})", shards.splits[split], vocabulary_size, limit, held_tokens, packed=packed
    )
    if not streaming:
        rows.find_all()
    if not any(rows.groups_of(file) for file in range(rows.files)):
        raise TrainingError(f"{shards.root}: the {split} split has no rows")
    return rows


def _columns(shards: ShardSet, split: str) -> list[str]:
    """The columns of a split, token columns among them."""
    if not shards.splits.get(split):
        there = ", ".join(shards.splits) or "none"
        raise TrainingError(f"{shards.root}: there is no {split} split (there is: {there})")
    names = shards.column_names(split)
    missing = [name for name in (INPUT_IDS, LABELS) if name not in names]
    if missing:
        raise TrainingError(
            f"{shards.splits[split][0]}: no column {' and no column '.join(missing)} (there is: {', '.join(names)});"
            " `sftkit preprocess` makes shards with both"
        )
    return names
