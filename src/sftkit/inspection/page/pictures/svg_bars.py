"""Bar charts as SVG. Plain SVG needs no library in the page, prints well, and scales.

Colours come from classes of the page's style sheet, so that a chart follows the light and the dark theme. Everything
that is not a number is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sftkit.core.escape import escape_to_one_line
from sftkit.inspection.page.pictures.scales import axis_ticks, short_count

_WIDTH, _HEIGHT = 460, 256
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 32, 46
_LABEL_WIDTH = 7.2
"""Of a character, in the units of the picture."""

_LINE = 44
_MAX_NAME = 48


@dataclass(frozen=True)
class Bar:
    """One bar."""

    label: str
    """Below the bar, or above it where bars are horizontal."""
    value: int
    tip: str
    """What it shows, in words."""
    marked: int = 0
    """How much of the value is drawn hatched."""
    removed: int = 0
    """What is drawn above the value as an outline: rows that are not there."""
    style: str = ""
    """Last part of its class."""


@dataclass(frozen=True)
class Mark:
    """A vertical line."""

    position: float
    """Bars to its left, with fractions."""
    label: str


def column_chart(
    title: str,
    description: str,
    bars: Sequence[Bar],
    *,
    axis: str,
    unit: str,
    mark: Mark | None = None,
    legend: Sequence[tuple[str, str]] = (),
) -> Markup:
    """Draw vertical bars side by side.

    Args:
        title: name of the chart, for readers who cannot see it.
        description: what it shows, for the same readers.
        bars: the bars, from left to right.
        axis: name of the horizontal axis.
        unit: what the bars count.
        mark: a line across the bars.
        legend: classes of bars, and what they are.
    """
    ticks = axis_ticks(max((bar.value + bar.removed for bar in bars), default=0))
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = width / max(1, len(bars))
    scale = height / ticks[-1]
    floor = _TOP + height
    parts = [_open(title, description, _HEIGHT)]
    for tick in ticks:
        y = floor - tick * scale
        parts.append(_tag("line", "grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
        parts.append(_text(short_count(tick), "tick end", _LEFT - 6, y + 4))
    parts.append(_text(unit, "axis", 2, 12))
    for number, bar in enumerate(bars):
        left, drawn = _LEFT + number * step, _drawn(bar.value, scale)
        gap = min(3.0, step * 0.14)
        parts.append(Markup('<g class="col" data-tip="{}">').format(escape_to_one_line(bar.tip)))
        parts.append(_tag("rect", "hit", x=left, y=_TOP, width=step, height=height))
        parts.append(
            _tag("rect", f"bar {bar.style}", x=left + gap, y=floor - drawn, width=step - 2 * gap, height=drawn, rx=2)
        )
        if bar.marked:
            part = _drawn(bar.marked, scale)
            parts.append(_tag("rect", "hatched", x=left + gap, y=floor - part, width=step - 2 * gap, height=part, rx=2))
        if bar.removed:
            part = _drawn(bar.removed, scale)
            y = floor - drawn - part
            parts.append(_tag("rect", "removed", x=left + gap, y=y, width=step - 2 * gap, height=part, rx=2))
        parts.append(Markup("</g>"))
    parts += _legend(legend)
    parts += _column_labels(bars, step, floor)
    parts.append(_text(axis, "axis end", _WIDTH - _RIGHT, _HEIGHT - 6))
    if mark is not None:
        x = _LEFT + min(max(mark.position, 0), len(bars)) * step
        parts.append(_tag("line", "mark", x1=x, x2=x, y1=18, y2=floor))
        parts.append(_text(mark.label, "marked end" if x > _WIDTH / 2 else "marked", x, 12))
    return Markup("").join([*parts, Markup("</svg>")])


def row_chart(title: str, description: str, bars: Sequence[Bar]) -> Markup:
    """Draw horizontal bars below each other, each below its label. The arguments are those of `column_chart`."""
    largest = max((bar.value for bar in bars), default=0) or 1
    parts = [_open(title, description, _LINE * len(bars) + 8)]
    for number, bar in enumerate(bars):
        y = number * _LINE + 18
        name = escape_to_one_line(bar.label)
        name = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
        drawn = _drawn(bar.value, (_WIDTH - 2) / largest)
        parts.append(Markup('<g class="col" data-tip="{}">').format(escape_to_one_line(bar.tip)))
        parts.append(_tag("rect", "hit", x=0, y=y - 16, width=_WIDTH, height=_LINE - 2))
        parts.append(_text(name, "name", 1, y))
        parts.append(_text(f"{bar.value:,}", "value end", _WIDTH - 1, y))
        parts.append(_tag("rect", "rail", x=1, y=y + 7, width=_WIDTH - 2, height=12, rx=3))
        parts.append(_tag("rect", f"bar {bar.style}", x=1, y=y + 7, width=drawn, height=12, rx=3))
        parts.append(Markup("</g>"))
    return Markup("").join([*parts, Markup("</svg>")])


def _legend(entries: Sequence[tuple[str, str]]) -> list[Markup]:
    """Draw a small bar of each class with its name, below the axis."""
    parts, x = [], 2.0
    for style, name in entries:
        parts += [_tag("rect", style, x=x, y=_HEIGHT - 15, width=10, height=10, rx=2)]
        parts += [_text(name, "tick", x + 15, _HEIGHT - 6)]
        x += 15 + len(name) * _LABEL_WIDTH + 14
    return parts


def _column_labels(bars: Sequence[Bar], step: float, floor: float) -> list[Markup]:
    """Label as many bars as there is room for, always the same distance apart."""
    widest = max((len(bar.label) for bar in bars), default=1) * _LABEL_WIDTH + 6
    every = max(1, -int(-widest // step))
    return [
        _text(bar.label, "tick middle", _LEFT + (number + 0.5) * step, floor + 16)
        for number, bar in enumerate(bars)
        if number % every == 0
    ]


def _drawn(value: int, scale: float) -> float:
    """Return the length of a bar; one that is not 0 stays visible."""
    return max(1.5, value * scale) if value else 0.0


def _open(title: str, description: str, height: float) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" xmlns="http://www.w3.org/2000/svg"><title>{}</title><desc>{}</desc>'
    ).format(_WIDTH, f"{height:g}", escape_to_one_line(title), escape_to_one_line(description))


def _tag(name: str, style: str, **numbers: float) -> Markup:
    attributes = Markup(" ").join(Markup('{}="{}"').format(key, f"{value:.6g}") for key, value in numbers.items())
    return Markup('<{} class="{}" {}/>').format(Markup(name), style.strip(), attributes)


def _text(text: str, style: str, x: float, y: float) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
        style, f"{x:.6g}", f"{y:.6g}", escape_to_one_line(text)
    )
