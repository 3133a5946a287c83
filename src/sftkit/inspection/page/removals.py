"""What became of rows that are not in the shards, and of rows that lost a part: counts by reason, with examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sftkit.inspection.page.pictures.picture import Cell
from sftkit.inspection.page.removed_rows_listed import RemovedExample, removed_examples
from sftkit.shards.manifest import Manifest
from sftkit.shards.staging.removed_rows import generic_reason
from sftkit.storage.dataset_files import DROPPED_NAME, QUARANTINE_NAME
from sftkit.storage.paths import AnyPath

_MAX_REASONS = 60
_MAX_SOURCES = 100


@dataclass(frozen=True)
class Removal:
    """Rows that were removed for one reason."""

    what: str
    """`dropped` or `quarantined`."""
    reason: str
    rows: int
    examples: Sequence[RemovedExample] = ()


@dataclass(frozen=True)
class Removals:
    """Everything that is missing."""

    by_reason: tuple[Removal, ...] = ()
    others: int = 0
    """Reasons that are not listed."""
    cut: str = ""
    """What limits on the length cut off, in words."""
    cut_by_source: Sequence[tuple[Cell, ...]] = ()
    """Source, rows cut, tokens lost, trained tokens lost, rows that lost whole answers."""
    not_rendered: Mapping[str, int] = field(default_factory=dict)
    """As in the manifest."""
    steps: Sequence[tuple[Cell, ...]] = ()
    """Step of the pipeline, reason, and rows that it dropped."""


def removals_of(manifest: Manifest, folder: AnyPath, *, with_examples: bool) -> Removals:
    """Return what a manifest and the lists beside the shards say about missing rows.

    Args:
        manifest: the manifest.
        folder: where its data set is.
        with_examples: whether to read examples; their contents are text from the data.
    """
    dropped = removed_examples(folder / DROPPED_NAME) if with_examples and manifest.dropped else {}
    bad = removed_examples(folder / QUARANTINE_NAME) if with_examples and manifest.quarantined else {}
    found = [
        *(
            Removal("quarantined", reason, rows, bad.get(reason, ()))
            for reason, rows in _largest(manifest.quarantined_by_reason)
        ),
        *(
            Removal("dropped", reason, rows, dropped.get(generic_reason(reason), ()))
            for reason, rows in _largest(manifest.dropped)
        ),
    ]
    cuts = manifest.cuts
    return Removals(
        by_reason=tuple(found[:_MAX_REASONS]),
        others=len(found[_MAX_REASONS:]),
        cut=cuts.describe(manifest.rows_read) if cuts is not None and cuts.rows else "",
        cut_by_source=[
            (source.path, cut.rows, cut.tokens, cut.trained_tokens, cut.rows_losing_answers)
            for source in manifest.sources
            if (cut := source.cuts) is not None and cut.rows
        ][:_MAX_SOURCES],
        not_rendered=manifest.not_rendered,
        steps=[
            (step, reason, rows)
            for step, reasons in manifest.dropped_by_handler.items()
            for reason, rows in reasons.items()
        ][:_MAX_REASONS],
    )


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])
