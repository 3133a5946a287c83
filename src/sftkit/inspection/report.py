"""inspect_shards(config, shards) -> Report: everything that the command shows, ready to print or to write as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.config.schema import InspectConfig
from sftkit.errors import TokenizerError
from sftkit.inspection.columns import layout_of
from sftkit.inspection.decoding import Decoder, open_decoder
from sftkit.inspection.rows import ShownRow, read_rows
from sftkit.inspection.selection import check_choices, narrow, scope_of, select
from sftkit.inspection.summary import Summary, summarize, text_fields
from sftkit.shards.reading import ShardSet


@dataclass(frozen=True)
class Report:
    """What a set of shards holds, some of its rows, and what the reader should know about how they are shown."""

    summary: Summary
    rows: tuple[ShownRow, ...]
    notes: tuple[str, ...]


def inspect_shards(config: InspectConfig, shards: ShardSet) -> Report:
    """Look into shards as a config asks: the whole of them counted, and the rows it chooses.

    Loads a tokenizer (and so transformers) only when rows of tokens are shown.

    Raises:
        SourceError: a file cannot be read, has no columns that we know, or what is asked for is not there.
        TokenizerError: the tokenizer that the config names cannot be loaded, or a search needs one and there is none.
        UsageError: choices of rows that exclude each other.
    """
    check_choices(config)
    narrowed = narrow(shards, config.split, config.shard)
    fields = text_fields(shards, config.dataset_text_field)
    summary = summarize(narrowed, config.dataset_text_field)
    decoder: Decoder | None = None
    notes: list[str] = []
    scope = scope_of(shards, narrowed)
    if any(layout_of(path, fields).tokens for path in scope.paths):
        decoder, notes = open_decoder(config, shards.manifest)
        if decoder is None and config.search is not None:
            raise TokenizerError(f"search needs the text of the tokens: {notes[0]}")
    places = select(scope, config, decoder, fields)
    if config.search is not None and not places:
        notes.append(f"no row contains {config.search!r}")
    return Report(summary, tuple(read_rows(places, shards.root, decoder, fields)), tuple(notes))
