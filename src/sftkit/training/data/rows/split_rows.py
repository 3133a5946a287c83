"""The rows of one split, read lazily: footers at the start, row groups when they are needed."""

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
from sftkit.core.rows import SEQ_LENGTHS, SOURCE, Offsets, trained_mask
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import DataError
from sftkit.shards.pack_padding import remove_padding
from sftkit.shards.readers.parquet_file import open_parquet
from sftkit.storage.paths import AnyPath
from sftkit.training.data.rows.row_groups import (
    RowGroup,
    RowGroupLocation,
    TokenSequences,
    decode_row_group,
    keep_sequences,
    locate_row_groups,
)
from sftkit.training.data.rows.row_limits import RowLimit, apply_limit
from sftkit.training.data.rows.token_details import DETAIL_COLUMNS, PartNames
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)

RowRefs = npt.NDArray[np.int64]
"""References to rows: (number of the row group, number of the row in it) each; shape (rows, 2)."""

_FOOTERS_AT_ONCE = 8  # files
_LEAST_GROUPS_CACHED = 4  # whatever their size: the end of one window and the start of the next


@dataclass
class SequenceCounts:
    """How many of the sequences read so far are not used as they are."""

    seen: int = 0
    too_long: int = 0
    without_loss: int = 0


class SplitRows:
    """The rows of one split, with a cache of row groups.

    A split is a list of Parquet files. Their row groups are numbered in the order in which their footers were read:
    group g is at `locations[g]`. (With streaming, processes read footers in different orders, so these numbers differ
    between them.) A row is referred to by its group and its number within the group, see `RowRefs`.

    Data are read in three steps, each only when it is needed:

    1. The footer of a file tells its row groups and their rows and tokens. `locate_all` reads all footers; with
       streaming, `groups_of` reads one when its file is reached, and `manifest_rows` tells the rows of the others.
    2. `group` reads a row group, checks its rows, applies the limit on sequences, and removes padding and sequences
       without a trained token. Groups stay in a cache, and the least recently used leave it when it holds more than
       `max_cached_tokens` (8 bytes each: id and label as int32; 16 with the columns of `DETAIL_COLUMNS`).
    3. `row` gives the sequences of a row.

    A row of which no sequence is used stays as a row of size 0: the number of rows must be known before they are read,
    and must be the same in all processes. Only `skip_unusable_rows`, called in all processes when they have read the
    same row groups, takes the unusable rows found so far out of the counts and numbers of rows.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[AnyPath],
        vocabulary_size: int,
        limit: RowLimit | None,
        max_cached_tokens: int,
        *,
        columns: Sequence[str],
        manifest_rows: Sequence[int] | None = None,
        source_names: tuple[str, ...] = (),
    ) -> None:
        """Set up the split without reading anything.

        Args:
            name: what it is called in messages.
            paths: its files.
            vocabulary_size: every token id is below it.
            limit: the longest sequence; None for any length.
            max_cached_tokens: how many tokens the cache of row groups holds.
            columns: those to read of each file: `input_ids`, `labels` and others of `decode_row_group`.
            manifest_rows: rows of each file as recorded in the manifest, if footers are to be read lazily.
            source_names: names of the sources, by their numbers in the column `source`.
        """
        self.name = name
        self.packed = SEQ_LENGTHS in columns
        self.weighted = LOSS_WEIGHTS in columns
        self.parts: PartNames | None = None
        """Parts that the loss can be divided into."""
        if SOURCE in columns or TOKEN_KINDS in columns:
            self.parts = PartNames(source_names if SOURCE in columns else (), TOKEN_KINDS in columns)
        self._source_count = len(source_names)
        self.locations: list[RowGroupLocation] = []
        self.counts = SequenceCounts()
        self._paths, self._columns = paths, columns
        self._manifest_rows = manifest_rows
        self._groups_of_file: dict[int, list[int]] = {}
        self._vocabulary_size = vocabulary_size
        self._limit = limit
        self._max_cached_tokens = max_cached_tokens
        self._cache: OrderedDict[int, RowGroup] = OrderedDict()
        self._least_groups_cached = _LEAST_GROUPS_CACHED
        self._fetched: dict[tuple[int, int], TokenSequences] = {}
        self._counted: set[int] = set()
        # Numbers of the usable rows, for groups that have unusable ones: as found, and as in effect.
        self._found_usable: dict[int, Offsets] = {}
        self._usable: dict[int, Offsets] = {}

    @property
    def files(self) -> int:
        """Files of the split."""
        return len(self._paths)

    def groups_of(self, file: int) -> list[int]:
        """Numbers of the row groups of a file; reads its footer the first time.

        Raises:
            SourceError, DataError: the file cannot be read, or has another number of rows than its manifest records.
        """
        if file not in self._groups_of_file:
            self._add(file, locate_row_groups(self._paths[file]))
        return self._groups_of_file[file]

    def locate_all(self) -> None:
        """Read the footers of all files.

        Raises:
            SourceError, DataError: a file cannot be read.
        """
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            for file, locations in enumerate(pool.map(locate_row_groups, self._paths)):
                if file not in self._groups_of_file:
                    self._add(file, locations)

    def file_rows(self, file: int) -> int:
        """Rows of a file, without skipped ones."""
        if self._manifest_rows is not None and file not in self._groups_of_file:
            return self._manifest_rows[file]
        return sum(map(self.group_rows, self.groups_of(file)))

    def __len__(self) -> int:
        """Rows of the split, without skipped ones."""
        return sum(map(self.file_rows, range(self.files)))

    def group_rows(self, group: int) -> int:
        """Rows of a row group, without skipped ones."""
        return len(self._usable[group]) if group in self._usable else self.locations[group].rows

    def usable_rows(self, group: int) -> Offsets:
        """Numbers within a row group of its rows, without skipped ones."""
        return self._usable[group] if group in self._usable else np.arange(self.locations[group].rows)

    def skip_unusable_rows(self) -> None:
        """From now on, leave the unusable rows that were found so far out of counts and numbers of rows.

        Call it once, when all processes have read the same row groups: they must agree on the order of rows.
        """
        self._usable = dict(self._found_usable)

    def __getstate__(self) -> dict[str, object]:
        """Without the cache: each worker process of a DataLoader fills its own."""
        return {**self.__dict__, "_cache": OrderedDict(), "_fetched": {}}

    def sizes(self, refs: RowRefs) -> Offsets:
        """Tokens of some rows as they are trained on, shape (rows,); 0 for unusable ones."""
        sizes: Offsets = np.empty(len(refs), np.int64)
        for group in np.unique(refs[:, 0]).tolist():
            in_group = refs[:, 0] == group
            sizes[in_group] = self.group(group).sizes[refs[in_group, 1]]
        return sizes

    def group(self, number: int) -> RowGroup:
        """One row group, from the cache or its file.

        Raises:
            DataError: a row is invalid; it is named as `path:row`.
        """
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        group = self._read(number)
        self._cache[number] = group
        while len(self._cache) > self._least_groups_cached and self._cached_tokens() > self._max_cached_tokens:
            self._cache.popitem(last=False)
        return group

    def row(self, group: int, number: int) -> TokenSequences:
        """The sequences of one row."""
        fetched = self._fetched.get((group, number))
        return self.group(group).row(number) if fetched is None else fetched

    def fetch(self, refs: RowRefs, needed: AbstractSet[int]) -> Offsets:
        """Copy some rows so that `row` finds them until the next call, and keep only needed row groups in the cache.

        Row groups are read one after the other, and one that is not needed leaves the cache before the next is read. So
        the cache never holds more than the needed groups and one more.

        Args:
            refs: the rows.
            needed: row groups that later calls will ask for; they stay in the cache whatever their size.

        Returns:
            Tokens of the rows, shape (rows,); 0 for unusable ones.
        """
        sizes: Offsets = np.empty(len(refs), np.int64)
        requested = dict.fromkeys(refs[:, 0].tolist())  # distinct, in order
        self._least_groups_cached = max(_LEAST_GROUPS_CACHED, len(needed | requested.keys()))
        self._fetched = {}
        for number in self._cache.keys() - needed - requested.keys():
            del self._cache[number]
        for number in requested:
            group = self.group(number)
            in_group = refs[:, 0] == number
            sizes[in_group] = group.sizes[refs[in_group, 1]]
            self._fetched |= {(number, row): group.row(row).copy() for row in refs[in_group, 1].tolist()}
            if number not in needed:
                del self._cache[number]
        return sizes

    def warn_of_skipped_rows(self) -> None:
        """Log, in the main process, how many of the rows read so far are truncated or left out."""
        counts, limit = self.counts, self._limit
        all_read = len(self._groups_of_file) == self.files and len(self._counted) == len(self.locations)
        total = f"{counts.seen}" if all_read else f"the first {counts.seen}"
        total += " sequences" if self.packed else " rows"
        if counts.too_long and limit is not None:
            action = "truncated" if limit.overflow.startswith("truncate") else "left out"
            what = f"{counts.too_long} of {total} are longer than max_seq_length={limit.tokens} and are {action}"
            warn_on_main_process(_log, f"{self.name}: {what}")
        if counts.without_loss:
            warn_on_main_process(_log, f"{self.name}: {counts.without_loss} of {total} carry no loss and are left out")

    def _add(self, file: int, locations: list[RowGroupLocation]) -> None:
        found = sum(location.rows for location in locations)
        if self._manifest_rows is not None and found != self._manifest_rows[file]:
            raise DataError(
                f"{self._paths[file]}: holds {found} rows, but the manifest records {self._manifest_rows[file]}; copy"
                " the data set again, or run preprocess again to rebuild it"
            )
        self._groups_of_file[file] = list(range(len(self.locations), len(self.locations) + len(locations)))
        self.locations += locations

    def _cached_tokens(self) -> int:
        return sum(len(group.input_ids.values) for group in self._cache.values())

    def _read(self, number: int) -> RowGroup:
        location = self.locations[number]
        try:
            with open_parquet(location.path) as file:
                names = [name for name in self._columns if name in file.schema_arrow.names]
                table = file.read_row_group(location.index, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{location.path}: cannot be read: {single_line(error)}") from None
        missing = [name for name in DETAIL_COLUMNS if name in self._columns and name not in names]
        if missing:
            raise DataError(f"{location.path}: no column {missing[0]}, which the first file of this split has")
        table = remove_padding(table, location.path)
        group = decode_row_group(location, table, self._vocabulary_size, self._source_count)
        counts = SequenceCounts(seen=len(group.input_ids))
        if self._limit is not None:
            group, counts.too_long = apply_limit(self._limit, group, location)
        has_loss = group.labels.count_per_row(trained_mask(group.labels)) > 0
        counts.without_loss = int((~has_loss).sum())
        if number not in self._counted:  # a group can be read again after it left the cache
            self._counted.add(number)
            self.counts.seen += counts.seen
            self.counts.too_long += counts.too_long
            self.counts.without_loss += counts.without_loss
        group = keep_sequences(group, has_loss)
        usable = np.flatnonzero(group.sizes)
        if len(usable) < location.rows:
            self._found_usable[number] = usable
        return group
