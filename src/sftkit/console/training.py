"""What `train` prints: a line for each log event, and what the run did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from sftkit.console.streams import messages
from sftkit.training.run import TrainingReport

_SHOWN = {
    "loss": "loss {:.4f}",
    "eval_loss": "eval loss {:.4f}",
    "learning_rate": "learning rate {:.2e}",
    "grad_norm": "gradient norm {:.3g}",
    "tokens_per_second": "{:,.0f} tokens/s",
}


def print_event(event: Mapping[str, Any]) -> None:
    """One line of a log event, when it holds something that is shown."""
    parts = [form.format(event[key]) for key, form in _SHOWN.items() if isinstance(event.get(key), (int, float))]
    if "loss" in event or "eval_loss" in event:
        messages().print(Text(f"step {event.get('step', 0)}, epoch {event.get('epoch') or 0:.2f}: {', '.join(parts)}"))


def print_training(report: TrainingReport, console: Console) -> None:
    """What a run did, in a few lines."""
    rate = report.tokens / report.seconds if report.seconds else 0.0
    console.print(
        Text(
            f"{report.steps:,} steps, {report.tokens:,} tokens ({report.trained_tokens:,} trained) "
            f"in {report.seconds:,.1f} s ({rate:,.0f} tokens/s)"
        )
    )
    if report.first_loss is not None and report.last_loss is not None:
        console.print(Text(f"training loss {report.first_loss:.4f} -> {report.last_loss:.4f}"))
    if report.eval_loss is not None:
        console.print(Text(f"validation loss {report.eval_loss:.4f}"))
    console.print(Text(f"model, tokenizer and logs are in {report.output_dir}"))
