"""inspect_shards(config, shards) -> Report: everything that the command shows, ready to print or to write as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sftkit.audit.expectations.expected import Expectations
from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress, SilentProgress
from sftkit.errors import TokenizerError
from sftkit.inspection.audit.audit_shards import ShardAudit, audit_shards
from sftkit.inspection.audit.shard_origin import ShardOrigin, find_origin
from sftkit.inspection.parquet_columns import read_layout, split_packing
from sftkit.inspection.summary.dataset_summary import Summary
from sftkit.inspection.summary.summarize import summarize, text_column_names
from sftkit.inspection.view.decoding import TokenDecoder
from sftkit.inspection.view.pack_excerpt import with_page_sequences
from sftkit.inspection.view.read_rows import read_rows
from sftkit.inspection.view.selection import check_selection, filter_shards, row_scope, select_rows
from sftkit.inspection.view.shown_row import ShownRow
from sftkit.shards.reading import ShardSet


@dataclass(frozen=True)
class Report:
    """What a set of shards holds, some of its rows, and what the reader should know about how they are shown.

    audit: what is wrong with the rows, all of which were checked then, and none is shown; None when not asked for.
    """

    summary: Summary
    rows: tuple[ShownRow, ...]
    notes: tuple[str, ...]
    audit: ShardAudit | None = None


def is_audited(config: InspectConfig) -> bool:
    """Whether a config asks for the audit."""
    return config.audit or config.fail_on is not None


def inspect_shards(config: InspectConfig, shards: ShardSet, progress: Progress | None = None) -> Report:
    """Look into shards as a config asks: the whole of them counted, and the rows it chooses, or an audit of all.

    Loads a tokenizer (and so transformers), and learns what right rows look like, only when rows of tokens are shown
    or audited.

    Raises:
        SourceError: a file cannot be read, has no columns that we know, or what is asked for is not there.
        TokenizerError: the tokenizer that the config names cannot be loaded, or a search needs one and there is none.
        UsageError: choices of rows that exclude each other.
    """
    check_selection(config)
    narrowed = filter_shards(shards, config.split, config.shard)
    fields = text_column_names(shards, config.dataset_text_field)
    summary = summarize(narrowed, config.dataset_text_field)
    if is_audited(config):
        audit = audit_shards(config, narrowed, fields, progress or SilentProgress())
        return Report(summary, (), (), audit)
    scope = row_scope(shards, narrowed)
    if not config.rows:
        select_rows(scope, replace(config, search=None), None, fields)  # raises for a row that does not exist
        return Report(summary, (), ())
    source: ShardOrigin | None = None
    if any(read_layout(path, fields).tokens for path in scope.paths):
        source = find_origin(config, shards.manifest)
        if source.tokenizer is None and config.search is not None:
            raise TokenizerError(f"search needs the text of the tokens: {source.notes[-1]}")
    decoder = TokenDecoder(source.tokenizer) if source is not None and source.tokenizer is not None else None
    notes = list(source.notes) if source is not None else []
    places = select_rows(scope, config, decoder, fields)
    if config.search is not None and not places:
        notes.append(f"no row contains {config.search!r}")
    norms: Expectations | None = None
    if places and source is not None and decoder is not None:
        norms = source.norms()
        notes += source.differing_template()
    if split_packing(shards.manifest, scope.split).wrapped:
        notes.append("rows are wrapped: the first and the last sequence of a pack may be pieces of longer ones")
    rows = zip(read_rows(places, shards, decoder, norms, fields), places, strict=True)
    shown = (with_page_sequences(row, place, asked_for=config.row is not None) for row, place in rows)
    return Report(summary, tuple(shown), tuple(notes))
