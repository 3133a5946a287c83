"""Tasks that run in this process or in worker processes, and how errors are reported."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sftkit.core.row_log import EngineDifferenceError
from sftkit.execution import worker_pool
from sftkit.execution.runner import WorkerError
from sftkit.execution.worker_pool import WorkerPool
from sftkit.sandbox import watchdog
from sftkit.sandbox.render_limits import render_within_limits

T = TypeVar("T")
R = TypeVar("R")


def run(function: Callable[[T], R], tasks: list[T], count: int) -> Iterator[tuple[T, R]]:
    with WorkerPool(count) as workers:
        yield from workers.run(function, tasks)


def double(number: int) -> int:
    return 2 * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def die_of_seven(number: int) -> int:
    if number == 7:
        os._exit(9)
    return number


def die_before_the_note_is_written(number: int) -> int:
    if number == 7:
        [note] = Path(tempfile.gettempdir()).glob(f"sftkit-workers-*/{os.getpid()}")
        note.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def where(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def fail_or_sleep(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    time.sleep(1e6 if number == 4 else 0)  # a test that waits for it hangs
    return number


def children() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


def differ(number: int) -> int:
    raise EngineDifferenceError("encoder", "a sample", 4).at("in.jsonl:9")


def test_one_worker_runs_the_tasks_here_and_in_order() -> None:
    assert list(run(lambda number: (number, os.getpid()), [3, 1, 2], 1)) == [
        (number, (number, os.getpid())) for number in (3, 1, 2)
    ]


def test_no_tasks_give_no_results() -> None:
    assert list(run(double, [], 4)) == []


def test_one_worker_stops_at_the_first_error() -> None:
    results = run(fail_at_three, [1, 2, 3, 4], 1)
    assert [next(results), next(results)] == [(1, 1), (2, 2)]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_several_workers_run_every_task_once() -> None:
    assert sorted(run(double, list(range(9)), 2)) == [(number, 2 * number) for number in range(9)]


def test_the_error_for_a_worker_that_dies_names_its_task() -> None:
    with pytest.raises(WorkerError, match=r"a worker process died .* while it worked on 7; run the command again"):
        list(run(die_of_seven, [1, 2, 7, 3], 2))


def test_a_worker_that_dies_while_it_notes_its_task_is_one_sentence() -> None:
    with pytest.raises(WorkerError, match=r"a worker process died .* while it worked on one of: .*7"):
        list(run(die_before_the_note_is_written, [5, 6, 7], 2))


def test_a_worker_that_dies_while_others_are_starting_is_an_error_that_names_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit = ProcessPoolExecutor.submit

    def submit_slowly(*args: Any, **options: Any) -> Future[Any]:
        future = submit(*args, **options)
        wait([future])
        return future

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit_slowly)
    with pytest.raises(WorkerError, match=r"while it worked on 7; run the command again"):
        list(run(die_of_seven, [1, 7, 2, 3], 2))


def test_the_place_of_an_engine_difference_reaches_the_main_process() -> None:
    with pytest.raises(EngineDifferenceError) as caught:
        list(run(differ, [1, 2], 2))
    difference = caught.value
    assert (difference.engine, difference.sample, difference.place) == ("encoder", "a sample", "in.jsonl:9")


def test_all_runs_use_the_same_worker_processes() -> None:
    before = children()
    with WorkerPool(2) as workers:
        first = {pid for _, pid in workers.run(where, list(range(6)))}
        started = children() - before
        second = {pid for _, pid in workers.run(where, list(range(6)))}
        assert len(started) == 2
        assert first | second <= started
        assert children() - before == started
        assert os.getpid() not in started
    assert children() == before


def test_a_single_task_runs_in_this_process() -> None:
    with WorkerPool(2) as workers:
        assert list(workers.run(where, [7])) == [(7, os.getpid())]


def test_a_task_that_raises_ends_the_run_at_once_and_the_next_run_works() -> None:
    with WorkerPool(2) as workers:
        with pytest.raises(ValueError, match="three"):
            list(workers.run(fail_or_sleep, [4, 3, 5, 6, 7]))
        assert sorted(workers.run(fail_or_sleep, [5, 6])) == [(5, 5), (6, 6)]


def test_a_run_whose_results_are_not_consumed_is_ended() -> None:
    before = children()
    with WorkerPool(2) as workers:
        assert next(workers.run(fail_or_sleep, [4, 5, 6])) in [(5, 5), (6, 6)]
    assert children() == before


def test_threads_may_start_workers_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    second_entered, first_done = threading.Event(), threading.Event()
    threads = [threading.Thread(target=worker_pool._Process().start) for _ in range(2)]

    def start(process: BaseProcess) -> None:
        if threading.current_thread() is threads[0]:
            threads[1].start()
            second_entered.wait(0.2)  # it does not, while the first thread is here
        else:
            second_entered.set()
            first_done.wait()

    monkeypatch.setattr(worker_pool._python.Process, "start", start)
    threads[0].start()
    threads[0].join()
    first_done.set()
    threads[1].join()
    assert sys.modules["__main__"] is main


def test_classes_of_the_script_can_be_pickled_while_a_worker_starts_which_does_not_import_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = type("Task", (), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Task", task, raising=False)
    seen = {}

    def start(process: BaseProcess) -> None:
        seen["copy"] = type(pickle.loads(pickle.dumps(task())))
        seen["prepared"] = spawn.get_preparation_data("worker")

    monkeypatch.setattr(worker_pool._python.Process, "start", start)
    worker_pool._Process().start()
    assert seen["copy"] is task
    assert not {name for name in seen["prepared"] if name.startswith("init_main")}


def test_a_single_worker_collects_garbage_rarely_and_restores_the_collector() -> None:
    before = gc.get_threshold()
    with WorkerPool(1) as workers:
        during = {thresholds for _, thresholds in workers.run(lambda _: gc.get_threshold(), [1, 2])}
        assert (during, gc.get_threshold()) == ({(50_000, *before[1:])}, before)
        with pytest.raises(ValueError, match="three"):
            list(workers.run(fail_at_three, [3]))
        assert gc.get_threshold() == before
        abandoned = workers.run(abs, [1, 2])
        next(abandoned)
        abandoned.close()
    assert (gc.get_threshold(), gc.isenabled()) == (before, True)


def hang_in_a_template(number: int) -> int:
    watchdog.MAX_STEP_SECONDS = 0.5
    endless: tuple[Any, ...] = (0,)
    for _ in range(60):
        endless = (endless, endless)
    return render_within_limits(lambda: hash(endless), "") if number == 3 else number


@pytest.mark.skipif(sys.platform != "linux", reason="there is no watchdog")
def test_a_worker_that_hangs_in_a_template_ends_the_run_with_a_sentence() -> None:
    with pytest.raises(WorkerError, match=r"^the template took more than 0\.5 s of processor time in one step"):
        list(run(hang_in_a_template, list(range(9)), count=2))


def sleep_or_return(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_worker_that_dies_before_the_pool_watches_it_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool looks for dead workers among those that it knew when it last had something to do."""
    original, original_start = multiprocessing.connection.wait, worker_pool._Process.start
    waits_for_first = threading.Event()
    started: list[int] = []

    def spy(objects: list[Any], timeout: float | None = None) -> list[Any]:
        if len(objects) == 3 and not original(objects, 0):  # results, tasks and one worker
            waits_for_first.set()
        return original(objects, timeout)

    def start(process: Any) -> None:
        if started:
            assert waits_for_first.wait(60)
        original_start(process)
        started.append(process.pid)
        if len(started) == 2:
            os.kill(process.pid, signal.SIGKILL)
        waits_for_first.clear()

    monkeypatch.setattr(multiprocessing.connection, "wait", spy)
    monkeypatch.setattr(worker_pool._Process, "start", start)
    with pytest.raises(WorkerError):
        list(run(sleep_or_return, [1e6, 0.0], count=2))


@pytest.mark.parametrize("error", [EOFError, BrokenPipeError, ConnectionResetError])
def test_a_worker_that_dies_while_it_starts_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(self: Any) -> None:
        raise error

    monkeypatch.setattr(worker_pool._Process, "start", fail)
    with pytest.raises(WorkerError, match="a worker process died while it started"):
        list(run(double, [1, 2, 3], count=2))
