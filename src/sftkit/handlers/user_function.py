"""Row functions of the user, named by import path: each returns the row that replaces its row, or None to drop it."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sftkit.config.fields import option
from sftkit.core.error_text import single_line
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError
from sftkit.handlers.base import Handler, Step
from sftkit.handlers.function_code import CodeFile, function_code
from sftkit.handlers.module_loading import (
    forget_changed_modules,
    read_by_functions,
    recorded_calls,
    recorded_imports,
)
from sftkit.handlers.module_search import find_module, is_below, is_installed, module_file

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer


def is_function_path(name: str) -> bool:
    """Whether the name of a handler in a config is the path of a function, `package.module:function`."""
    return ":" in name


@dataclass(frozen=True, kw_only=True)
class UserFunction(Handler):
    """Calls `function(row, **fn_kwargs)`; a parameter named `tokenizer` gets the tokenizer."""

    makes_new_rows = True

    path: str = option(help="`package.module:function`")
    fn_kwargs: Mapping[str, Any] = option(factory=dict, help="Keyword arguments of the function.")

    def produces(self) -> RowKind:
        """Anything."""
        return RowKind.UNKNOWN

    def sees_tokenizer_limits(self) -> bool:
        """True: the function can ask for the tokenizer."""
        return True

    def functions(self) -> tuple[str, ...]:
        """The function."""
        return (self.path,)

    def identity(self) -> Any:
        """The arguments as Python writes them, and the files of the user's own that the function depends on."""
        return code_identity(self.path, self.fn_kwargs)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Import the function and call it on each row."""
        call = bound_function(self.path, self.fn_kwargs, tokenizer)

        def step(batch: Batch, log: RowLog) -> Batch:
            results: list[Row] = []
            kept = np.ones(len(batch), np.bool_)
            for index, row in enumerate(batch.rows):
                number = int(batch.numbers[index])
                try:
                    result = call(batch, index)
                except RowError as error:
                    kept[index] = False
                    log.quarantine(number, str(error), row)
                    continue
                if isinstance(result, Mapping):
                    results.append(dict(result))
                    continue
                kept[index] = False
                if result is None:
                    log.drop(f"{self.path} returned None", [number], [row])
                else:
                    log.quarantine(number, f"{self.path} must return a dict or None, not {type(result).__name__}", row)
            return Batch(results, batch.numbers[kept])

        return recording_files(self.path, step)


def bound_function(path: str, arguments: Mapping[str, Any], tokenizer: ChatTokenizer) -> Callable[[Batch, int], Any]:
    """Import a function of the user, and return a function that calls it on one row of a batch, given its index.

    The row includes token columns as lists. What is returned raises `RowError` if the function raises anything.

    Args:
        path: the function, `package.module:function`.
        arguments: its further keyword arguments; a parameter named `tokenizer` gets the tokenizer.
        tokenizer: of the run.

    Raises:
        ConfigError: there is no such function, or it does not take these arguments.
    """
    function, keywords = import_function(path), dict(arguments)
    signature = _signature(path, function)
    if "tokenizer" in signature.parameters:
        keywords.setdefault("tokenizer", tokenizer.tokenizer)
    try:
        signature.bind({}, **keywords)
    except TypeError as error:
        raise ConfigError(f"handler {path!r} takes {signature}: {error}") from None

    def call(batch: Batch, index: int) -> Any:
        tokens = {name: column[index].tolist() for name, column in batch.tokens.items()}
        try:
            return function({**_copy(batch.rows[index]), **tokens}, **keywords)
        except (Exception, SystemExit, GeneratorExit) as error:  # user code may raise anything
            raise RowError(f"{path} raised {type(error).__name__}: {error}") from None

    return call


def recording_files(path: str, step: Step) -> Step:
    """Return a step that calls a function of the user, and records the files that the function reads while it runs."""
    module = _parts(path)[0]

    def recorded(batch: Batch, log: RowLog) -> Batch:
        with recorded_calls(module):
            result = step(batch, log)
        log.inputs.update(read_by_functions(module))
        return result

    return recorded


def import_function(path: str) -> Callable[..., Any]:
    """Import the function at `package.module:function`; modules in the working directory are found too.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, name = _parts(path)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # `python -m` has it, a console script does not
    try:
        with recorded_imports():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # user code may raise anything
        kind = "" if isinstance(error, ImportError) else f"it raised {type(error).__name__}: "
        raise ConfigError(f"handler {path!r}: cannot import {module_name}: {kind}{single_line(error)}") from None
    function = getattr(module, name, None)
    if function is None:
        raise ConfigError(f"handler {path!r}: module {module_name} has no {name!r}")
    if not callable(function):
        raise ConfigError(f"handler {path!r}: {name} is not a function")
    return cast(Callable[..., Any], function)


def code_files(path: str) -> list[CodeFile]:
    """Return the files of the user's own that a function depends on.

    Raises:
        ConfigError: there is no such module or function.
    """
    return function_code(_parts(path)[0], import_function(path))


def code_identity(path: str, arguments: Mapping[str, Any]) -> list[Any]:
    """Return what decides what a function does: its arguments as Python writes them, and its `code_digests`."""
    return [sorted((str(name), repr(value)) for name, value in arguments.items()), code_digests(path)]


def code_digests(path: str) -> list[Any]:
    """Return what changes when a file that a function depends on changes; the name of its own module does not count.

    Raises:
        ConfigError: there is no such module or function.
    """
    files = code_files(path)
    return [*(each.sha256 for each in files[:1]), *([each.name, each.sha256] for each in files[1:])]


def check_trusted(path: str, packages: Collection[str], folders: Iterable[Path] = ()) -> None:
    """Check that a config, which may be untrusted, calls only functions of the user, before any of their code runs.

    A module of the user is below the working directory or one of the folders. Functions of the standard library and of
    installed packages are refused, for most of them could write anywhere. So are functions that a module of the user
    imports from there.

    Args:
        path: the function, `package.module:function`.
        packages: installed packages whose functions may be called (`trust_packages`).
        folders: where the configs are that may name functions.

    Raises:
        ConfigError: there is no such function, or it is neither the user's nor of a trusted package.
    """
    module, _ = _parts(path)
    own = [folder.resolve() for folder in (Path.cwd(), *folders)]
    importlib.invalidate_caches()  # files may be newer than the last look at their folder
    specs = find_module(module, own)
    if not specs:
        raise ConfigError(
            f"handler {path!r}: cannot import {module}: there is no such module on the import path, in the working "
            "directory or beside the config; correct its name or its place"
        )
    for spec in specs:
        _check_file(path, spec.name, module_file(spec), packages, own)
    forget_changed_modules()
    function = import_function(path)
    for name, file in ((module, module_file(specs[-1])), (_origin(function), None)):
        loaded = _loaded_file(name)
        if file is not None and loaded != file:
            raise ConfigError(
                f"handler {path!r}: module {name} was imported from {loaded or 'elsewhere'} instead of {file}; give it "
                "another name"
            )
        _check_file(path, name, loaded or Path(os.devnull), packages, own)


def _check_file(path: str, module: str, file: Path | None, packages: Collection[str], own: Sequence[Path]) -> None:
    """Check that the code of a module may run; namespace packages, which have no file, have none."""
    package = module.partition(".")[0]
    if package in packages or file is None:
        return
    if is_installed(file):
        raise ConfigError(
            f"handler {path!r}: {package} belongs to Python or to an installed package, not a module of your own; to "
            f"allow its functions, set trust_packages={package}"
        )
    if not is_below(file, own):
        raise ConfigError(
            f"handler {path!r}: {file} is neither below the working directory nor below that of the config; to allow "
            f"its functions, set trust_packages={package}"
        )


def _parts(path: str) -> tuple[str, str]:
    module, _, name = path.partition(":")
    if not all(each.isidentifier() for each in (*module.split("."), name)):
        raise ConfigError(f"handler {path!r}: write it package.module:function")
    if module == "__main__":
        raise ConfigError(
            f"handler {path!r}: worker processes do not import your script; move {name} into a module of its own, and "
            f"write module:{name}"
        )
    return module, name


def _origin(function: Any) -> str:
    """Return the name of the module that defines a function."""
    while isinstance(function, partial):
        function = function.func
    return getattr(inspect.unwrap(function), "__module__", None) or "builtins"


def _loaded_file(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else Path(file).resolve()


def _copy(value: Any) -> Any:
    """Copy a row for a function that may change it, because the quarantine shows the row as it was read."""
    if type(value) is dict:
        return {key: _copy(each) for key, each in value.items()}
    return [_copy(each) for each in value] if type(value) is list else value


def _signature(path: str, function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # not written in Python
        raise ConfigError(
            f"handler {path!r}: its parameters cannot be determined; use a function written in Python"
        ) from None
