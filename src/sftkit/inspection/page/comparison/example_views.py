"""Examples of differences as the page shows them: both sides, with the tokens that differ marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sftkit.core.escape import visible_parts
from sftkit.inspection.compare.comparison import (
    BY_COLUMN,
    IDS_DIFFER,
    KIND_NAMES,
    LABELS_DIFFER,
    PAIRED_NAMES,
    RowDifference,
    SequencePlace,
)
from sftkit.inspection.page.bubbles import Bubble, Run, token_runs, token_style
from sftkit.inspection.view.shown_row import ShownToken

_MARKED = "f"
"""Class of what differs."""


@dataclass(frozen=True)
class SideView:
    """One side of an example, A or B."""

    name: str
    place: SequencePlace
    """Without its tokens, which the bubble has."""
    bubble: Bubble | None
    """The tokens that are shown; None for text."""
    text: tuple[Run, ...]
    """The text that is shown; () for tokens."""
    after: int
    """Tokens (characters) after those that are shown."""
    has_ended: bool
    """Whether it ends where the other side goes on."""

    @property
    def unit(self) -> str:
        """What lengths and positions count."""
        return "tokens" if self.bubble is not None else "characters"


@dataclass(frozen=True)
class ExampleView:
    """One example."""

    key: str
    """Its id in the page."""
    kind: str
    """The difference, in words."""
    title: str
    split: str
    sides: tuple[SideView, ...]

    @property
    def bubbles(self) -> tuple[Bubble, ...]:
        """The tokens of both sides."""
        return tuple(side.bubble for side in self.sides if side.bubble is not None)


def example_view(number: int, example: RowDifference, column: str | None) -> ExampleView:
    """Arrange an example.

    Args:
        number: its number on the page.
        example: the example.
        column: `compare_by`.
    """
    both = (("A", example.a, example.b), ("B", example.b, example.a))
    sides = tuple(_side(name, example, own, other) for name, own, other in both if own is not None)
    kind = KIND_NAMES[example.kind]
    title = kind
    if example.position is not None:
        title += f" from {sides[0].unit.removesuffix('s')} {example.position:,} on"
    if example.kind == IDS_DIFFER and example.paired_by is not None:
        title += f", {paired_name(example.paired_by, column)}"
    return ExampleView(f"difference-{number}", kind, title, sides[0].place.split, sides)


def paired_name(how: str, column: str | None) -> str:
    """Say how a pair was found, with the column of `compare_by`."""
    return f"{PAIRED_NAMES[how]} {column}" if how == BY_COLUMN else PAIRED_NAMES[how]


def _side(name: str, example: RowDifference, own: SequencePlace, other: SequencePlace | None) -> SideView:
    at = example.position - own.first if example.position is not None else None
    size = len(own.tokens) if own.text is None else len(own.text)
    return SideView(
        name=name,
        place=replace(own, tokens=(), text=None),
        bubble=_bubble(own, other, example.kind, at) if own.text is None else None,
        text=_text(own.text, at) if own.text is not None else (),
        after=own.length - own.first - size,
        has_ended=example.position is not None and example.position >= own.length,
    )


def _bubble(own: SequencePlace, other: SequencePlace | None, kind: str, at: int | None) -> Bubble:
    if kind == LABELS_DIFFER and other is not None:
        marked = {n for n, pair in enumerate(zip(own.tokens, other.tokens, strict=False)) if _labels_differ(*pair)}
    else:
        marked = {at} if at is not None else set()
    styles = tuple(token_style(token, number in marked) for number, token in enumerate(own.tokens))
    known = [token.trained for token in own.tokens if token.trained is not None]
    return Bubble(
        number=None,
        role=None,
        tokens=own.length,
        trained=sum(known) if known else None,
        runs=token_runs(own.tokens, styles),
        findings=(),
        start=own.first,
        shown=own.tokens,
        styles=styles,
    )


def _labels_differ(one: ShownToken, other: ShownToken) -> bool:
    return (one.trained, one.label) != (other.trained, other.label)


def _text(text: str, at: int | None) -> tuple[Run, ...]:
    """Mark the first character that differs."""
    parts: Iterable[tuple[str, str]] = [("n", text)]
    if at is not None:
        parts = [("n", text[:at]), (f"n {_MARKED}", text[at : at + 1]), ("n", text[at + 1 :])]
    return tuple(Run(style, tuple(visible_parts(part))) for style, part in parts if part)
