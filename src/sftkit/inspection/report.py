"""The report of inspect-shards: a summary, and rows or an audit, to be printed or written as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sftkit.audit.expectations.expected import Expectations
from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress, SilentProgress
from sftkit.errors import SourceError, TokenizerError
from sftkit.inspection.audit.audit_shards import ShardAudit, audit_shards
from sftkit.inspection.audit.shard_origin import ShardOrigin, find_origin
from sftkit.inspection.columns.column_layout import read_layout
from sftkit.inspection.columns.token_values import split_packing
from sftkit.inspection.summary.dataset_summary import Summary
from sftkit.inspection.summary.summarize import summarize, text_column_names
from sftkit.inspection.view.decoding import TokenDecoder
from sftkit.inspection.view.read_rows import read_rows
from sftkit.inspection.view.selection import check_selection, filter_shards, row_scopes, search_note, select_rows
from sftkit.inspection.view.shown_row import ShownRow, with_page_sequences
from sftkit.shards.reading import ShardSet


@dataclass(frozen=True)
class Report:
    """What a set of shards holds."""

    summary: Summary
    rows: tuple[ShownRow, ...]
    """The selected rows; () when an audit was requested."""
    notes: tuple[str, ...]
    """Warnings about the rows, one sentence each."""
    audit: ShardAudit | None = None
    """None when it was not requested."""


def is_audited(config: InspectConfig) -> bool:
    """Return whether a config asks for an audit."""
    return config.audit or config.fail_on is not None or config.report is not None


def inspect_shards(config: InspectConfig, shards: ShardSet, progress: Progress | None = None) -> Report:
    """Summarize shards, and show the rows that a config selects, or audit all rows.

    A tokenizer (and with it transformers) is loaded only when rows of tokens are shown or audited.

    Raises:
        SourceError: a file cannot be read, has neither tokens nor text, or the selected split, shard or row does not
            exist.
        TokenizerError: the tokenizer that the config names cannot be loaded, or a search needs one and there is none.
        UsageError: options that select rows exclude each other.

    Example:
        >>> report = inspect_shards(InspectConfig(rows=2), open_shards("shards"))  # doctest: +SKIP
        >>> [row.length for row in report.rows]  # doctest: +SKIP
        [36, 124]
    """
    check_selection(config)
    _check_by(config, shards)
    filtered = filter_shards(shards, config.split, config.shard)
    fields = text_column_names(shards, config.dataset_text_field)
    summary = summarize(filtered, config.dataset_text_field)
    if is_audited(config):
        audit = audit_shards(config, filtered, fields, progress or SilentProgress())
        return Report(summary, (), (), audit)
    scopes = row_scopes(shards, filtered, config)
    if not config.rows:
        select_rows(scopes, replace(config, search=None), None, fields)  # raises for a row that does not exist
        return Report(summary, (), ())
    origin: ShardOrigin | None = None
    if any(read_layout(path, fields).tokens for scope in scopes for path in scope.paths):
        origin = find_origin(config, shards.manifest)
        if origin.tokenizer is None and config.search is not None:
            raise TokenizerError(f"search needs the text of the tokens: {origin.notes[-1]}")
    decoder = TokenDecoder(origin.tokenizer) if origin is not None and origin.tokenizer is not None else None
    notes = list(origin.notes) if origin is not None else []
    locations = select_rows(scopes, config, decoder, fields)
    if config.search is not None:
        notes.append(search_note(scopes, locations, config))
    expectations: Expectations | None = None
    if locations and origin is not None and decoder is not None:
        expectations = origin.learn_expectations()
        notes += origin.template_notes()
    packings = [split_packing(shards.manifest, scope.split) for scope in scopes]
    cutting = next((packing for packing in packings if packing.may_cut_rows), None)
    if cutting is not None:
        parts = "any sequence" if cutting.cuts_inside_packs else "the first and the last sequence of a pack"
        notes.append(f"{cutting.which_rows_are_cut}: {parts} may be part of a longer one")
    rows = zip(read_rows(locations, shards, decoder, expectations, fields), locations, strict=True)
    shown = (with_page_sequences(row, location, is_requested=config.row is not None) for row, location in rows)
    return Report(summary, tuple(shown), tuple(notes))


def _check_by(config: InspectConfig, shards: ShardSet) -> None:
    """Raise `SourceError` if rows are to be counted by source, and neither a manifest nor a column tells them."""
    if config.by is None or (shards.manifest is not None and any(each.written for each in shards.manifest.sources)):
        return
    fields = text_column_names(shards, config.dataset_text_field)
    if all(read_layout(path, fields).sources for paths in shards.splits.values() for path in paths):
        return
    lacks = "has no manifest" if shards.manifest is None else "its manifest, of an older version, has no such counts"
    raise SourceError(f"{shards.name or shards.root}: {lacks}: by {config.by} needs a data set of `sftkit preprocess`")
