"""Shows what a command is doing while it has no progress to show, such as loading packages or a model."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from sftkit.cli.console.output import printable
from sftkit.core.progress import Progress

_SPINNER_WIDTH = 3  # columns, with a space, and one at the end of the line
_LONG = 4.0
"""Seconds after which a phase is worth a line where there is no terminal."""


class Phases(Protocol):
    """Shows one phase at a time."""

    def show(self, phase: str) -> None:
        """Show a phase instead of the one before."""

    def hide(self) -> None:
        """Show nothing, until the next phase."""


@contextmanager
def show_phases(console: Console) -> Iterator[Phases]:
    """Provide the display that suits a console on standard error, and remove it at the end."""
    phases = PhaseSpinner(console) if sys.stderr.isatty() else PhaseLines(console)
    try:
        yield phases
    finally:
        phases.hide()


class NoPhases:
    """Shows nothing."""

    def show(self, phase: str) -> None:
        """Do nothing."""

    def hide(self) -> None:
        """Do nothing."""


class PhaseSpinner:
    """A line with a spinner, below everything else that is printed meanwhile."""

    def __init__(self, console: Console) -> None:
        self._console, self._spinner = console, Spinner("dots")
        self._live: Live | None = None

    def show(self, phase: str) -> None:
        """Show a phase."""
        text = Text(printable(phase))
        text.truncate(self._console.width - _SPINNER_WIDTH, overflow="ellipsis")
        self._spinner.update(text=text)
        if self._live is None:
            # What goes to a standard output that is not the terminal has to stay there.
            to_terminal = sys.stdout.isatty()
            self._live = Live(self._spinner, console=self._console, transient=True, redirect_stdout=to_terminal)
            self._live.start(refresh=True)

    def hide(self) -> None:
        """Remove the line."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class PhaseLines:
    """A line for each phase that takes more than a few seconds."""

    def __init__(self, console: Console, seconds: float = _LONG) -> None:
        self._console, self._seconds = console, seconds
        self._timer: threading.Timer | None = None
        self._phase = ""

    def show(self, phase: str) -> None:
        """Print a line in a few seconds, unless another phase begins before."""
        if phase == self._phase:
            return
        self.hide()
        self._phase = phase
        self._timer = threading.Timer(self._seconds, self._console.print, [Text(f"{printable(phase)} ...")])
        self._timer.daemon = True
        self._timer.start()

    def hide(self) -> None:
        """Print nothing."""
        self._phase = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ProgressAmongPhases:
    """Shows progress instead of the phase, which two displays on one terminal could not do at the same time."""

    def __init__(self, progress: Progress, phases: Phases, after: str) -> None:
        """Combine them.

        Args:
            progress: shows the progress.
            phases: is hidden meanwhile.
            after: the phase after each stage.
        """
        self._progress, self._phases, self._after = progress, phases, after

    def begin(self, stage: str, total: int) -> None:
        """Begin a stage."""
        self._phases.hide()
        self._progress.begin(stage, total)

    def advance(self, steps: int, *, rows: int = 0, tokens: int = 0) -> None:
        """Record finished steps."""
        self._progress.advance(steps, rows=rows, tokens=tokens)

    def end(self) -> None:
        """End the stage."""
        self._progress.end()
        self._phases.show(self._after)
