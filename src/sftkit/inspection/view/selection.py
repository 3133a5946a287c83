"""Which rows are shown: the first, a certain one, random ones, or those whose text contains something."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sftkit.audit.checks.packs import Packing
from sftkit.config.commands import InspectConfig
from sftkit.core.rows import Ragged
from sftkit.errors import SourceError, UsageError
from sftkit.inspection.parquet_columns import ColumnLayout, iter_row_groups, read_layout, text_values, token_columns
from sftkit.inspection.view.decoding import TokenDecoder
from sftkit.shards.reading import ShardSet, open_parquet
from sftkit.storage.paths import AnyPath, relative_name

_SEARCHED_AT_ONCE = 256  # rows whose tokens are in memory as arrays


def search_row_group(
    layout: ColumnLayout, group: int, first: int, wanted: str, decoder: TokenDecoder | None
) -> Iterator[tuple[int, tuple[int, ...] | None]]:
    """The rows of a row group, from `first` on, that contain a text, and the sequences that do where rows are packs:
    what stands at the end of one and at the beginning of the next is no text.
    """
    table = next(iter_row_groups(layout, group))
    for start in range(first, table.num_rows, _SEARCHED_AT_ONCE):
        rows = table.slice(start, _SEARCHED_AT_ONCE)
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
        for row, some in groupby(texts, key=lambda item: item[0]):
            hits = tuple(number for number, (_, text) in enumerate(some) if wanted in text)
            if hits:
                yield start + row, hits


@dataclass(frozen=True)
class RowLocation:
    """Where a row is. row: within its split. shard_row: within its file. group, group_row: its row group, and where
    in it. hits: in a pack that was searched for, the sequences that contain what is wanted. All count from 0.
    """

    split: str
    path: AnyPath
    row: int
    shard_row: int
    group: int
    group_row: int
    hits: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RowScope:
    """The rows that are chosen from: one split, or one shard of it.

    paths: its files in order. before: rows of the split that come before the first of them. name: for messages.
    """

    split: str
    paths: tuple[AnyPath, ...]
    before: int
    name: str


@dataclass(frozen=True)
class _Group:
    """A row group: its first row, counted within the scope and within its file, and how many it has."""

    path: AnyPath
    number: int
    first: int
    first_in_shard: int
    rows: int


def check_selection(config: InspectConfig) -> None:
    """Raise `UsageError` for choices of rows that exclude each other."""
    if config.rows < 0:
        raise UsageError(f"rows must be 0 or more, not {config.rows}")
    if config.seed is not None and (config.row is not None or config.search is not None):
        other = "row" if config.row is not None else "search"
        raise UsageError(f"seed draws rows at random; it cannot be given together with {other}")


def filter_shards(shards: ShardSet, split: str | None, shard: str | None) -> ShardSet:
    """Only the shards that are asked for: those of a split, or one by its number in its split or by its file name.

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
            if shard in (path.name, path.name.removesuffix(".parquet"), relative_name(path, shards.root)):
                return replace(shards, splits={name: (path,)})
    name, paths = next(iter(splits.items()))
    if shard.isdecimal() and int(shard) < len(paths):
        return replace(shards, splits={name: (paths[int(shard)],)})
    known = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    raise SourceError(f"{shards.root}: has no shard {shard!r} in {name}; shards 0 to {len(paths) - 1}: {known}")


def row_scope(shards: ShardSet, narrowed: ShardSet) -> RowScope:
    """The rows to choose from: the first split of what is left after narrowing, which has any rows."""
    filled = {name: paths for name, paths in narrowed.splits.items() if any(_rows_of(path) for path in paths)}
    split, paths = next(iter(filled.items()))
    everything = shards.splits[split]
    if paths == everything:
        return RowScope(split, paths, 0, split)
    before = sum(_rows_of(path) for path in everything[: everything.index(paths[0])])
    return RowScope(split, paths, before, paths[0].name)


def select_rows(
    scope: RowScope, config: InspectConfig, decoder: TokenDecoder | None, fields: Sequence[str]
) -> list[RowLocation]:
    """The places of the rows that a config asks for, in order.

    Args:
        scope: the rows to choose from; `row` counts within it.
        config: `rows` is how many, from `row` (0) on, or drawn with `seed`, or those that contain `search`.
        decoder: what makes text of tokens, for `search`.
        fields: names that a text column may have.

    Raises:
        SourceError: `row` is past the last one.
    """
    if config.seed is not None:
        total = _total(scope)
        # Of Python's own generators, sample() holds as many numbers as it draws, not as many as there are rows.
        drawn = random.Random(config.seed).sample(range(total), min(config.rows, total))
        return _places(scope, sorted(drawn))
    first = config.row or 0
    if first:
        total = _total(scope)
        if not 0 <= first < total:
            raise SourceError(f"row={first}: {scope.name} has {total:,} rows, 0 to {total - 1:,}")
    if config.search is not None:
        return _search(scope, config.search, first, config.rows, decoder, fields)
    return _places(scope, range(first, first + config.rows))


def _groups(scope: RowScope) -> Iterator[_Group]:
    """The row groups of a scope, from the files' footers alone."""
    first = 0
    for path in scope.paths:
        in_shard = 0
        with open_parquet(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        for number, rows in enumerate(sizes):
            yield _Group(path, number, first, in_shard, rows)
            first, in_shard = first + rows, in_shard + rows


def _rows_of(path: AnyPath) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _total(scope: RowScope) -> int:
    return sum(_rows_of(path) for path in scope.paths)


def _places(scope: RowScope, positions: Sequence[int]) -> list[RowLocation]:
    """Rows by their position in the scope, ascending; those past its end are left out."""
    places: list[RowLocation] = []
    for group in _groups(scope):
        while len(places) < len(positions) and positions[len(places)] < group.first + group.rows:
            places.append(_place(scope, group, positions[len(places)] - group.first))
        if len(places) == len(positions):
            break
    return places


def _place(scope: RowScope, group: _Group, group_row: int) -> RowLocation:
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
    """Rows from `first` on whose text contains `wanted`, at most `limit`; reading stops at the last of them."""
    found: list[RowLocation] = []
    for group in _groups(scope):
        skipped = max(0, first - group.first)
        if skipped >= group.rows:
            continue
        for row, hits in search_row_group(read_layout(group.path, fields), group.number, skipped, wanted, decoder):
            found.append(replace(_place(scope, group, row), hits=hits))
            if len(found) == limit:
                return found
    return found
