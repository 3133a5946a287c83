"""Compares two data sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress, SilentProgress, progress_stage
from sftkit.core.rows import PADDING
from sftkit.core.splits import SPLITS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import SourceError, UsageError
from sftkit.inspection.columns.column_layout import ColumnLayout
from sftkit.inspection.compare.comparison import (
    ComparedSide,
    Comparison,
    KindCounts,
    RowDifference,
    SplitComparison,
)
from sftkit.inspection.compare.examples import NARROW, ChosenExample, ExampleReader, Window, choose_examples
from sftkit.inspection.compare.matching import Pairs
from sftkit.inspection.compare.pairing import PairedSplit, pair_moved
from sftkit.inspection.compare.row_sources import compare_sources
from sftkit.inspection.compare.scan import ScannedSplit, open_layouts, row_count, scan_split
from sftkit.inspection.compare.settings import compare_settings
from sftkit.inspection.summary.summarize import text_column_names
from sftkit.inspection.view.decoding import TokenDecoder, open_tokenizer
from sftkit.inspection.view.selection import filter_shards
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet, open_shards
from sftkit.tokenization.loading.tokenizer_loading import tokenizer_spec

_EXCLUDED_OPTIONS = ("verify", "audit", "fail_on", "by", "shard", "row", "seed", "search")
_NEEDS_COMPARE = ("compare_by", "fail_on_difference")


@dataclass(frozen=True)
class _Side:
    shards: ShardSet
    layouts: dict[str, list[ColumnLayout]]

    @property
    def files(self) -> list[ColumnLayout]:
        return [layout for files in self.layouts.values() for layout in files]

    @property
    def holds_tokens(self) -> bool:
        return self.files[0].tokens

    @property
    def has_labels(self) -> bool:
        return all(layout.supervision for layout in self.files)


@dataclass(frozen=True)
class PairedDatasets:
    """Two data sets, and which of their rows belong together."""

    a: _Side
    b: _Side
    splits: list[PairedSplit]
    moved: dict[tuple[int, int], Pairs]
    """Pairs in different splits, by the indices of the splits of A and of B."""


def check_compare_options(config: InspectConfig) -> None:
    """Raise `UsageError` for options that have no meaning with `compare`, or without it."""
    if config.compare is None:
        needed = [name for name in _NEEDS_COMPARE if getattr(config, name)]
        if needed:
            raise UsageError(f"{' and '.join(needed)}: give the other data set with compare, too")
        return
    options = {name: getattr(config, name) for name in _EXCLUDED_OPTIONS}
    excluded = [name for name, value in options.items() if value is not None and value is not False]
    if excluded:
        raise UsageError(f"compare looks at all rows of two data sets: leave out {' and '.join(excluded)}")
    if config.directory is None:
        raise UsageError("compare needs two directories of shards: sftkit inspect-shards A --compare B")


def compare_datasets(config: InspectConfig, progress: Progress | None = None) -> Comparison:
    """Compare the data sets in `config.directory` (A) and `config.compare` (B). Raises as `pair_datasets`."""
    return describe(config, pair_datasets(config, progress))


def pair_datasets(config: InspectConfig, progress: Progress | None = None) -> PairedDatasets:
    """Find the rows of the data sets in `config.directory` (A) and `config.compare` (B) that belong together.

    Every file is read once to hash its sequences; those that have no equal on the other side are read again. The order
    of rows and packing make no difference. Memory grows by about 50 bytes a sequence.

    Raises:
        UsageError: options exclude each other.
        SourceError: a file or directory cannot be read, one holds tokens and the other text, they have no split in
            common, or lack the column that rows are to be paired by.
        DataError: shards that a manifest lists are missing.
    """
    check_compare_options(config)
    a, b = (_open(location or "", config) for location in (config.directory, config.compare))
    _check_comparable(a, b, config)
    progress = progress or SilentProgress()
    labels = a.has_labels and b.has_labels
    names = [name for name in (*SPLITS, *a.layouts, *b.layouts) if name in a.layouts or name in b.layouts]
    splits: list[PairedSplit] = []
    with progress_stage(progress, "comparing", row_count([*a.files, *b.files])):
        for name in dict.fromkeys(names):
            scanned_a, scanned_b = [
                scan_split(side.shards, name, side.layouts.get(name, ()), progress, labels=labels) for side in (a, b)
            ]
            splits.append(PairedSplit(scanned_a, scanned_b))
    for split in splits:
        split.pair_identical()
    moved = pair_moved(splits)
    for split in splits:
        split.pair_others(config.compare_by, progress)
    return PairedDatasets(a, b, splits, moved)


def describe(config: InspectConfig, paired: PairedDatasets) -> Comparison:
    """Count what differs, and read the first `config.rows` examples of each kind.

    Raises:
        SourceError: a file cannot be read.
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    a, b, splits, moved = paired.a, paired.b, paired.splits, paired.moved
    counted = [_count(number, split, moved) for number, split in enumerate(splits)]
    total = sum((split.counts for split in counted), KindCounts())
    examples, notes = read_examples(config, paired, choose_examples(splits, moved, config.rows))
    first, second = a.shards.manifest, b.shards.manifest
    return Comparison(
        a=_describe(a, [split.a for split in splits]),
        b=_describe(b, [split.b for split in splits]),
        differs=total.differences > 0,
        counts=total,
        settings=compare_settings(first, second) if first is not None and second is not None else (),
        splits=tuple(counted),
        sources=compare_sources(splits, moved, first, second),
        examples=tuple(examples),
        notes=(*_notes(a, b, splits), *notes),
    )


def read_examples(
    config: InspectConfig, paired: PairedDatasets, chosen: Sequence[ChosenExample], window: Window = NARROW
) -> tuple[list[RowDifference], list[str]]:
    """Read examples, each side with its own tokenizer, and return notes about the tokenizers. Raises as `describe`."""
    if not chosen:
        return [], []
    a, b = paired.a, paired.b
    decoders, notes = _decoders(config, a.shards.manifest, b.shards.manifest) if a.holds_tokens else ((None, None), [])
    reader = ExampleReader(*decoders, window)
    return [reader.read(example) for example in chosen], notes


def _open(location: str, config: InspectConfig) -> _Side:
    shards = filter_shards(open_shards(location, config.storage_options), config.split, None)
    return _Side(shards, open_layouts(shards, text_column_names(shards, config.dataset_text_field)))


def _check_comparable(a: _Side, b: _Side, config: InspectConfig) -> None:
    names = config.directory, config.compare
    for side, name in zip((a, b), names, strict=True):
        mixed = next((layout for layout in side.files if layout.tokens != side.holds_tokens), None)
        if mixed is not None:
            raise SourceError(f"{mixed.path}: some files of {name} hold tokens, others text; compare those of one kind")
    if a.holds_tokens != b.holds_tokens:
        tokens, text = names if a.holds_tokens else reversed(names)
        raise SourceError(f"{tokens} holds tokens and {text} holds text; compare two data sets of one kind")
    if not set(a.layouts) & set(b.layouts):
        raise SourceError(
            f"{names[0]} has only the split {', '.join(a.layouts)} and {names[1]} only {', '.join(b.layouts)}; "
            "compare data sets that have a split in common"
        )
    for layout in (*a.files, *b.files):
        if config.compare_by is not None and config.compare_by not in layout.names:
            raise SourceError(
                f"{layout.path}: has no column {config.compare_by!r} to pair rows by (compare_by); columns there: "
                f"{', '.join(layout.names)}"
            )


def _count(number: int, split: PairedSplit, moved: dict[tuple[int, int], Pairs]) -> SplitComparison:
    paired = {how: len(first) for how, (first, _) in split.ids_differ.items() if len(first)}
    counts = KindCounts(
        identical=split.identical,
        moved=sum(len(pairs[0]) for (one, _), pairs in moved.items() if one == number),
        labels_differ=len(split.labels_differ[0]),
        ids_differ=sum(paired.values()),
        only_in_a=len(split.free[0]),
        only_in_b=len(split.free[1]),
    )
    return SplitComparison(split.a.name, counts, split.same_position, paired)


def _describe(side: _Side, splits: Sequence[ScannedSplit]) -> ComparedSide:
    return ComparedSide(
        location=side.shards.name or str(side.shards.root),
        splits={split.name: len(split) for split in splits if split.name in side.layouts},
        tokens=sum(split.tokens for split in splits),
        trained_tokens=_sum_known([split.trained_tokens for split in splits if split.name in side.layouts]),
        packed=any(split.is_packed for split in splits),
        has_manifest=side.shards.manifest is not None,
    )


def _sum_known(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _notes(a: _Side, b: _Side, splits: Sequence[PairedSplit]) -> Iterator[str]:
    both = (("A", a), ("B", b))
    without = [name for name, side in both if side.shards.manifest is None]
    if without:
        have = "has" if len(without) == 1 else "have"
        yield f"{' and '.join(without)} {have} no manifest: configs and tokenizers were not compared"
    if a.holds_tokens and not (a.has_labels and b.has_labels):
        unlabelled = [name for name, side in both if not side.has_labels]
        yield f"{' and '.join(unlabelled)} without labels: only ids were compared"
    yield from _column_notes(both)
    for name, side in both:
        missing = [split.a.name for split in splits if split.a.name not in side.layouts]
        if missing:
            yield f"{name} has no split {' or '.join(missing)}"
    for split in splits:
        is_same_kind = split.a.is_packed == split.b.is_packed
        if is_same_kind and not split.a.is_packed and split.same_position < split.identical:
            moved = split.identical - split.same_position
            yield f"{split.a.name}: {moved:,} identical rows are at other positions"
        for name, scanned in (("A", split.a), ("B", split.b)):
            if scanned.misfit_rows:
                rows = f"{scanned.misfit_rows:,} row{'s' if scanned.misfit_rows > 1 else ''} of {name}"
                yield f"{scanned.name}: in {rows}, labels or seq_lengths do not match the ids"
    packings = [side.packing for split in splits for side in (split.a, split.b)]
    cutting = next((packing for packing in packings if packing.may_cut_rows), None)
    if cutting is not None:
        yield f"{cutting.which_rows_are_cut}: their parts are compared as they are"


def _column_notes(both: Sequence[tuple[str, _Side]]) -> Iterator[str]:
    """Yield which columns only one of the two sides has, but for those of losses and sequences, which are compared."""
    files = [layout for _, side in both for layout in side.files]
    compared = {PADDING, *(name for layout in files for name in (*layout.supervision, layout.boundaries))}
    columns = [list(dict.fromkeys(name for layout in side.files for name in layout.names)) for _, side in both]
    for (name, _), own, other in zip(both, columns, reversed(columns), strict=True):
        extra = [column for column in own if column not in other and column not in compared]
        if LOSS_WEIGHTS in extra:
            yield f"loss_weights are only in {name}: other weights than 1 count as labels that differ"
            extra.remove(LOSS_WEIGHTS)
        if extra:
            yield f"columns only in {name}: {', '.join(extra)}"


def _decoders(
    config: InspectConfig, a: Manifest | None, b: Manifest | None
) -> tuple[tuple[TokenDecoder | None, TokenDecoder | None], list[str]]:
    """Load the tokenizers of both sides; a side without a manifest is shown with that of the other one."""
    first, notes_a = open_tokenizer(config, a if a is not None else b, None)
    decoder_a = TokenDecoder(first) if first is not None else None
    recorded = [manifest.tokenizer if manifest is not None else None for manifest in (a, b)]
    names = [(each.name, each.fingerprint) if each is not None else None for each in recorded]
    lacks = None if tokenizer_spec(config) is not None or a is b else "A" if a is None else "B" if b is None else None
    notes = [f"{lacks} is shown with the tokenizer of {'B' if lacks == 'A' else 'A'}"] if lacks is not None else []
    if None in names or names[0] == names[1] or tokenizer_spec(config) is not None:
        return (decoder_a, decoder_a), [*notes_a, *notes]
    second, notes_b = open_tokenizer(config, b, None)
    decoder_b = TokenDecoder(second) if second is not None else None
    return (decoder_a, decoder_b), [*(f"A: {note}" for note in notes_a), *(f"B: {note}" for note in notes_b)]
