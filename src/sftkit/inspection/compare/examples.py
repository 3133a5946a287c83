"""Reads examples of differences: the tokens around the first one that differs, on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.core.rows import IGNORE_INDEX, Ids, Offsets
from sftkit.inspection.columns.column_layout import iter_row_groups
from sftkit.inspection.compare.comparison import (
    BY_IDS,
    IDS_DIFFER,
    LABELS_DIFFER,
    MOVED,
    ONLY_IN_A,
    ONLY_IN_B,
    RowDifference,
    SequencePlace,
)
from sftkit.inspection.compare.matching import Pairs
from sftkit.inspection.compare.pairing import PairedSplit
from sftkit.inspection.compare.scan import ScannedGroup, ScannedSplit
from sftkit.inspection.compare.sequences import Sequences, read_sequences
from sftkit.inspection.view.decoding import TokenDecoder, TokenText
from sftkit.inspection.view.shown_row import ShownToken

_CHARACTERS = 8
"""Characters of text that are shown where there would be one token."""


@dataclass(frozen=True)
class Window:
    """How much of a sequence is shown, in tokens."""

    before: int
    """Before the first difference."""
    after: int
    """From the first difference on."""
    alone: int
    """Of a sequence without a counterpart, from its start."""


NARROW = Window(6, 10, 32)
"""For a terminal."""

Located = tuple[ScannedSplit, int]
"""A sequence: its split and its index there."""


@dataclass(frozen=True)
class ChosenExample:
    """A difference to show."""

    kind: str
    """One of `DIFFERENCE_KINDS`."""
    paired_by: str | None
    """How the pair was found; None without a counterpart."""
    a: Located | None
    b: Located | None


def choose_examples(
    splits: Sequence[PairedSplit], moved: Mapping[tuple[int, int], Pairs], count: int
) -> list[ChosenExample]:
    """Return the first `count` differences of each kind, in the order of A, or of B for those that A lacks."""
    chosen: list[ChosenExample] = []

    def add(kind: str, groups: Iterable[tuple[str | None, ScannedSplit | None, ScannedSplit | None, Pairs]]) -> None:
        found = []
        for how, a, b, (rows_a, rows_b) in groups:
            leading = rows_a if a is not None else rows_b
            for at in _smallest(leading, count):
                one = (a, int(rows_a[at])) if a is not None else None
                other = (b, int(rows_b[at])) if b is not None else None
                found.append((int(leading[at]), ChosenExample(kind, how, one, other)))
        found.sort(key=lambda each: each[0])
        chosen.extend(example for _, example in found[: count - sum(each.kind == kind for each in chosen)])

    for (one, other), pairs in moved.items():
        add(MOVED, [(BY_IDS, splits[one].a, splits[other].b, pairs)])
    for split in splits:
        add(LABELS_DIFFER, [(BY_IDS, split.a, split.b, split.labels_differ)])
    for split in splits:
        add(IDS_DIFFER, [(how, split.a, split.b, pairs) for how, pairs in split.ids_differ.items()])
    for split in splits:
        add(ONLY_IN_A, [(None, split.a, None, (split.free[0], split.free[0]))])
    for split in splits:
        add(ONLY_IN_B, [(None, None, split.b, (split.free[1], split.free[1]))])
    return chosen


def _smallest(values: Offsets, count: int) -> list[int]:
    """Return the indices of the `count` smallest values."""
    if count < len(values):
        return [int(at) for at in np.argpartition(values, count)[:count]]
    return list(range(len(values)))


class ExampleReader:
    """Reads examples; decoders are None where tokens are shown as ids."""

    def __init__(self, decoder_a: TokenDecoder | None, decoder_b: TokenDecoder | None, window: Window = NARROW) -> None:
        self._decoders = decoder_a, decoder_b
        self._window = window
        self._last: tuple[ScannedGroup, Sequences] | None = None

    def read(self, example: ChosenExample) -> RowDifference:
        """Read an example.

        Raises:
            SourceError: a file cannot be read.
        """
        both = example.a, example.b
        sides = [_Sequence.of(self._group(*each), *each) if each is not None else None for each in both]
        first, second = sides
        position = _first_difference(first, second) if first is not None and second is not None else None
        shown = [
            side.place(position, decoder, self._window) if side is not None else None
            for side, decoder in zip(sides, self._decoders, strict=True)
        ]
        return RowDifference(example.kind, example.paired_by, position, shown[0], shown[1])

    def _group(self, split: ScannedSplit, index: int) -> Sequences:
        """Return the sequences of the row group that a sequence is in; the last one that was read is kept."""
        group = split.group_of(index)
        if self._last is None or self._last[0] is not group:
            table = next(iter_row_groups(group.layout, group.number))
            self._last = group, read_sequences(table, group.layout, split.packing)
        return self._last[1]


class _Sequence:
    """One sequence: its tokens (or characters) and labels, and where it is."""

    def __init__(
        self, split: str, shard: str, row: int, number: int | None, values: Ids, labels: Ids | None, text: str | None
    ) -> None:
        self.values, self.labels, self.text = values, labels, text
        self._at = split, shard, row, number

    @classmethod
    def of(cls, sequences: Sequences, split: ScannedSplit, index: int) -> _Sequence:
        group = split.group_of(index)
        at = index - group.first
        start, stop = sequences.ids.offsets[at : at + 2].tolist()
        values, text = sequences.ids.values[start:stop], None
        labels = sequences.labels[start:stop] if sequences.labels is not None else None
        if not group.layout.tokens:
            text = values.astype(np.uint8).tobytes().decode("utf-8", "replace")
            values = np.fromiter(map(ord, text), np.int32, len(text))
        number = int(sequences.numbers[at]) if sequences.numbers is not None else None
        row = group.first_row + int(sequences.rows[at])
        return cls(split.name, group.shard, row, number, values, labels, text)

    def place(self, position: int | None, decoder: TokenDecoder | None, window: Window) -> SequencePlace:
        """Return the sequence with the tokens around a position, or without one with its first tokens."""
        scale = 1 if self.text is None else _CHARACTERS
        first = 0 if position is None else max(0, position - window.before * scale)
        stop = position + window.after * scale if position is not None else window.alone * scale
        stop = min(len(self.values), stop)
        first = min(first, stop)
        shown = self.text[first:stop] if self.text is not None else None
        tokens = () if self.text is not None else self._tokens(first, stop, decoder)
        return SequencePlace(*self._at, len(self.values), first, tokens, shown)

    def _tokens(self, first: int, stop: int, decoder: TokenDecoder | None) -> tuple[ShownToken, ...]:
        texts = [TokenText(None, False)] * stop if decoder is None else decoder.token_texts(self.values[:stop])
        tokens = []
        for at in range(first, stop):
            label = None if self.labels is None else int(self.labels[at])
            trained = None if label is None else label != IGNORE_INDEX
            text = texts[at]
            tokens.append(
                ShownToken(int(self.values[at]), text.text, trained, text.special, label if trained else None)
            )
        return tuple(tokens)


def _first_difference(a: _Sequence, b: _Sequence) -> int | None:
    """Return the first position at which ids differ; where they are equal, at which labels do."""
    both = min(len(a.values), len(b.values))
    differs = np.flatnonzero(a.values[:both] != b.values[:both])
    if len(differs):
        return int(differs[0])
    if len(a.values) != len(b.values):
        return both
    if a.labels is None or b.labels is None:
        return None
    differs = np.flatnonzero(a.labels != b.labels)
    return int(differs[0]) if len(differs) else None
