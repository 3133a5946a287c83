"""Where things are shown: results on standard output, everything about the work on standard error."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment
from rich.text import Text

from sftkit.core.escape import visible_parts
from sftkit.errors import ConfigError

_LEVELS = {"passive": logging.WARNING}


def results() -> Console:
    """Standard output; wide where it is no terminal, so that tables stay in one piece."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding still shows something
    return _safe(Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, emoji=False))


def messages() -> Console:
    """Standard error."""
    return _safe(Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False))


def _safe(console: Console) -> Console:
    """The console, whatever it is given to print: names and paths come from data, too."""
    console.push_render_hook(_Escaping())
    return console


class _Escaping(RenderHook):
    """Escapes what is printed when it is laid out already: a safety net, for what should have been escaped before."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """The same to print, escaped."""
        return [_Escaped(renderable) for renderable in renderables]


@dataclass(frozen=True)
class _Escaped:
    renderable: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.renderable, options):
            # Control segments are Rich's own.
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def show_error(error: Exception) -> None:
    """One error, short; several problems of a config one a line."""
    console = messages()
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    for problem in problems:
        console.print(Text.assemble(("error: ", "bold red"), printable(problem)))


def show_bug(error: Exception) -> None:
    """A traceback, for what should not have happened."""
    sys.stderr.write(printable("".join(traceback.format_exception(error))))
    messages().print(Text("error: this is a bug in sftkit; please report it with the traceback above", "bold red"))


def printable(text: str) -> str:
    """Text without characters that a terminal would obey, or not show; line ends and tabs stay."""
    return text if text.isprintable() else "".join(part.text for part in visible_parts(text))


class _Lines(logging.Handler):
    """Writes to what standard error is at the moment: while a progress bar is shown, that is above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(printable(f"{self.format(record)}\n"))
        except Exception:  # as logging does: a line that cannot be written is no reason to stop
            self.handleError(record)


def start_logging(level: str) -> None:
    """Log lines of sftkit go to standard error."""
    handler = _Lines()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("sftkit")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(_LEVELS.get(level) or level.upper())
