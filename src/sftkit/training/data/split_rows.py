"""The rows of one split, read lazily: Parquet footers at start, row groups when they are needed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sftkit.core.error_text import single_line
from sftkit.core.rows import INPUT_IDS, LABELS, SEQ_LENGTHS, Offsets, trained_mask
from sftkit.errors import DataError, TrainingError
from sftkit.shards.reading import ShardSet, open_parquet
from sftkit.storage.paths import AnyPath
from sftkit.training.data.row_groups import (
    RowGroup,
    RowGroupLocation,
    TokenSequences,
    decode_row_group,
    keep_sequences,
    locate_row_groups,
)
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)

_FOOTERS_AT_ONCE = 8  # files
_GROUPS_HELD = 4  # at least, whatever they weigh: the end of one window and the beginning of the next


@dataclass(frozen=True)
class RowLimit:
    """The longest sequence, in tokens, and what happens to a longer one (`overflow`: truncate, drop or error)."""

    tokens: int
    overflow: str


@dataclass
class SequenceCounts:
    """What became of the sequences read so far: how many there were, were too long, carry no loss."""

    seen: int = 0
    too_long: int = 0
    without_loss: int = 0


class SplitRows:
    """The row groups of one split. What was read last is held, up to a number of tokens (8 bytes each).

    locations: of the row groups known so far, by number; `groups_of` looks into a file and adds its own.
    manifest_rows: rows of each file as the manifest has them, so that no footer need be read to know.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[AnyPath],
        vocabulary_size: int,
        limit: RowLimit | None,
        max_held_tokens: int,
        *,
        packed: bool,
        manifest_rows: Sequence[int] | None = None,
    ) -> None:
        self.name = name
        self.packed = packed
        self.locations: list[RowGroupLocation] = []
        self.counts = SequenceCounts()
        self._paths = paths
        self._manifest_rows = manifest_rows
        self._groups: dict[int, list[int]] = {}
        self._vocabulary_size = vocabulary_size
        self._limit = limit
        self._max_held_tokens = max_held_tokens
        self._held: OrderedDict[int, RowGroup] = OrderedDict()
        self._groups_held = _GROUPS_HELD
        self._fetched: dict[tuple[int, int], TokenSequences] = {}
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
            SourceError, DataError: it cannot be read, or holds another number of rows than was said.
        """
        if file not in self._groups:
            self._add(file, locate_row_groups(self._paths[file]))
        return self._groups[file]

    def locate_all(self) -> None:
        """Read the footers of all files.

        Raises:
            SourceError, DataError: one cannot be read.
        """
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            for file, places in enumerate(pool.map(locate_row_groups, self._paths)):
                if file not in self._groups:
                    self._add(file, places)

    def file_rows(self, file: int) -> int:
        """Rows of a file; those known to be left out are not counted."""
        if self._manifest_rows is not None and file not in self._groups:
            return self._manifest_rows[file]
        return sum(map(self.group_rows, self.groups_of(file)))

    def __len__(self) -> int:
        """Rows; those known to be left out are not counted."""
        return sum(map(self.file_rows, range(self.files)))

    def group_rows(self, group: int) -> int:
        """Rows of a row group; those known to be left out are not counted."""
        return len(self._usable[group]) if group in self._usable else self.locations[group].rows

    def usable_rows(self, group: int) -> Offsets:
        """Numbers, within a row group, of its rows; those known to be left out are not among them."""
        return self._usable[group] if group in self._usable else np.arange(self.locations[group].rows)

    def skip_unusable_rows(self) -> None:
        """From now on, rows that were read and found to be left out take no place in the order of rows.

        To be called once, when all processes have read the same row groups: the order must be the same in all.
        """
        self._usable = dict(self._found_usable)

    def __getstate__(self) -> dict[str, object]:
        """A loader's worker process reads for itself."""
        return {**self.__dict__, "_held": OrderedDict(), "_fetched": {}}

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
        while len(self._held) > self._groups_held and self._weight() > self._max_held_tokens:
            self._held.popitem(last=False)
        return group

    def row(self, group: int, number: int) -> TokenSequences:
        """The sequences of one row, by its row group and its number there."""
        fetched = self._fetched.get((group, number))
        return self.group(group).row(number) if fetched is None else fetched

    def fetch(self, refs: npt.NDArray[np.int64], needed: AbstractSet[int]) -> Offsets:
        """Have copies of some rows at hand for `row`, until it is called again, and hold what is needed after them.

        Row groups are read one after the other, and those that are not needed are let go of before the next is read:
        no more of them are held at a time than are needed, and one.

        Args:
            refs: the rows, by (row group, number within it), shape (rows, 2).
            needed: row groups that will be asked for again, held whatever they weigh.

        Returns:
            tokens of the rows, shape (rows,); 0 if left out.
        """
        sizes: Offsets = np.empty(len(refs), np.int64)
        asked = dict.fromkeys(refs[:, 0].tolist())  # in this order
        self._groups_held = max(_GROUPS_HELD, len(needed | asked.keys()))
        self._fetched = {}
        for number in self._held.keys() - needed - asked.keys():
            del self._held[number]
        for number in asked:
            group = self.group(number)
            mine = refs[:, 0] == number
            sizes[mine] = group.sizes[refs[mine, 1]]
            self._fetched |= {(number, row): group.row(row).copy() for row in refs[mine, 1].tolist()}
            if number not in needed:
                del self._held[number]
        return sizes

    def warn_of_skipped_rows(self) -> None:
        """Say once, in the main process, what of the rows read so far is cut or left out."""
        counts, limit = self.counts, self._limit
        whole = len(self._groups) == self.files and len(self._counted) == len(self.locations)
        among = f"{counts.seen}" if whole else f"the first {counts.seen}"
        among += " sequences" if self.packed else " rows"
        if counts.too_long and limit is not None:
            done = "cut" if limit.overflow == "truncate" else "left out"
            what = f"{counts.too_long} of {among} are longer than max_seq_length={limit.tokens} and are {done}"
            warn_on_main_process(_log, f"{self.name}: {what}")
        if counts.without_loss:
            warn_on_main_process(_log, f"{self.name}: {counts.without_loss} of {among} carry no loss and are left out")

    def _add(self, file: int, places: list[RowGroupLocation]) -> None:
        found = sum(place.rows for place in places)
        if self._manifest_rows is not None and found != self._manifest_rows[file]:
            raise DataError(
                f"{self._paths[file]}: holds {found} rows where the manifest says {self._manifest_rows[file]}"
            )
        self._groups[file] = list(range(len(self.locations), len(self.locations) + len(places)))
        self.locations += places

    def _weight(self) -> int:
        return sum(len(group.input_ids.values) for group in self._held.values())

    def _read(self, number: int) -> RowGroup:
        place = self.locations[number]
        try:
            with open_parquet(place.path) as file:
                names = [name for name in (INPUT_IDS, LABELS, SEQ_LENGTHS) if name in file.schema_arrow.names]
                table = file.read_row_group(place.index, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{place.path}: cannot be read: {single_line(error)}") from None
        group = decode_row_group(place, table, self._vocabulary_size)
        counts = SequenceCounts(seen=len(group.input_ids))
        if self._limit is not None:
            group = self._within(self._limit, group, place, counts)
        keep = group.labels.count_per_row(trained_mask(group.labels)) > 0
        counts.without_loss = int((~keep).sum())
        if number not in self._counted:
            self._counted.add(number)
            self.counts.seen += counts.seen
            self.counts.too_long += counts.too_long
            self.counts.without_loss += counts.without_loss
        left = keep_sequences(group, keep)
        usable = np.flatnonzero(left.sizes)
        if len(usable) < place.rows:
            self._found_usable[number] = usable
        return left

    def _within(self, limit: RowLimit, group: RowGroup, place: RowGroupLocation, counts: SequenceCounts) -> RowGroup:
        fits = group.input_ids.lengths <= limit.tokens
        if fits.all():
            return group
        counts.too_long = int((~fits).sum())
        if limit.overflow == "error":
            sequence = int(fits.argmin())
            row = place.first_row + int(np.searchsorted(group.row_offsets, sequence, side="right")) - 1
            length = group.input_ids.lengths[sequence]
            raise DataError(
                f"{place.path}:{row}: {length} tokens, more than max_seq_length={limit.tokens}; "
                "overflow=truncate or drop would use the rest"
            )
        if limit.overflow == "drop":
            return keep_sequences(group, fits)
        limits: Offsets = np.full(len(fits), limit.tokens, np.int64)
        return RowGroup(group.input_ids.truncate(limits), group.labels.truncate(limits), group.row_offsets)


def open_split(
    shards: ShardSet,
    split: str,
    vocabulary_size: int,
    limit: RowLimit | None,
    max_held_tokens: int,
    *,
    streaming: bool = False,
) -> SplitRows:
    """Find the rows of one split; no row is read before it is needed.

    Args:
        shards: where the rows are.
        split: `train` or `validation`.
        vocabulary_size: rows of the model's embedding; every token id is below it.
        limit: the longest sequence there may be; None for any length.
        max_held_tokens: how many tokens may be held in memory at a time.
        streaming: files are looked into when they are reached, if a manifest tells how many rows they hold.

    Raises:
        TrainingError: there are no token columns, or no rows.
        SourceError: a file cannot be read, or is not Parquet.
    """
    packed = SEQ_LENGTHS in _columns(shards, split)
    manifest_rows = _rows_said(shards, split) if streaming else None
    name = f"{shards.root} ({split})"
    rows = SplitRows(
        name, shards.splits[split], vocabulary_size, limit, max_held_tokens, packed=packed, manifest_rows=manifest_rows
    )
    if manifest_rows is None:
        rows.locate_all()
    if not len(rows):
        raise TrainingError(f"{shards.root}: the {split} split has no rows")
    return rows


def _rows_said(shards: ShardSet, split: str) -> list[int] | None:
    """Rows of each file of a split as the manifest says."""
    if shards.manifest is None:
        return None
    rows = {shard.file: shard.rows for shard in shards.manifest.splits[split].shards}
    return [rows[path.name] for path in shards.splits[split]]


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
