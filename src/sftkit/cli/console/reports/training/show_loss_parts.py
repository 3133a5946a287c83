"""Shows the loss of each source and of each kind of tokens, in an evaluation and at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from sftkit.core.escape import visible_parts
from sftkit.training.training_report import PartReport

_LOSS = "eval_loss/"
_MOST_ROWS = 20


def evaluation_parts(event: Mapping[str, Any]) -> Table | None:
    """The losses by source and kind in a log event of an evaluation as a table; None if it has none."""
    names = [key.removeprefix(_LOSS) for key in event if key.startswith(_LOSS)]
    rows = [
        (
            name,
            _number(_logged(event, f"{_LOSS}{name}"), ".4f"),
            _number(_logged(event, f"eval_perplexity/{name}"), ",.4g"),
            _tokens(int(event.get(f"eval_trained_tokens/{name}", 0)), event.get(f"eval_weight_share/{name}")),
        )
        for name in names
    ]
    return _table(("", "eval loss", "perplexity", "trained tokens"), rows) if rows else None


def report_parts(parts: Mapping[str, PartReport]) -> Table | None:
    """The losses by source and kind of a finished run as a table; None if it has none."""
    rows = [
        (
            name,
            _number(part.loss, ".4f"),
            _number(part.eval_loss, ".4f"),
            _number(part.eval_perplexity, ",.4g"),
            f"{part.trained_tokens:,}",
        )
        for name, part in parts.items()
    ]
    header = ("", "training loss", "validation loss", "perplexity", "trained tokens")
    # A run without evaluation has no losses of validation data, and an evaluation no others.
    kept = [0, *(column for column in range(1, len(header)) if any(row[column] not in ("", "0") for row in rows))]
    if not rows:
        return None
    return _table([header[column] for column in kept], [[row[column] for column in kept] for row in rows])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, name in enumerate(header):
        table.add_column(name, justify="right" if column else "left", overflow="fold", no_wrap=bool(column))
    for name, *numbers in rows[:_MOST_ROWS]:
        table.add_row(_safe(name), *map(Text, numbers))
    if len(rows) > _MOST_ROWS:
        table.add_row(Text(f"and {len(rows) - _MOST_ROWS} more in the log", style="dim"))
    return table


def _logged(event: Mapping[str, Any], key: str) -> float:
    """A number in the log, where null stands for one that is not finite."""
    value = event.get(key)
    return math.nan if value is None else float(value)


def _number(value: Any, form: str) -> str:
    """A number; nothing for one that is not known."""
    if value is None:
        return ""
    return format(value, form) if math.isfinite(value) else "not finite"


def _tokens(tokens: int, share: float | None) -> str:
    return f"{tokens:,}" if share is None else f"{tokens:,} ({share:.1%})"


def _safe(text: str) -> Text:
    return Text.assemble(*((part.text, "magenta") if part.altered else part.text for part in visible_parts(text)))
