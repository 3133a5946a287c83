"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from rich.console import Console

from sftkit.cli.console import show_progress
from sftkit.cli.console.show_progress import ProgressBar, ProgressLines


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(show_progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_lines_have_percent_rates_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines()
    lines.begin("tokenizing", 10_000)
    clock.now += 5
    lines.advance(50, rows=2_000, tokens=8_000)
    assert capsys.readouterr().err == ""
    clock.now += 5
    lines.advance(50, rows=2_000, tokens=8_000)
    assert capsys.readouterr().err == "tokenizing: 1%, 4,000 rows, 400 rows/s, 1,600 tokens/s, 16 min 30 s left\n"
    lines.end()


def test_lines_get_rarer_as_a_stage_takes_longer(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines()
    lines.begin("tokenizing", 20_000)
    printed = []
    for second in range(1, 20_001):
        clock.now += 1
        lines.advance(1)
        if capsys.readouterr().err:
            printed.append(second)
    waits = [after - before for before, after in pairwise(printed)]
    assert printed[0] == 10
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (10, 300)


def test_a_stage_that_counts_no_rows_has_no_rates(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines()
    lines.begin("checking staged units", 4)
    clock.now += 60
    lines.advance(1)
    assert capsys.readouterr().err == "checking staged units: 25%, 3 min 0 s left\n"


@pytest.mark.parametrize(("width", "has_rows"), [(80, False), (120, True)])
def test_the_bar_fits_on_one_line_of_the_terminal(width: int, has_rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(show_progress, "messages", lambda: console)
    bar = ProgressBar()
    bar.begin("writing shards", 100)
    bar.advance(45, rows=12_345_678, tokens=1_234_567_890)
    bar.end()
    assert isinstance(console.file, io.StringIO)
    shown = [line for line in console.file.getvalue().splitlines() if "rows/s" in line][-1]
    assert " 45% " in shown
    assert ("12,345,678 rows, " in shown) == has_rows
    assert "tokens/s" in shown
