"""Tasks report what they have done while they run, whatever happens to their processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sftkit.core.progress import Done, Report
from sftkit.execution import task_reports
from sftkit.execution.runner import WorkerError
from sftkit.execution.task_reports import ReportFiles, limited
from sftkit.execution.worker_pool import WorkerPool

SECONDS = 60
"""After which a report that never comes is an error."""


def report_and_wait(task: tuple[int, Path], report: Report) -> int:
    """Report, and go on when somebody has seen the report."""
    number, seen = task
    report(Done(number, rows=2, tokens=3))
    until = time.monotonic() + SECONDS
    while not seen.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    return number


def report_and_die(task: int, report: Report) -> int:
    report(Done(task))
    os.kill(os.getpid(), signal.SIGKILL)
    return task


def square(number: int) -> int:
    return number * number


def test_reports_come_while_a_task_runs(tmp_path: Path) -> None:
    tasks = [(number, tmp_path / f"{number}") for number in (5, 6, 7)]
    reports = set()

    def on_report(task: tuple[int, Path], done: Done) -> None:
        reports.add((task[0], done))
        task[1].touch()

    with WorkerPool(2) as workers:
        results = list(workers.run_reporting(report_and_wait, tasks, on_report))
    assert sorted(number for _, number in results) == [5, 6, 7]
    assert reports == {(number, Done(number, 2, 3)) for number in (5, 6, 7)}


def test_a_task_of_this_process_reports_at_once(tmp_path: Path) -> None:
    with WorkerPool(1) as workers:
        reporting = workers.run_reporting(report_and_wait, [(5, tmp_path / "5")], lambda task, _: task[1].touch())
        assert [number for _, number in reporting] == [5]


def test_reports_of_an_earlier_run_are_forgotten(tmp_path: Path) -> None:
    tasks = [(number, tmp_path / f"{number}") for number in range(9)]
    for _, seen in tasks:
        seen.touch()
    with WorkerPool(2) as workers:
        list(workers.run_reporting(report_and_wait, tasks, lambda task, done: None))
        assert sorted(workers.run(square, [1, 2])) == [(1, 1), (2, 4)]  # which have no task 8
        assert list(workers._reports.read()) == []


def test_a_worker_that_is_killed_after_a_report_is_an_error_that_names_its_task() -> None:
    with WorkerPool(2) as workers, pytest.raises(WorkerError, match=r"while it worked on (3|4)"):
        list(workers.run_reporting(report_and_die, [3, 4], lambda task, done: None))


def test_a_report_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    files = ReportFiles(tmp_path)
    (tmp_path / "1.done").write_bytes(b"")
    files.write(9, Done(4, 5, 6))
    report = next(tmp_path.glob(f"{os.getpid()}.*"))
    report.rename(tmp_path / "3.done").write_bytes(b"\1" + report.with_name("3.done").read_bytes()[1:])
    (tmp_path / "2.done").mkdir()
    files.write(7, Done(1, 2, 3))
    assert list(files.read()) == [(7, Done(1, 2, 3))]
    ReportFiles(tmp_path / "missing").write(7, Done(1))  # nothing happens


def test_reports_are_limited_to_a_few_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(task_reports.time, "monotonic", lambda: now[0])
    reported: list[int] = []
    report = limited(lambda done: reported.append(done.steps))
    for step in range(21):
        report(Done(step))
        now[0] += 0.125
    assert reported == [0, 4, 8, 12, 16, 20]
