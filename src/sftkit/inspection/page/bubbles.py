"""Rows as the page shows them: turns as bubbles with runs of tokens of equal look, and gaps between them.

All text is made visible and harmless (`core/escape.py`) here; the template escapes it for HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from sftkit.audit.findings import ANSWER_CUT, ERROR
from sftkit.core.escape import TextPart, visible_parts
from sftkit.inspection.page.sampled_rows import SampledRow
from sftkit.inspection.view.row_findings import WHOLE_ROW_RULES, RowFinding
from sftkit.inspection.view.shown_row import ShownRow, ShownToken
from sftkit.inspection.view.turns import Turn

_HEAD, _TAIL = 1600, 600
"""Tokens that are shown of a long row: so many from its start, and so many from its end."""

_SEQUENCE_HEAD, _SEQUENCE_TAIL = 500, 200
"""The same for each sequence of a pack."""

_MAX_CHARACTERS = 6000
"""Characters that are shown of a row of text."""

_MAX_MARKED = 40
"""Tokens of a finding that are marked; longer ones would hide the text."""


@dataclass(frozen=True)
class Run:
    """Adjacent tokens that look the same."""

    style: str
    """Classes of the style sheet."""
    parts: tuple[TextPart, ...]


@dataclass(frozen=True)
class Bubble:
    """A turn, or the part of it that is shown."""

    number: int | None
    """From 1, within its row or its sequence; None where turns are unknown."""
    role: str | None
    tokens: int
    """Of the whole turn."""
    trained: int | None
    runs: tuple[Run, ...]
    findings: tuple[RowFinding, ...]
    start: int
    """Position of the first token that is shown."""
    shown: tuple[ShownToken, ...]


@dataclass(frozen=True)
class Divider:
    """A line between bubbles: the start of a sequence in a pack, or tokens that are not shown."""

    text: str
    is_gap: bool


@dataclass(frozen=True)
class RowView:
    """A row of the page."""

    key: str
    """Its id in the page."""
    row: ShownRow
    """Without its tokens and turns: a row may have hundreds of thousands, and the blocks hold what is shown."""
    reasons: tuple[str, ...]
    findings: tuple[RowFinding, ...]
    """About the row as a whole, or about tokens that are not shown."""
    blocks: tuple[Bubble | Divider, ...]
    text: tuple[TextPart, ...]
    """The text of a row of text."""


def row_view(sampled: SampledRow) -> RowView:
    """Arrange one row."""
    row = sampled.row
    blocks = tuple(_blocks(row))
    placed = {id(found) for block in blocks if isinstance(block, Bubble) for found in block.findings}
    return RowView(
        key=f"row-{row.split}-{row.row}",
        row=replace(row, tokens=(), turns=()),
        reasons=sampled.reasons,
        findings=tuple(found for found in row.findings if id(found) not in placed),
        blocks=blocks,
        text=tuple(visible_parts(row.text[:_MAX_CHARACTERS])) if row.text is not None else (),
    )


def token_text(token: ShownToken) -> str:
    """Return what a token adds to the text, visible; its id in angle brackets where that is unknown."""
    if token.text is None:
        return f"<{token.id}>"
    return "".join(part.text for part in visible_parts(token.text))


def _blocks(row: ShownRow) -> Iterator[Bubble | Divider]:
    bounds = [0, *accumulate(row.seq_lengths)]
    looks = _finding_levels(row)
    done = 0
    for start, stop in _ranges(row, bounds):
        if start > done:
            yield Divider(f"{start - done:,} tokens not shown", is_gap=True)
        if row.seq_lengths and start in bounds:
            number = bounds.index(start)
            yield Divider(
                f"sequence {number + 1:,} of {len(row.seq_lengths):,} · {row.seq_lengths[number]:,} tokens",
                is_gap=False,
            )
        yield from _bubbles(row, start, stop, looks)
        done = stop
    if done < row.length and row.text is None:
        yield Divider(f"{row.length - done:,} tokens not shown", is_gap=True)


def _ranges(row: ShownRow, bounds: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the tokens [start, stop) that are shown."""
    if row.seq_lengths:
        for number in row.on_page:
            yield from _head_and_tail(bounds[number], bounds[number + 1], _SEQUENCE_HEAD, _SEQUENCE_TAIL)
    elif row.tokens:
        yield from _head_and_tail(0, len(row.tokens), _HEAD, _TAIL)


def _head_and_tail(start: int, stop: int, head: int, tail: int) -> Iterator[tuple[int, int]]:
    if stop - start <= head + tail:
        yield start, stop
        return
    yield start, start + head
    yield stop - tail, stop


def _bubbles(row: ShownRow, start: int, stop: int, looks: Sequence[str]) -> Iterator[Bubble]:
    if not row.turns:
        yield _bubble(row, None, Turn(start, stop, None, 0, None), (start, stop), looks, ())
        return
    first: dict[int, int] = {}
    for number, turn in enumerate(row.turns):
        index = first.setdefault(turn.sequence, number)
        shown = max(start, turn.start), min(stop, turn.stop)
        if shown[0] >= shown[1]:
            continue
        # A turn whose middle is left out is two bubbles; its findings belong to one of them.
        is_last = turn.stop <= stop
        findings = tuple(found for found in row.findings if found.turn == number) if is_last else ()
        yield _bubble(row, number - index + 1, turn, shown, looks, findings)


def _bubble(
    row: ShownRow,
    number: int | None,
    turn: Turn,
    shown: tuple[int, int],
    looks: Sequence[str],
    findings: tuple[RowFinding, ...],
) -> Bubble:
    tokens = row.tokens[shown[0] : shown[1]]
    levels = looks[shown[0] : shown[1]]
    runs = []
    for style, group in groupby(zip(tokens, levels, strict=True), key=lambda item: _style(*item)):
        members = [token for token, _ in group]
        if all(token.text is not None for token in members):
            parts = tuple(visible_parts("".join(token.text or "" for token in members)))
        else:
            parts = (TextPart(" ".join(token_text(token) for token in members), False),)
        runs.append(Run(style, parts))
    return Bubble(
        number, turn.role, turn.stop - turn.start, turn.trained_tokens, tuple(runs), findings, shown[0], tokens
    )


def token_style(token: ShownToken) -> str:
    """Return the classes of a token: trained or not, its kind, special, mislabelled."""
    names = ["t" if token.trained else "u" if token.trained is not None else "n"]
    names += [f"k-{token.kind}"] if token.kind is not None else []
    names += ["sp"] if token.special else []
    names += ["wrong"] if token.is_mislabelled else []
    return " ".join(names)


def _style(token: ShownToken, level: str) -> str:
    return f"{token_style(token)} f-{level}" if level else token_style(token)


def _finding_levels(row: ShownRow) -> list[str]:
    """Return for each token the level of the worst finding about it, empty where there is none."""
    levels = [""] * len(row.tokens)
    for found in row.findings:
        if found.rule in WHOLE_ROW_RULES:
            continue
        start = found.stop - 1 if found.rule == ANSWER_CUT else found.start
        for position in range(start, min(found.stop, start + _MAX_MARKED, len(levels))):
            if levels[position] != ERROR:
                levels[position] = found.level
    return levels
