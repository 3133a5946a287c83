"""Prints the plan of a training run (`train --dry_run`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftkit.cli.console.reports.training.show_memory import memory_lines, size_text
from sftkit.cli.console.text_lines import duration
from sftkit.core.escape import escape_to_one_line
from sftkit.redaction import redact_url
from sftkit.training.planning.plan_run import TimePlan, TrainingPlan

_BARS = "▁▂▃▄▅▆▇█"


def print_training_plan(plan: TrainingPlan, console: Console) -> None:
    """Print what a run would do and cost."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _lines(plan):
        table.add_row(name, Text(value))
    console.print(table)
    console.print("dry run: no weights were loaded and nothing was written")


def _lines(plan: TrainingPlan) -> Iterator[tuple[str, str]]:
    trained, total = plan.trained_parameters, plan.parameters
    yield "model", f"{escape_to_one_line(redact_url(plan.model))}: {total:,} parameters"
    how = "LoRA adapters" if plan.adapters else "the model"
    yield "trained", f"{trained:,} parameters of {how} ({trained / max(total, 1):.2%})"
    yield from _data(plan)
    batches, steps = plan.batches, plan.steps
    parts = [f"{batches.processes:,} devices" if batches.processes > 1 else "1 device"]
    if batches.accumulation_steps > 1:
        parts.append(f"{batches.accumulation_steps:,} micro-batches")
    unit = "packs" if batches.packed else "rows"
    size = (
        f"at most {batches.tokens_per_batch:,} tokens"
        if batches.rows_per_batch is None
        else f"{batches.rows_per_batch:,} {unit if batches.rows_per_batch > 1 else unit[:-1]}"
    )
    padding = "padded" if batches.padded else "without padding"
    if batches.padding_expected and batches.rows_per_batch is None:  # then the steps depend on it
        padding += " (expected; set padding_free to be sure)"
    yield "batch", f"{' x '.join([*parts, size])}, {padding}"
    per_device = plan.tokens_per_step / batches.processes
    yield "tokens a step", f"{plan.tokens_per_step:,.0f} ({per_device:,.0f} on each device) on average"
    most = ", or fewer if it stops early" if plan.ends_early else ""
    yield "steps", f"{steps}{most}"
    schedule = plan.schedule
    yield "learning rate", f"{schedule.peak:g}, {schedule.name}, {schedule.warmup_steps:,} steps of warm-up"
    if schedule.shares:
        yield "", picture(schedule.shares)
    if plan.evaluations.count:
        evaluated = f"{batches.evaluation_rows:,} {'packs' if batches.evaluation_packed else 'rows'}"
        yield "evaluations", f"{plan.evaluations.count:,}: {plan.evaluations.every} ({evaluated})"
    if plan.checkpoints.count:
        yield "checkpoints", f"{plan.checkpoints.count:,}: {plan.checkpoints.every}"
    yield from memory_lines(plan.memory, "packs" if batches.packed else "rows", plan.gpu)
    yield "disk", _disk(plan)
    if plan.flops is None:
        yield "FLOPs", "unknown for this model"
    else:
        yield "FLOPs", f"{plan.flops:.3g}, for training alone"
    if plan.time is not None:
        yield "time", _time(plan.time, batches.processes)
        if plan.time.price is not None:
            yield "price", f"{plan.time.price:,.2f}"
    elif plan.gpu is not None:
        unknown = "the FLOPs" if plan.flops is None else f"the peak of {plan.gpu} in the data type of the run"
        yield "time", f"not known without {unknown}"


def _data(plan: TrainingPlan) -> Iterator[tuple[str, str]]:
    work, batches = plan.work, plan.batches
    about = "" if work.measured == 1 else "about "
    share = work.trained_tokens / work.tokens if work.tokens else 0.0
    unit = "packs" if batches.packed else "rows"
    yield "data", f"{batches.rows:,} {unit}, {about}{work.tokens:,.0f} tokens an epoch ({share:.1%} trained)"
    if work.measured < 1:
        yield "", f"estimated from the first {work.measured:.2%} of the batches"


def picture(shares: Sequence[float]) -> str:
    """Draw values as a line of bars; the highest value has the full height.

    Example:
        >>> picture([0.0, 0.5, 1.0, 0.5])
        '▁▅█▅'
    """
    most = max(shares)
    return "".join(_BARS[round(max(share, 0.0) / most * (len(_BARS) - 1)) if most else 0] for share in shares)


def _disk(plan: TrainingPlan) -> str:
    weights = f"{size_text(plan.weight_bytes)} of weights at the end"
    if not plan.kept_checkpoints:
        return weights
    number = f"{plan.kept_checkpoints:,} checkpoints" if plan.kept_checkpoints > 1 else "1 checkpoint"
    if plan.state_bytes is None:
        return (
            f"{weights}, and at most {number} of {size_text(plan.weight_bytes)} of weights and the state of the"
            " optimizer, whose size is not known"
        )
    each = plan.weight_bytes + plan.state_bytes
    return f"{size_text(plan.disk_bytes or 0)}: at most {number} of {size_text(each)}, and {weights}"


def _time(time: TimePlan, devices: int) -> str:
    hardware = f"{devices:,} x {time.gpu}" if devices > 1 else time.gpu
    peak = f"{time.mfu:.4g} of {time.peak_flops / 1e12:,.4g} TFLOPS in {time.dtype}"
    return f"{duration(time.seconds)} on {hardware} (at {peak}), without evaluation and saving"
