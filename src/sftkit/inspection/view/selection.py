"""Selects the rows to show: the first ones, a given one, random ones, or those that contain a text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sftkit.audit.checks.packs import Packing
from sftkit.config.commands import InspectConfig
from sftkit.core.rows import Ragged
from sftkit.errors import SourceError, UsageError
from sftkit.inspection.columns.column_layout import ColumnLayout, iter_row_groups, read_layout
from sftkit.inspection.columns.text_columns import text_values
from sftkit.inspection.columns.token_values import token_columns
from sftkit.inspection.view.decoding import TokenDecoder
from sftkit.shards.readers.open_file import open_shard_file
from sftkit.shards.reading import ShardSet
from sftkit.storage.paths import AnyPath, relative_name

_SEARCH_BATCH = 256  # rows whose tokens are held as arrays


@dataclass(frozen=True)
class RowLocation:
    """Where a row is. All indices count from 0."""

    split: str
    path: AnyPath
    row: int
    """Index within the split."""
    shard_row: int
    """Index within the file."""
    group: int
    """Index of its row group within the file."""
    group_row: int
    """Index within the row group."""
    hits: tuple[int, ...] | None = None
    """After a search, the sequences of a pack that contain the text."""


@dataclass(frozen=True)
class RowScope:
    """The rows to select from: one split, or one of its shards."""

    split: str
    paths: tuple[AnyPath, ...]
    """Its files, in order."""
    before: int
    """Rows of the split before the first of these files."""
    name: str
    """The split or file name, for messages."""


@dataclass(frozen=True)
class _RowGroup:
    path: AnyPath
    number: int
    first: int
    """Index of its first row within the scope."""
    first_in_shard: int
    """Index of its first row within the file."""
    rows: int


def check_selection(config: InspectConfig) -> None:
    """Raise `UsageError` for options that exclude each other."""
    if config.rows < 0:
        raise UsageError(f"rows must be 0 or more, not {config.rows}")
    if config.seed is not None and (config.row is not None or config.search is not None):
        other = "row" if config.row is not None else "search"
        raise UsageError(f"seed draws rows at random; it cannot be given together with {other}")


def filter_shards(shards: ShardSet, split: str | None, shard: str | None) -> ShardSet:
    """Keep only one split, or one shard.

    Args:
        shards: all shards.
        split: name of a split, None for all.
        shard: file name of a shard, with or without its suffix, or its number within the (first) split; None for all.

    Raises:
        SourceError: there is no such split or shard.
    """
    splits = dict(shards.splits)
    if split is not None:
        if split not in splits:
            raise SourceError(f"{shards.root}: has no split {split!r}; splits there: {', '.join(splits)}")
        splits = {split: splits[split]}
    if shard is None:
        return replace(shards, splits=splits)
    for name, paths in splits.items():
        for path in paths:
            if shard in (path.name, path.name.partition(".")[0], path.stem, relative_name(path, shards.root)):
                return replace(shards, splits={name: (path,)})
    name, paths = next(iter(splits.items()))
    if shard.isdecimal() and int(shard) < len(paths):
        return replace(shards, splits={name: (paths[int(shard)],)})
    known = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    raise SourceError(f"{shards.root}: has no shard {shard!r} in {name}; shards 0 to {len(paths) - 1}: {known}")


def row_scopes(shards: ShardSet, filtered: ShardSet, config: InspectConfig) -> list[RowScope]:
    """Return the rows to select from: those of the first split that has rows, or for a search those of all splits.

    A search that begins at a row stays in the split of this row.
    """
    filled = [(name, paths) for name, paths in filtered.splits.items() if any(_row_count(path) for path in paths)]
    searched = filled if config.search is not None and config.row is None else filled[:1]
    return [_scope(shards, split, paths) for split, paths in searched]


def _scope(shards: ShardSet, split: str, paths: tuple[AnyPath, ...]) -> RowScope:
    every = shards.splits[split]
    if paths == every:
        return RowScope(split, paths, 0, split)
    before = sum(_row_count(path) for path in every[: every.index(paths[0])])
    return RowScope(split, paths, before, paths[0].name)


def search_note(scopes: Sequence[RowScope], found: Sequence[RowLocation], config: InspectConfig) -> str:
    """Return a sentence that says where a search looked, and how far."""
    names = [scope.name for scope in scopes]
    wanted = f"for {config.search!r}"
    hits = (
        "no row contains it" if not found else f"{len(found):,} row{'s contain' if len(found) > 1 else ' contains'} it"
    )
    first = f" from row {config.row:,} on" if config.row else ""
    if len(found) < config.rows:
        return f"searched {' and '.join(names)}{first} {wanted}: {hits}"
    last = found[-1]
    reached = next(index for index, scope in enumerate(scopes) if scope.split == last.split)
    rest = f" (not searched: {', '.join(names[reached + 1 :])})" if reached + 1 < len(names) else ""
    return (
        f"searched {' and '.join(names[: reached + 1])}{first} up to row {last.row:,} {wanted}: {hits}; raise rows to "
        f"search on{rest}"
    )


def select_rows(
    scopes: Sequence[RowScope], config: InspectConfig, decoder: TokenDecoder | None, fields: Sequence[str]
) -> list[RowLocation]:
    """Return the locations of the rows that a config asks for, in the order of the scopes and of their rows.

    Args:
        scopes: the rows to select from, as `row_scopes` gives them.
        config: asks for `rows` rows: from index `row` (default 0) of the first scope on, drawn with `seed`, or
            containing `search`.
        decoder: decodes tokens, for `search`.
        fields: names that a text column may have.

    Raises:
        SourceError: `row` is out of range.
    """
    found: list[RowLocation] = []
    for scope in scopes:
        found += _select(scope, replace(config, rows=config.rows - len(found)), decoder, fields)
        if len(found) == config.rows:
            break
    return found


def _select(
    scope: RowScope, config: InspectConfig, decoder: TokenDecoder | None, fields: Sequence[str]
) -> list[RowLocation]:
    """Return the locations of the rows of one scope that a config asks for, in order."""
    if config.seed is not None:
        total = _total(scope)
        # sample() holds only as many numbers as it draws, not one for each row.
        drawn = random.Random(config.seed).sample(range(total), min(config.rows, total))
        return _locate_all(scope, sorted(drawn))
    first = config.row or 0
    if first:
        total = _total(scope)
        if not 0 <= first < total:
            raise SourceError(f"row={first}: {scope.name} has {total:,} rows, 0 to {total - 1:,}")
    if config.search is not None:
        return _search(scope, config.search, first, config.rows, decoder, fields)
    return _locate_all(scope, range(first, first + config.rows))


def search_row_group(
    layout: ColumnLayout, group: int, first: int, wanted: str, decoder: TokenDecoder | None
) -> Iterator[tuple[int, tuple[int, ...] | None]]:
    """Yield the rows of a row group that contain a text.

    Sequences of a pack are searched one by one, since they are unrelated texts.

    Args:
        layout: the columns of the file.
        group: index of the row group.
        first: index of the first row to search.
        wanted: the text.
        decoder: decodes tokens; needed unless rows are text.

    Yields:
        The index of the row within the group, and the indices of the sequences that contain the text (None where rows
        are not packed).
    """
    table = next(iter_row_groups(layout, group))
    for start in range(first, table.num_rows, _SEARCH_BATCH):
        rows = table.slice(start, _SEARCH_BATCH)
        if not layout.tokens:
            yield from ((start + row, None) for row, text in enumerate(text_values(rows, layout)) if wanted in text)
            continue
        assert decoder is not None, "a search in tokens needs a tokenizer"
        tokens = token_columns(rows, layout)
        packs = tokens.packs(Packing())
        if packs is None:
            yield from ((start + row, None) for row, text in enumerate(decoder.texts(tokens.ids)) if wanted in text)
            continue
        texts = zip(packs.rows.tolist(), decoder.texts(Ragged(tokens.ids.values, packs.offsets)), strict=True)
        for row, sequences in groupby(texts, key=lambda item: item[0]):
            hits = tuple(number for number, (_, text) in enumerate(sequences) if wanted in text)
            if hits:
                yield start + row, hits


def _row_groups(scope: RowScope) -> Iterator[_RowGroup]:
    """Yield the row groups of a scope; reads footers only."""
    first = 0
    for path in scope.paths:
        in_shard = 0
        with open_shard_file(path) as file:
            sizes = file.group_rows
        for number, rows in enumerate(sizes):
            yield _RowGroup(path, number, first, in_shard, rows)
            first, in_shard = first + rows, in_shard + rows


def _row_count(path: AnyPath) -> int:
    with open_shard_file(path) as file:
        return file.rows


def _total(scope: RowScope) -> int:
    return sum(_row_count(path) for path in scope.paths)


def _locate_all(scope: RowScope, rows: Sequence[int]) -> list[RowLocation]:
    """Locate rows by their index in the scope, ascending; those past its end are left out."""
    locations: list[RowLocation] = []
    for group in _row_groups(scope):
        while len(locations) < len(rows) and rows[len(locations)] < group.first + group.rows:
            locations.append(_locate(scope, group, rows[len(locations)] - group.first))
        if len(locations) == len(rows):
            break
    return locations


def _locate(scope: RowScope, group: _RowGroup, group_row: int) -> RowLocation:
    return RowLocation(
        split=scope.split,
        path=group.path,
        row=scope.before + group.first + group_row,
        shard_row=group.first_in_shard + group_row,
        group=group.number,
        group_row=group_row,
    )


def _search(
    scope: RowScope, wanted: str, first: int, limit: int, decoder: TokenDecoder | None, fields: Sequence[str]
) -> list[RowLocation]:
    """Locate at most `limit` rows that contain a text, from index `first` on; stops reading at the last of them."""
    found: list[RowLocation] = []
    for group in _row_groups(scope):
        skipped = max(0, first - group.first)
        if skipped >= group.rows:
            continue
        for row, hits in search_row_group(read_layout(group.path, fields), group.number, skipped, wanted, decoder):
            found.append(replace(_locate(scope, group, row), hits=hits))
            if len(found) == limit:
                return found
    return found
