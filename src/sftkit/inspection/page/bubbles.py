"""Rows as the page shows them: turns as bubbles with runs of tokens of equal look, and gaps between them.

All text is made visible and harmless (`core/escape.py`) here; the template escapes it for HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from sftkit.audit.findings import ANSWER_CUT, RULES
from sftkit.core.escape import TextPart, escape_to_one_line, visible_parts
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
    styles: tuple[str, ...]
    """Classes of each token that is shown."""


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

    @property
    def bubbles(self) -> tuple[Bubble, ...]:
        """The blocks that have tokens."""
        return tuple(block for block in self.blocks if isinstance(block, Bubble))

    @property
    def chips(self) -> tuple[str, ...]:
        """The reasons for which the row was chosen, and the rules of all its findings."""
        return tuple(dict.fromkeys((*self.reasons, *(found.rule for found in self.row.findings))))

    @property
    def has_findings(self) -> bool:
        """Whether it breaks a rule, which may be one about several rows."""
        return any(chip in RULES for chip in self.chips)


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
    marked = _tokens_in_findings(row)
    done = 0
    for start, stop in _ranges(row, bounds):
        if start > done:
            yield Divider(f"{start - done:,} tokens not shown", is_gap=True)
        if row.seq_lengths and start in bounds:
            number = bounds.index(start)
            text = f"sequence {number + 1:,} of {len(row.seq_lengths):,} · {row.seq_lengths[number]:,} tokens"
            if number < len(row.sources):
                text += f" · source {escape_to_one_line(row.sources[number])}"
            yield Divider(text, is_gap=False)
        yield from _bubbles(row, start, stop, marked)
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


def _bubbles(row: ShownRow, start: int, stop: int, marked: Sequence[bool]) -> Iterator[Bubble]:
    if not row.turns:
        yield _bubble(row, None, Turn(start, stop, None, 0, None), (start, stop), marked, ())
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
        yield _bubble(row, number - index + 1, turn, shown, marked, findings)


def _bubble(
    row: ShownRow,
    number: int | None,
    turn: Turn,
    shown: tuple[int, int],
    marked: Sequence[bool],
    findings: tuple[RowFinding, ...],
) -> Bubble:
    tokens = row.tokens[shown[0] : shown[1]]
    styles = tuple(map(token_style, tokens, marked[shown[0] : shown[1]]))
    runs = token_runs(tokens, styles)
    return Bubble(
        number, turn.role, turn.stop - turn.start, turn.trained_tokens, runs, findings, shown[0], tokens, styles
    )


def token_runs(tokens: Sequence[ShownToken], styles: Sequence[str]) -> tuple[Run, ...]:
    """Group adjacent tokens of the same classes."""
    runs = []
    for style, group in groupby(zip(tokens, styles, strict=True), key=lambda item: item[1]):
        members = [token for token, _ in group]
        if all(token.text is not None for token in members):
            parts = tuple(visible_parts("".join(token.text or "" for token in members)))
        else:
            parts = (TextPart(" ".join(token_text(token) for token in members), False),)
        runs.append(Run(style, parts))
    return tuple(runs)


def token_style(token: ShownToken, is_marked: bool) -> str:
    """Return the classes of a token: trained or not, its kind, special, mislabelled, in a finding."""
    names = ["t" if token.trained else "u" if token.trained is not None else "n"]
    names += [f"k-{token.kind}"] if token.kind is not None else []
    names += ["sp"] if token.special else []
    names += ["wrong"] if token.is_mislabelled else []
    names += ["f"] if is_marked else []
    return " ".join(names)


def _tokens_in_findings(row: ShownRow) -> list[bool]:
    """Return which tokens a finding is about; of an answer that is cut this is its end."""
    marked = [False] * len(row.tokens)
    for found in row.findings:
        if found.rule not in WHOLE_ROW_RULES:
            start = found.stop - 1 if found.rule == ANSWER_CUT else found.start
            marked[start : found.stop] = [True] * (found.stop - start)
    return marked
