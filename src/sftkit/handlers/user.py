"""Functions of the user's own, named by import path: row -> row, or row -> None to drop it."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from sftkit.config.fields import option
from sftkit.errors import ConfigError
from sftkit.handlers.model import Handler, Step, Tools
from sftkit.rows import Batch, Row, RowLog


@dataclass(frozen=True, kw_only=True)
class UserFunction(Handler):
    """Calls `function(row, **fn_kwargs)`; a parameter named `tokenizer` gets the tokenizer."""

    path: str = option(help="`package.module:function`")
    fn_kwargs: Mapping[str, Any] = option(factory=dict, help="Keyword arguments of the function.")

    def bind(self, tools: Tools) -> Step:
        """Import the function and call it on each row, token columns included as lists."""
        function = import_function(self.path)
        keywords = dict(self.fn_kwargs)
        signature = inspect.signature(function)
        if "tokenizer" in signature.parameters:
            keywords.setdefault("tokenizer", tools.tokenizer)
        try:
            signature.bind({}, **keywords)
        except TypeError as error:
            raise ConfigError(f"handler {self.path!r} takes {signature}: {error}") from None

        def step(batch: Batch, log: RowLog) -> Batch:
            results: list[Row] = []
            kept = np.ones(len(batch), np.bool_)
            for index, row in enumerate(batch.rows):
                tokens = {name: column[index].tolist() for name, column in batch.tokens.items()}
                number = int(batch.numbers[index])
                try:
                    result = function({**row, **tokens}, **keywords)
                except Exception as error:  # the user's code may raise anything
                    kept[index] = False
                    log.quarantine(number, f"{self.path} raised {type(error).__name__}: {error}", row)
                    continue
                if isinstance(result, Mapping):
                    results.append(dict(result))
                    continue
                kept[index] = False
                if result is None:
                    log.drop(f"{self.path} returned None")
                else:
                    log.quarantine(number, f"{self.path} must return a dict or None, not {type(result).__name__}", row)
            return Batch(results, batch.numbers[kept])

        return step


def import_function(path: str) -> Callable[..., Any]:
    """The function at `package.module:function`; modules of the working directory are found too.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # a console script's path lacks it, `python -m` has it
    try:
        function = getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise ConfigError(f"handler {path!r}: cannot import {module_name}: {error}") from None
    except AttributeError:
        raise ConfigError(f"handler {path!r}: module {module_name} has no {name!r}") from None
    if not callable(function):
        raise ConfigError(f"handler {path!r}: {name} is not a function")
    return cast(Callable[..., Any], function)
