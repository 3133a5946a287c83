"""Where things are shown: results on standard output, everything about the work on standard error."""

from __future__ import annotations

import io
import logging
import sys
import traceback

from rich.console import Console
from rich.text import Text

from sftkit.errors import ConfigError

_LEVELS = {"passive": logging.WARNING}


def results() -> Console:
    """Standard output; wide where it is no terminal, so that tables stay in one piece."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding still shows something
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def messages() -> Console:
    """Standard error."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def show_error(error: Exception) -> None:
    """One error, short; several problems of a config one a line."""
    console = messages()
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    for problem in problems:
        console.print(Text.assemble(("error: ", "bold red"), printable(problem)))


def show_bug(error: Exception) -> None:
    """A traceback, for what should not have happened."""
    sys.stderr.write("".join(traceback.format_exception(error)))
    messages().print(Text("error: this is a bug in sftkit; please report it with the traceback above", "bold red"))


def printable(text: str) -> str:
    """Text without the control characters that a terminal would obey; line ends and tabs stay."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Lines(logging.Handler):
    """Writes to what standard error is at the moment: while a progress bar is shown, that is above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
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
