"""Functions of the user's own, named by import path: row -> row, or row -> None to drop it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from sftkit.config.fields import option
from sftkit.core.error_text import single_line
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError
from sftkit.handlers.base import Handler, Step, Tools


@dataclass(frozen=True, kw_only=True)
class UserFunction(Handler):
    """Calls `function(row, **fn_kwargs)`; a parameter named `tokenizer` gets the tokenizer."""

    path: str = option(help="`package.module:function`")
    fn_kwargs: Mapping[str, Any] = option(factory=dict, help="Keyword arguments of the function.")

    def bind(self, tools: Tools) -> Step:
        """Import the function and call it on each row, token columns included as lists."""
        function = import_function(self.path)
        keywords = dict(self.fn_kwargs)
        signature = _signature(self.path, function)
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
                    result = function({**_own(row), **tokens}, **keywords)
                except (Exception, SystemExit, GeneratorExit) as error:  # the user's code may raise anything
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
    if not all(each.isidentifier() for each in (*module_name.split("."), name)):
        raise ConfigError(f"handler {path!r}: write it package.module:function")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        kind = "" if isinstance(error, ImportError) else f"it raised {type(error).__name__}: "
        raise ConfigError(f"handler {path!r}: cannot import {module_name}: {kind}{_one_line(error)}") from None
    function = getattr(module, name, None)
    if function is None:
        raise ConfigError(f"handler {path!r}: module {module_name} has no {name!r}")
    if not callable(function):
        raise ConfigError(f"handler {path!r}: {name} is not a function")
    return cast(Callable[..., Any], function)


def user_modules(paths: Iterable[str]) -> list[tuple[str, Path]]:
    """The files of the modules that functions are in, and of all that these have imported, which are of the user's own:
    name below the directory that they are imported from, and where they are.

    Args:
        paths: of functions, `package.module:function`.

    Raises:
        ConfigError: there is no such module or function.
    """
    roots: set[Path] = set()
    for path in paths:
        import_function(path)
        name = path.partition(":")[0]
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and not _is_installed(name.partition(".")[0]):
            depth = name.count(".") + (Path(file).name == "__init__.py")
            roots.add(Path(file).resolve().parents[depth])
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())} if roots else set()
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")]
    found: dict[str, Path] = {}
    for file in (Path(each).resolve() for each in files if isinstance(each, str) and each.endswith(".py")):
        root = next((each for each in roots if file.is_relative_to(each)), None)
        if root is not None and not any(file.is_relative_to(place) for place in installed):
            found[file.relative_to(root).as_posix()] = file
    return sorted(found.items())


def check_trusted(path: str, packages: Collection[str]) -> None:
    """Let a data config, which may come from a stranger, call nothing but what is the user's own.

    A module of Python's library, or of a package that was installed, is not: most can write anywhere. What a module of
    the user's own has imported from there is not, either.

    Raises:
        ConfigError: the function is of no module of the user's own, nor of one of these packages.
    """
    _check_package(path, path.partition(":")[0], packages)  # before anything of it runs
    function = import_function(path)
    names = {path.partition(":")[0], getattr(inspect.unwrap(function), "__module__", None) or "builtins"}
    for name in sorted(names):
        _check_package(path, name, packages)


def _check_package(path: str, module: str, packages: Collection[str]) -> None:
    package = module.partition(".")[0]
    if package not in packages and _is_installed(package):
        raise ConfigError(
            f"handler {path!r}: {package} is an installed package, not a module of your own; if its function is to "
            f"be called, say trust_packages={package}"
        )


def _is_installed(package: str) -> bool:
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        return True
    places = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    try:
        spec = importlib.util.find_spec(package)  # imports nothing, for a package that is in no other
    except (ImportError, ValueError):
        return False
    inside = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return any(Path(each).resolve().is_relative_to(place) for each in inside if each for place in places)


def _own(value: Any) -> Any:
    """A copy of a row, for a function that may change what it is given: what is told of a bad row is the row."""
    if type(value) is dict:
        return {key: _own(each) for key, each in value.items()}
    return [_own(each) for each in value] if type(value) is list else value


def _signature(path: str, function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # of what is not written in Python
        raise ConfigError(f"handler {path!r}: its parameters cannot be told; give a function of Python") from None


def _one_line(error: BaseException) -> str:
    return single_line(error)
