"""The consoles of standard output (results) and standard error (progress, log lines, errors)."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment
from rich.text import Text

from sftkit.core.escape import visible_parts
from sftkit.errors import ConfigError
from sftkit.redaction import redact

_LEVELS = {"passive": logging.WARNING}


def results() -> Console:
    """Return a console on standard output. Without a terminal it is 160 columns wide, so that tables do not wrap."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that are not UTF-8
    return _safe(Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, emoji=False))


def messages() -> Console:
    """Return a console on standard error."""
    return _safe(Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False))


def _safe(console: Console) -> Console:
    """Make a console escape everything that it prints."""
    console.push_render_hook(_Escaping())
    return console


class _Escaping(RenderHook):
    """Escapes text after it is laid out: a safety net, because names and paths come from data."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap what is printed."""
        return [_Escaped(renderable) for renderable in renderables]


@dataclass(frozen=True)
class _Escaped:
    renderable: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.renderable, options):
            # Rich itself makes the control segments
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def show_error(error: Exception) -> None:
    """Print an error without a traceback; a `ConfigError` takes one line per problem."""
    console = messages()
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    for problem in problems:
        console.print(Text.assemble(("error: ", "bold red"), printable(problem)))


def show_bug(error: Exception) -> None:
    """Print the traceback of an unexpected error without credentials, and ask for a report."""
    sys.stderr.write(printable(redact("".join(traceback.format_exception(error)))))
    messages().print(Text("error: this is a bug in sftkit; please report it with the traceback above", "bold red"))


def printable(text: str) -> str:
    """Escape the characters of a text that control a terminal or are invisible; line ends and tabs stay."""
    return text if text.isprintable() else "".join(part.text for part in visible_parts(text))


class _StderrHandler(logging.Handler):
    """Writes log lines to the current `sys.stderr`, which prints above a progress bar while there is one.

    Of equal warnings only the first is written; `write_repetitions` tells how many there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self._warnings: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if record.levelno == logging.WARNING:
                self._warnings[line] += 1
                if self._warnings[line] > 1:
                    return
            self._write(line)
        except Exception:  # as in logging: a run does not stop for a log line
            self.handleError(record)

    def write_repetitions(self) -> None:
        """Write each warning that was repeated once more, with its count, and forget all."""
        for line, count in self._warnings.items():
            if count > 1:
                self._write(f"{line} ({count:,} times)")
        self._warnings.clear()

    def _write(self, line: str) -> None:
        sys.stderr.write(printable(redact(f"{line}\n")))


def start_logging(level: str) -> None:
    """Write the log lines of sftkit to standard error."""
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("sftkit")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(_LEVELS.get(level) or level.upper())


def finish_logging() -> None:
    """Write how many warnings were equal, and undo `start_logging`. Call it at the end of a command."""
    logger = logging.getLogger("sftkit")
    for handler in [each for each in logger.handlers if isinstance(each, _StderrHandler)]:
        handler.write_repetitions()
        logger.removeHandler(handler)
    logger.propagate = True
