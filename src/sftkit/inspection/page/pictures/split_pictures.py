"""The pictures of one split."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sftkit.core.token_kinds import TRAINED_KINDS
from sftkit.inspection.page.measurements import FILL_BINS, SHARE_BINS, SplitMeasures
from sftkit.inspection.page.pictures.picture import Drawing, Picture
from sftkit.inspection.page.pictures.scales import nice_step, short_count
from sftkit.inspection.page.pictures.svg_bars import Bar, Mark, column_chart, row_chart
from sftkit.inspection.page.row_candidates import order_name
from sftkit.inspection.page.too_long import TooLongRows
from sftkit.inspection.summary.dataset_summary import SplitSummary

_LINEAR_BINS = 32
_MOST_MESSAGES = 16


def split_pictures(
    split: SplitSummary, measures: SplitMeasures, limit: int | None, too_long: TooLongRows | None
) -> list[Picture]:
    """Draw what is known about the rows of a split.

    Args:
        split: its summary.
        measures: distributions over its rows.
        limit: `max_seq_length` of the config, if it has one.
        too_long: rows that are in no split because of their length; None for all splits but one.
    """
    unit = "rows" if split.packs is None else "sequences"
    found = [_lengths(split, measures, limit, unit, too_long)] if split.lengths is not None else []
    if measures.has_labels:
        found.append(_shares(split, measures, unit))
    if split.trained_by_kind is not None:
        found.append(_kinds(split, split.trained_by_kind))
    if any(measures.messages):
        found.append(_messages(split, measures, unit))
        found.append(_orders(split, measures))
    if split.packs is not None and measures.fills.any():
        found.append(_fills(split, measures, split.packs.fill_rate))
    return found


def _lengths(
    split: SplitSummary, measures: SplitMeasures, limit: int | None, unit: str, too_long: TooLongRows | None
) -> Picture:
    assert split.lengths is not None
    of = "tokens" if split.tokens is not None else "characters"
    title = f"Length of {unit}"
    at_limit = measures.lengths[limit] if limit is not None else 0
    description = (
        f"{unit} of {split.name} by length in {of}: shortest {split.lengths.min:,}, median {split.lengths.median:,g}, "
        f"longest {split.lengths.max:,}"
    )
    drawings = []
    removed = too_long.by_length if too_long is not None else {}
    for name, bins, removed_of in (
        ("doubling bins", _doubling({**dict.fromkeys(removed, 0), **split.lengths.histogram}), removed),
        ("equal bins", _linear(measures.lengths, split.lengths.max), {}),
    ):
        total = sum(bins.values())
        bars = [
            Bar(
                label=short_count(low),
                value=rows,
                tip=f"{_span(low, high)} {of}: {_of_total(rows, total, unit)}{_removed(removed_of.get(str(low), 0))}",
                marked=at_limit if limit is not None and low <= limit <= high else 0,
                removed=removed_of.get(str(low), 0),
            )
            for (low, high), rows in bins.items()
        ]
        names = [_span(low, high) for low, high in bins]
        rest = too_long.rows - sum(removed_of.values()) if too_long is not None else 0
        if rest:  # their bins are not known
            bars.append(Bar("longer", 0, f"longer than allowed: 0 {unit}{_removed(rest)}", removed=rest))
            names.append("longer")
        mark = _limit_mark(list(bins), limit) if limit is not None else None
        legend = (("bar", unit), ("removed", "removed as too long")) if too_long is not None else ()
        svg = column_chart(f"{title}, {name}", description, bars, axis=of, unit=unit, mark=mark, legend=legend)
        if too_long is None:
            drawings.append(Drawing(name, svg, (of, unit), list(zip(names, bins.values(), strict=True))))
        else:
            table = [(each, bar.value, bar.removed) for each, bar in zip(names, bars, strict=True)]
            drawings.append(Drawing(name, svg, (of, unit, "removed as too long"), table))
    return Picture("lengths", title, tuple(drawings), _length_note(limit, at_limit, unit, too_long))


def _length_note(limit: int | None, at_limit: int, unit: str, too_long: TooLongRows | None) -> str:
    notes = []
    if limit is not None:
        notes.append(f"The line is max_seq_length {limit:,}.")
    if at_limit:
        notes.append(f"{at_limit:,} {unit} are exactly as long, and may have been cut.")
    if too_long is not None:
        longer = "max_seq_length or a pack" if limit is not None else "allowed"
        notes.append(f"{too_long.rows:,} rows of the sources are longer than {longer} and were dropped or quarantined.")
        if too_long.of_unknown_length:
            notes.append(f"The lengths of {too_long.of_unknown_length:,} of them are not known.")
    return " ".join(notes)


def _removed(rows: int) -> str:
    return f"; {rows:,} removed as too long" if rows else ""


def _limit_mark(bins: Sequence[tuple[int, int]], limit: int) -> Mark | None:
    """Return where a limit stands among bins; None if it is far beyond the last one."""
    label = f"max_seq_length {limit:,}"
    for number, (low, high) in enumerate(bins):
        if low <= limit <= high:
            return Mark(number + (limit - low + 1) / (high - low + 1), label)
    return Mark(len(bins), f"{label} →") if bins else None


def _doubling(histogram: Mapping[str, int]) -> dict[tuple[int, int], int]:
    """Return the bins of a summary, with the empty ones between them."""
    lows = [int(low) for low in histogram]
    bins, low = {}, min(lows)
    while low <= max(lows):
        bins[low, max(0, 2 * low - 1)] = histogram.get(str(low), 0)
        low = max(1, 2 * low)
    return bins


def _linear(lengths: Counter[int], longest: int) -> dict[tuple[int, int], int]:
    step = nice_step(longest + 1, _LINEAR_BINS)
    bins = {(low, low + step - 1): 0 for low in range(0, longest + 1, step)}
    for length, rows in lengths.items():
        low = length // step * step
        bins[low, low + step - 1] += rows
    return bins


def _shares(split: SplitSummary, measures: SplitMeasures, unit: str) -> Picture:
    bars = list(_percent_bars(measures.shares.tolist(), SHARE_BINS, unit, "trained"))
    description = f"{unit} of {split.name} by the share of their tokens that carries a loss"
    svg = column_chart("Trained share", description, bars, axis="% of tokens trained", unit=unit)
    table = [(f"{bar.label} to {int(bar.label) + 100 // SHARE_BINS} %", bar.value) for bar in bars]
    note = f"{measures.untrained:,} {unit} have no trained token at all." if measures.untrained else ""
    return Picture("shares", f"Trained share of {unit}", (Drawing("", svg, ("trained", unit), table),), note)


def _orders(split: SplitSummary, measures: SplitMeasures) -> Picture:
    total = sum(measures.orders.values())
    rare = set(measures.rare_orders())
    bars = [
        Bar(order_name(order), messages, f"{order_name(order)}: {_of_total(messages, total, 'messages')}")
        for order, messages in sorted(measures.orders.items(), key=lambda item: -item[1])
    ]
    svg = row_chart("Order of roles", f"messages of {split.name} by the role before them and their own role", bars)
    table = [(bar.label, bar.value, _share(bar.value, total)) for bar in bars]
    note = ""
    if rare:
        which = "One order is" if len(rare) == 1 else f"{len(rare)} orders are"
        note = f"{which} rare, with examples among the rows: a header that stands in the content starts a message, too."
    return Picture("orders", "Order of roles", (Drawing("", svg, ("order", "messages", "share"), table),), note)


def _fills(split: SplitSummary, measures: SplitMeasures, rate: float) -> Picture:
    bars = list(_percent_bars(measures.fills.tolist(), FILL_BINS, "packs", "full"))
    description = f"packs of {split.name} by tokens / pack length; {rate:.1%} on average"
    svg = column_chart("Fill of packs", description, bars, axis="% full", unit="packs")
    table = [(f"{bar.label} to {int(bar.label) + 100 // FILL_BINS} %", bar.value) for bar in bars]
    note = f"{rate:.1%} of all positions hold a token."
    return Picture("fills", "Fill of packs", (Drawing("", svg, ("full", "packs"), table),), note)


def _percent_bars(counts: Sequence[int], bins: int, unit: str, what: str) -> Iterator[Bar]:
    width = 100 // bins
    for number, rows in enumerate(counts):
        tip = f"{number * width} to {(number + 1) * width} % {what}: {_of_total(rows, sum(counts), unit)}"
        yield Bar(str(number * width), rows, tip)


def _kinds(split: SplitSummary, kinds: Mapping[str, int]) -> Picture:
    total = sum(kinds.values())
    bars = [
        Bar(
            kind.label.replace("_", " "),
            kinds.get(kind.label, 0),
            f"{kind.label.replace('_', ' ')}: {_of_total(kinds.get(kind.label, 0), total, 'trained tokens')}",
            style=f"kind-{kind.label}",
        )
        for kind in TRAINED_KINDS
    ]
    svg = row_chart("Trained tokens by kind", f"trained tokens of {split.name} by what of a turn they are", bars)
    table = [(bar.label, bar.value, _share(bar.value, total)) for bar in bars]
    return Picture("kinds", "Trained tokens by kind", (Drawing("", svg, ("kind", "tokens", "share"), table),))


def _messages(split: SplitSummary, measures: SplitMeasures, unit: str) -> Picture:
    counts: Counter[int] = Counter()
    for number, rows in measures.messages.items():
        counts[min(number, _MOST_MESSAGES)] += rows
    total = sum(counts.values())
    bars = []
    for number in range(0 if counts[0] else 1, max(counts) + 1):
        name = f"{number}+" if number == _MOST_MESSAGES else str(number)
        bars.append(Bar(name, counts[number], f"{name} messages: {_of_total(counts[number], total, unit)}"))
    description = f"{unit} of {split.name} by number of messages"
    svg = column_chart("Turns", description, bars, axis="messages", unit=unit)
    table = [(bar.label, bar.value) for bar in bars]
    mean = math.fsum(number * rows for number, rows in measures.messages.items()) / max(1, total)
    note = f"{mean:.1f} messages on average; messages begin where the chat template writes a header."
    if counts[0]:
        note += f" {counts[0]:,} {unit} have none: they are no conversations."
    return Picture("turns", f"Turns of {unit}", (Drawing("", svg, ("messages", unit), table),), note)


def _span(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _of_total(count: int, total: int, unit: str) -> str:
    return f"{count:,} {unit} ({_share(count, total)})"
