"""What `train` shows while it runs and at the end."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sftkit.cli.console import time_left
from sftkit.cli.console.reports.training.show_training import (
    TrainingBar,
    TrainingLines,
    event_line,
    print_training,
    sample_text,
)
from sftkit.cli.console.show_phases import NoPhases
from sftkit.training.callbacks.listener import Sample
from sftkit.training.metrics.nonfinite_losses import NonfiniteLosses
from sftkit.training.training_report import PartReport, TrainingReport

TRAINED = {
    "step": 30, "epoch": 0.789, "loss": 3.14159, "grad_norm": 1.234, "learning_rate": 1.5e-3,
    "tokens_per_second": 12345.6, "trained_tokens_per_second": 99.0, "padding_share": 0.5, "mfu": 0.412,
}  # fmt: skip
EVALUATED = {"step": 30, "epoch": 0.789, "eval_loss": 2.5, "eval_perplexity": math.exp(2.5), "eval_runtime": 1.0}


REPORT: dict[str, Any] = {
    "steps": 60, "epochs": 1.579, "first_loss": 5.9509, "last_loss": 2.16989, "eval_loss": 2.5,
    "eval_perplexity": math.exp(2.5), "seconds": 10.0,
    "tokens": 63_258, "trained_tokens": 28_122, "padding_share": 0.125, "mfu": 0.4121, "peak_memory": 3 << 29,
    "on_gpu": True, "output_dir": Path("out"), "nonfinite": NonfiniteLosses(),
}  # fmt: skip


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            TRAINED,
            "step 30, epoch 0.79: loss 3.1416, learning rate 1.50e-03, gradient norm 1.23, 12,346 tokens/s, MFU 41.2%",
        ),
        (EVALUATED, "step 30, epoch 0.79: eval loss 2.5000, perplexity 12.18"),
        (
            {"step": 1, "epoch": None, "eval_loss": 900.0, "eval_perplexity": None},
            "step 1, epoch 0.00: eval loss 900.0000",
        ),
    ],
)
def test_an_event_is_a_line(event: dict[str, Any], line: str) -> None:
    assert event_line(event).plain == line


def test_without_a_terminal_every_event_is_a_line_and_the_last_one_of_all_is_none() -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = TrainingLines(console, NoPhases())
    lines.on_note("trains 1.0 k of 1.0 k parameters (100.00%)")
    lines.on_step(30, 60)
    for event in (TRAINED, EVALUATED, {"step": 60, "epoch": 1.0, "train_runtime": 3.0, "train_loss": 1.0}):
        lines.on_log(event)
    assert [line.split(":")[0] for line in written(console).splitlines()] == [
        "trains 1.0 k of 1.0 k parameters (100.00%)",
        "step 30 of 60, epoch 0.79",
        "step 30 of 60, epoch 0.79",
    ]


def test_on_a_terminal_a_bar_has_the_numbers_and_evaluations_pass_by() -> None:
    console = terminal()
    bar = TrainingBar(console, NoPhases())
    bar.on_step(20, 60)
    bar.on_step(30, 60)
    bar.on_log(TRAINED)
    bar.on_log(EVALUATED)
    bar.close()
    shown = written(console)
    assert "step 30 of 60, epoch 0.79: eval loss 2.5000, perplexity 12.18\n" in shown
    assert "learning rate" not in shown  # training's numbers are on the bar alone
    last = shown[shown.rindex("step") :]
    assert "30/60" in last
    assert "loss 3.1416, 12,346 tokens/s" in last


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time_left.time, "monotonic", lambda: now[0])
    return now


def run_steps(display: TrainingLines, clock: list[float]) -> None:
    """A run of 1,000 steps that resumes at 10: a slow first step, then steps of 4 seconds, and evaluations."""
    display.on_step(10, 1000)
    for step, seconds in ((11, 500.0), (12, 4.0), (13, 4.0)):
        clock[0] += seconds
        display.on_step(step, 1000)
        display.on_log({"step": step, "epoch": 1.0, "loss": 2.0})
        clock[0] += 3000.0
        display.on_log({"step": step, "epoch": 1.0, "eval_loss": 2.0})
        clock[0] += 70.0
        display.on_sample(Sample(step, "a", "b"))


def test_lines_have_the_time_left_from_the_second_step_on(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=200)
    run_steps(TrainingLines(console, NoPhases()), clock)
    assert [line for line in written(console).splitlines() if ": loss" in line] == [
        "step 11 of 1,000, epoch 1.00: loss 2.0000",
        "step 12 of 1,000, epoch 1.00: loss 2.0000, time left 1 h 5 min",
        "step 13 of 1,000, epoch 1.00: loss 2.0000, time left 1 h 5 min",
    ]
    assert "eval loss 2.0000, time left" not in written(console)


def test_the_last_line_has_no_time_left(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = TrainingLines(console, NoPhases())
    for step in range(4):
        clock[0] += 1
        lines.on_step(step, 3)
        lines.on_log({"step": step, "epoch": 1.0, "loss": 2.0})
    assert written(console).splitlines()[-2:] == [
        "step 2 of 3, epoch 1.00: loss 2.0000, time left 1 s",
        "step 3 of 3, epoch 1.00: loss 2.0000",
    ]


def test_the_bar_has_the_same_time_left(clock: list[float]) -> None:
    console = terminal()
    bar = TrainingBar(console, NoPhases())
    run_steps(bar, clock)
    bar.close()
    shown = written(console)
    assert "13/1000" in shown
    assert "1 h 5 min left" in shown[shown.rindex("step") :]


def test_a_run_that_fails_before_its_first_step_leaves_no_bar() -> None:
    console = terminal()
    TrainingBar(console, NoPhases()).close()
    assert "0/" not in written(console)


def test_nothing_in_a_sample_reaches_the_terminal_as_a_command() -> None:
    shown = sample_text(Sample(4, "two\nlines", "red \x1b[31m \u202e back\x07 [bold]no markup[/bold]")).plain
    assert shown == (
        "sample at step 4\n"
        "  prompt: two\n          lines\n"
        "  answer: red \\x1b[31m \\u202e back\\x07 [bold]no markup[/bold]"
    )
    console = terminal()
    TrainingLines(console, NoPhases()).on_sample(Sample(4, "a", "\x1b[2J"))
    assert "\x1b[2J" not in written(console)


def summary(**changes: Any) -> dict[str, str]:
    """The summary of a run with something in every place, but for the changes."""
    console = Console(file=io.StringIO(), width=160)
    print_training(TrainingReport(**{**REPORT, **changes}), console)
    rows = [line.split("  ", 1) for line in written(console).splitlines()]
    return {name: value.strip() for name, value in rows}


def test_the_summary_says_what_the_run_did() -> None:
    assert summary() == {
        "steps": "60 (1.58 epochs)",
        "time": "10.0 s",
        "tokens": "63,258 tokens (28,122 trained)",
        "speed": "6,326 tokens/s (2,812 trained)",
        "padding": "12.5%",
        "MFU": "41.2%",
        "training loss": "5.9509 -> 2.1699",
        "validation loss": "2.5000 (perplexity 12.18)",
        "peak memory": "1.50 GiB (GPU)",
        "written to": "out",
    }


def test_the_summary_says_which_losses_were_not_finite() -> None:
    shown = summary(last_loss=math.nan, nonfinite=NonfiniteLosses(first_step=7, last_step=60, in_a_row=2))
    assert shown["training loss"] == "5.9509 -> not finite"
    assert shown["not finite"] == "the loss of some steps between 7 and 60"


def test_an_evaluation_with_sources_and_kinds_has_a_table() -> None:
    event = EVALUATED | {
        "eval_loss/source/math": 2.0, "eval_perplexity/source/math": math.exp(2.0),
        "eval_weight_share/source/math": 0.25, "eval_trained_tokens/source/math": 12_345,
        "eval_loss/source/\x1b[31mcode": None, "eval_perplexity/source/\x1b[31mcode": None,
        "eval_weight_share/source/\x1b[31mcode": 0.75, "eval_trained_tokens/source/\x1b[31mcode": 9,
        "eval_loss/stop": 900.0, "eval_perplexity/stop": None,
        "eval_weight_share/stop": 0.01, "eval_trained_tokens/stop": 3,
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=80)
    TrainingLines(console, NoPhases()).on_log(event)
    first, *table = written(console).splitlines()
    assert first == "step 30, epoch 0.79: eval loss 2.5000, perplexity 12.18"
    assert [line.split() for line in table] == [
        ["eval", "loss", "perplexity", "trained", "tokens"],
        ["source/math", "2.0000", "7.389", "12,345", "(25.0%)"],
        ["source/\\x1b[31mcode", "not", "finite", "not", "finite", "9", "(75.0%)"],
        ["stop", "900.0000", "not", "finite", "3", "(1.0%)"],
    ]


def test_many_sources_do_not_fill_the_screen() -> None:
    parts = {f"source/{number}": PartReport(1.0, None, None, 5) for number in range(50)}
    console = Console(file=io.StringIO(), width=80)
    print_training(TrainingReport(**REPORT, parts=parts), console)
    shown = written(console).splitlines()
    assert shown[-1].strip() == "and 30 more in the log"
    assert shown[-22].split() == ["training", "loss", "trained", "tokens"]  # nothing was evaluated


def test_the_summary_ends_with_the_losses_of_sources_and_kinds() -> None:
    parts = {"source/math": PartReport(2.0, 2.5, 12.1825, 1234), "stop": PartReport(math.nan, 0.1, 1.1052, 60)}
    console = Console(file=io.StringIO(), width=80)
    print_training(TrainingReport(**REPORT, parts=parts), console)
    assert [line.split() for line in written(console).splitlines()[-3:]] == [
        ["training", "loss", "validation", "loss", "perplexity", "trained", "tokens"],
        ["source/math", "2.0000", "2.5000", "12.18", "1,234"],
        ["stop", "not", "finite", "0.1000", "1.105", "60"],
    ]


def test_the_summary_of_an_evaluation_has_no_steps() -> None:
    assert "steps" not in summary(steps=0)


def test_the_summary_leaves_out_what_is_not_known() -> None:
    nothing = {"first_loss": None, "last_loss": None, "eval_loss": None, "padding_share": None, "mfu": None}
    assert set(summary(**nothing, peak_memory=0)) == {"steps", "time", "tokens", "speed", "written to"}
    assert summary(on_gpu=False)["peak memory"] == "1.50 GiB (main memory)"
    assert summary(eval_loss=2000.0, eval_perplexity=math.inf)["validation loss"] == "2000.0000 (perplexity inf)"
