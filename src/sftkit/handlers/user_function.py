"""Row functions of the user, named by import path: each returns the row that replaces its row, or None to drop it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sftkit.config.fields import option
from sftkit.core.error_text import single_line
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError
from sftkit.handlers.base import Handler, Step

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer


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

    def identity(self) -> Any:
        """The arguments as Python writes them, and the sha256 of the files that name and define the function."""
        arguments = sorted((str(name), repr(value)) for name, value in self.fn_kwargs.items())
        return [arguments, _source_digests(self.path)]

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Import the function and call it on each row; the row includes token columns as lists."""
        function = import_function(self.path)
        keywords = dict(self.fn_kwargs)
        signature = _signature(self.path, function)
        if "tokenizer" in signature.parameters:
            keywords.setdefault("tokenizer", tokenizer.tokenizer)
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
                    result = function({**_copy(row), **tokens}, **keywords)
                except (Exception, SystemExit, GeneratorExit) as error:  # user code may raise anything
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
    """Import the function at `package.module:function`; modules in the working directory are found too.

    Raises:
        ConfigError: there is no such module or function.
    """
    module_name, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # `python -m` has it, a console script does not
    if not all(each.isidentifier() for each in (*module_name.split("."), name)):
        raise ConfigError(f"handler {path!r}: write it package.module:function")
    if module_name == "__main__":
        raise ConfigError(
            f"handler {path!r}: worker processes do not import your script; move {name} into a module of its own, and "
            f"write module:{name}"
        )
    try:
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


def user_modules(paths: Iterable[str]) -> list[tuple[str, Path]]:
    """Find the files of the user's own modules that functions need: those that define them, and all their imports.

    Args:
        paths: the functions, each `package.module:function`.

    Returns:
        For each file, its name relative to the directory it is imported from, and its path.

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
        if root is not None and not any(file.is_relative_to(folder) for folder in installed):
            found[file.relative_to(root).as_posix()] = file
    return sorted(found.items())


def check_trusted(path: str, packages: Collection[str]) -> None:
    """Check that a data config, which may be untrusted, calls only functions of the user.

    Functions of the standard library and of installed packages are refused, for most of them could write anywhere. So
    are functions that a module of the user imports from there.

    Args:
        path: the function, `package.module:function`.
        packages: installed packages whose functions may be called (`trust_packages`).

    Raises:
        ConfigError: the function belongs to another installed package, or to the standard library.
    """
    _check_package(path, path.partition(":")[0], packages)  # before any of its code runs
    function = import_function(path)
    names = {path.partition(":")[0], getattr(inspect.unwrap(function), "__module__", None) or "builtins"}
    for name in sorted(names):
        _check_package(path, name, packages)


def _check_package(path: str, module: str, packages: Collection[str]) -> None:
    package = module.partition(".")[0]
    if package not in packages and _is_installed(package):
        raise ConfigError(
            f"handler {path!r}: {package} is an installed package, not a module of your own; to allow its functions, "
            f"set trust_packages={package}"
        )


def _is_installed(package: str) -> bool:
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        return True
    folders = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    try:
        spec = importlib.util.find_spec(package)  # imports nothing for a top-level package
    except (ImportError, ValueError):
        return False
    locations = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return any(Path(each).resolve().is_relative_to(folder) for each in locations if each for folder in folders)


def _source_digests(path: str) -> list[str]:
    function = import_function(path)
    files = {getattr(sys.modules[path.partition(":")[0]], "__file__", None)}
    with suppress(TypeError):  # not written in Python
        files.add(inspect.getsourcefile(inspect.unwrap(function)))
    names = sorted(file for file in files if file is not None)
    return [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names if Path(name).is_file()]


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
