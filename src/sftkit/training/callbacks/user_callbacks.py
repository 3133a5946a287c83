"""Callbacks of the user (`user_callbacks`): found by import path, and named if they fail."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sftkit.core.error_text import single_line
from sftkit.core.plugins import subclass_problem
from sftkit.errors import ConfigError, TrainingError

_KEY = "user_callbacks"
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def find_user_callbacks(paths: Sequence[str]) -> list[type[TrainerCallback]]:
    """Import the classes at `package.module:Class`; modules in the working directory are found too.

    Raises:
        ConfigError: with a sentence for each that is not there, or is not a callback that takes no arguments.
    """
    found: list[type[TrainerCallback]] = []
    problems: list[str] = []
    for path in paths:
        try:
            found.append(_find(path))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def make_user_callbacks(paths: Sequence[str]) -> list[TrainerCallback]:
    """Make an object of each class.

    Raises:
        ConfigError: as `find_user_callbacks`, or a class raises an exception.
    """
    made: list[TrainerCallback] = []
    for path, kind in zip(paths, find_user_callbacks(paths), strict=True):
        try:
            made.append(kind())
        except Exception as error:  # user code may raise anything
            raise ConfigError(f"{_KEY}: {path} cannot be made: {_reason(error)}; correct its __init__") from error
    return made


@contextmanager
def errors_of_user_callbacks(callbacks: Sequence[TrainerCallback]) -> Iterator[None]:
    """Name the user's callback that raised an exception in this block, with the line.

    Raises:
        TrainingError: one did.
    """
    try:
        yield
    except Exception as error:
        for frame, line in traceback.walk_tb(error.__traceback__):
            owner = frame.f_locals.get("self")
            if any(owner is callback for callback in callbacks):
                place = f"{type(owner).__module__}:{type(owner).__name__}"
                raise TrainingError(
                    f"{_KEY}: {frame.f_code.co_name} of {place} failed ({frame.f_code.co_filename}:{line}): "
                    f"{_reason(error)}; correct it, or leave it out"
                ) from error
        raise


def _find(path: str) -> type[TrainerCallback]:
    if not _PATH.fullmatch(path):
        raise ConfigError(f"{_KEY}: {path!r} must be an import path such as package.module:Class")
    module_name, name = path.split(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # `python -m` has it, a console script does not
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise ConfigError(f"{_KEY}: cannot import {module_name} of {path!r}: {_reason(error)}") from None
    found: Any = getattr(module, name, None)
    if found is None:
        raise ConfigError(f"{_KEY}: the module {module_name} has no class {name!r}; correct {path!r}")
    problem = subclass_problem(found, TrainerCallback)
    if problem is not None:
        raise ConfigError(f"{_KEY}: {path} {problem}")
    needed = [
        parameter.name
        for parameter in inspect.signature(found).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ConfigError(f"{_KEY}: {path} must take no arguments, but needs {', '.join(needed)}; give them defaults")
    kind: type[TrainerCallback] = found
    return kind


def _reason(error: BaseException) -> str:
    kind = "" if isinstance(error, ImportError) else f"it raised {type(error).__name__}: "
    return f"{kind}{single_line(error)}"
