from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from sftkit.execution import WorkerError, Workers

T = TypeVar("T")
R = TypeVar("R")


def run(function: Callable[[T], R], tasks: list[T], count: int) -> Iterator[tuple[T, R]]:
    with Workers(count) as workers:
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


def test_a_worker_that_dies_is_an_error_that_names_what_it_held() -> None:
    with pytest.raises(WorkerError, match=r"a worker process died \(out of memory\?\) while it worked on 7$"):
        list(run(die_of_seven, [1, 2, 7, 3], 2))
