"""How a process of a launch ends: before the interpreter is finalized."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exit_before_finalization() -> Iterator[None]:
    """Let this process end after the functions of `atexit`, with the exit code of the block, and finalize nothing.

    A thread of gloo that needs the GIL while Python (before 3.14) is finalized is ended by force, and C++ then aborts
    the process: a training run that has succeeded would exit with SIGABRT. `multiprocessing` ends its processes in this
    way, too. Functions that were registered with `atexit` before the block are not called.
    """
    code = 1  # of exceptions other than SystemExit

    def leave() -> None:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)  # the first that is registered is called last
    try:
        yield
        code = 0
    except SystemExit as error:
        code = exit_code_of(error)
        raise


def exit_code_of(error: SystemExit) -> int:
    """Return the code with which Python ends a process for this exception.

    Example:
        >>> exit_code_of(SystemExit(2)), exit_code_of(SystemExit()), exit_code_of(SystemExit("no such file"))
        (2, 0, 1)
    """
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1
