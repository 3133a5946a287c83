"""Signals that arrive while processes are started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from sftkit.execution.processes import deferred_interrupts

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _same_handlers_afterwards() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_reaches_the_handler_of_the_program_at_the_end_of_the_block(number: int) -> None:
    received: list[int] = []
    signal.signal(number, lambda number, _: received.append(number))
    with deferred_interrupts():
        signal.raise_signal(number)
        assert received == []
    assert received == [number]


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)


def test_a_signal_is_not_lost_if_the_block_raises() -> None:
    def fail() -> None:
        with deferred_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("three")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt) as caught:
        fail()
    assert isinstance(caught.value.__context__, ValueError)


def test_a_handler_that_python_did_not_set_becomes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    set_handler = signal.signal

    def set_and_forget(number: int, handler: Any) -> Any:
        previous = set_handler(number, handler)
        return None if number == signal.SIGTERM else previous

    monkeypatch.setattr(signal, "signal", set_and_forget)
    with deferred_interrupts():
        pass
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
