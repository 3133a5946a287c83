"""What `train` shows before its first step."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sftkit.cli.console.reports.training.show_training import TrainingBar, TrainingLines
from sftkit.cli.console.show_phases import PhaseLines, PhaseSpinner, ProgressAmongPhases, show_phases
from sftkit.core.progress import SilentProgress

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
NEVER = 1e6
"""Seconds after which nothing is waiting any more."""


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Recorded:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def show(self, phase: str) -> None:
        self.seen.append(phase)

    def hide(self) -> None:
        self.seen.append("")


def test_without_a_terminal_a_long_phase_is_a_line_and_a_short_one_is_none() -> None:
    console = Console(file=io.StringIO(), width=200)
    phases = PhaseLines(console, seconds=0)
    for phase in ("loading the model", "loading the model", "first step"):
        phases.show(phase)
        assert phases._timer is not None
        phases._timer.join()
    assert written(console) == "loading the model ...\nfirst step ...\n"
    phases = PhaseLines(console, seconds=NEVER)
    for _ in range(2):
        phases.show("loading")
        timer = phases._timer
        assert timer is not None
        phases.hide()
        timer.join()  # it was cancelled
    assert "loading ..." not in written(console).splitlines()


def test_on_a_terminal_a_phase_is_a_line_that_disappears() -> None:
    console = terminal()
    phases = PhaseSpinner(console)
    phases.show("loading the model from \x1b[2J" + "long/" * 40)
    console.print("a note")
    phases.hide()
    phases.hide()
    shown = written(console)
    assert "a note\n" in shown
    assert "loading the model from \\x1b[2J" in shown
    assert shown.count("\n") < 4  # it is cut off, not wrapped
    assert shown.count(HIDE_CURSOR) == shown.count(SHOW_CURSOR) == 1
    phases.show("first step")
    phases.hide()
    assert written(console).count(SHOW_CURSOR) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_ends_a_phase_leaves_a_clean_terminal(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console = terminal()

    def load() -> None:
        with show_phases(console) as phases:
            phases.show("loading")
            raise error

    with pytest.raises(error):
        load()
    shown = written(console)
    assert shown.rindex(SHOW_CURSOR) > shown.rindex("loading")
    assert not console._live_stack


def test_progress_takes_the_place_of_the_phase() -> None:
    phases = Recorded()
    progress = ProgressAmongPhases(SilentProgress(), phases, "preparing the data")
    phases.show("looking for the data")
    progress.begin("tokenizing", 3)
    progress.advance(3)
    assert phases.seen == ["looking for the data", ""]
    progress.end()
    assert phases.seen[-1] == "preparing the data"


def test_the_first_step_is_a_phase_and_the_bar_takes_the_place_of_it() -> None:
    phases, console = Recorded(), terminal()
    lines = TrainingLines(console, phases)
    for step in range(3):
        lines.on_step(step, 10)
    assert phases.seen == ["first step", "", ""]
    phases = Recorded()
    bar = TrainingBar(console, phases)
    bar.on_phase("preparing the first step")
    bar.on_step(0, 10)
    bar.close()
    assert phases.seen == ["preparing the first step", ""]
    assert "first step" in written(console)[written(console).index("0/10") :]


SCRIPT = """
import sys
from sftkit.cli.app import main
from sftkit.cli.console import show_phases

def show(self, phase):
    print(phase, "torch" in sys.modules, flush=True)

show_phases.PhaseLines.show = show
sys.argv = ["sftkit", "train", "--training_data_path", "nothing.jsonl", "--model_name_or_path", "sample:model"]
sys.argv += ["--output_dir", "out"]
main()
"""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_phases_of_the_main_process_come_before_torch(tmp_path: Path, rank: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "RANK": rank}
    )
    phases = ["reading the config False", "loading torch and transformers False"]
    assert done.stdout.splitlines()[:2] == (phases if rank == "0" else [])


def test_an_error_is_printed_when_the_phase_is_gone(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    main, child = pty.openpty()
    words = ["--training_data_path", "in.jsonl", "--model_name_or_path", "/nowhere/model", "--output_dir", "out"]
    with subprocess.Popen(
        [sys.executable, "-m", "sftkit", "train", *words],
        cwd=tmp_path,
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(child)
        shown = b""
        try:
            while part := os.read(main, 1 << 16):
                shown += part
        except OSError:
            pass  # the end, on Linux
        os.close(main)
    text = shown.decode()
    assert process.returncode != 0
    assert text.index("reading the config") < text.rindex(SHOW_CURSOR) < text.index("error: ")
    assert "/nowhere/model" in text[text.index("error: ") :]
