"""What a user function depends on: its module, everything of the user's own that this imports, and files they opened.

Imports are followed in the source, wherever they are written, and as they happened. Of installed packages, only the
module of the function itself counts, because their versions say the rest.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sftkit.handlers.module_loading import recorded
from sftkit.handlers.module_search import find_module, is_own, module_file

_IMPORT_CALLS = frozenset({"import_module", "__import__"})


@dataclass(frozen=True)
class CodeFile:
    """A file that a user function depends on."""

    name: str
    """Its name relative to the folder that it is imported from, with slashes; for other files, its plain name."""
    path: Path
    sha256: str
    """Of the bytes that were compiled or read, if this process has done that; otherwise of the file."""


def function_code(module: str, function: Any) -> list[CodeFile]:
    """Find the files that a function depends on.

    Args:
        module: The module that names the function. It is imported.
        function: The function.

    Returns:
        First the file of the module, then the others by name.
    """
    roots = [Path.cwd(), *_import_folder(module)]
    defined_in = getattr(inspect.unwrap(function), "__module__", None)
    names = [module, *([defined_in] if isinstance(defined_in, str) and defined_in != module else [])]
    found = {each: file for each in names if (file := _own_or_named(each)) is not None}
    opened: dict[Path, CodeFile] = {}
    pending = list(found)
    while pending:
        name = pending.pop()
        file, loaded = found[name], sys.modules.get(name)
        loader = recorded(loaded)
        for path, sha256 in loader.opened if loader is not None else ():
            opened[path] = CodeFile(_relative_name(path, roots[1:]), path, sha256)
        if not is_own(file.path, roots):
            continue
        for other in {*_static_imports(name, file.path), *_dynamic_imports(loaded), *_packages_of(name)}:
            if other not in found and (own := _own_module(other, roots)) is not None:
                found[other] = own
                pending.append(other)
    first = [found.pop(module)] if module in found else []
    return [*first, *sorted({*found.values(), *opened.values()}, key=lambda each: (each.name, each.sha256))]


def _own_or_named(name: str) -> CodeFile | None:
    """Describe the module that names or defines the function, whoever it belongs to; None if it has no file."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return _code_file(name, Path(file).resolve()) if file is not None and Path(file).is_file() else None


def _own_module(name: str, roots: Sequence[Path]) -> CodeFile | None:
    """Describe a module, which may not have been imported; None if there is none, or it is not the user's own."""
    package_file = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    loaded = sys.modules.get(name)
    if package_file is not None and not is_own(Path(package_file).resolve(), roots):
        return None  # most imports: of an installed package
    file = getattr(loaded, "__file__", None)
    if loaded is None:
        specs = find_module(name)
        file = module_file(specs[-1]) if specs else None
    path = None if file is None else Path(file).resolve()
    return _code_file(name, path) if path is not None and is_own(path, roots) else None


def _code_file(name: str, path: Path) -> CodeFile:
    loader = recorded(sys.modules.get(name))
    sha256 = loader.sha256 if loader is not None else hashlib.sha256(path.read_bytes()).hexdigest()
    parts = name.split(".") + (["__init__"] if path.stem == "__init__" else [])
    return CodeFile("/".join(parts) + path.suffix, path, sha256)


def _import_folder(module: str) -> list[Path]:
    """Return the folder of the import path that a module was imported from."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return []
    depth = module.count(".") + (Path(file).stem == "__init__")
    return [Path(file).resolve().parents[depth]]


def _relative_name(path: Path, roots: Sequence[Path]) -> str:
    root = next((root for root in roots if path.resolve().is_relative_to(root)), None)
    return path.name if root is None else path.resolve().relative_to(root).as_posix()


def _packages_of(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _dynamic_imports(module: ModuleType | None) -> Iterator[str]:
    """Yield the modules that a module imported, or that define what it holds, however it came by it."""
    loader = recorded(module)
    yield from loader.imported if loader is not None else ()
    for value in list(vars(module).values()) if module is not None else ():
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name in sys.modules:
            yield name


def _static_imports(name: str, path: Path) -> Iterator[str]:
    """Yield the names of all modules that the source of a module may import; some may be names of something else."""
    if path.suffix != ".py":
        return
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    with suppress(OSError, SyntaxError, ValueError):  # what cannot be parsed cannot be imported either
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = _absolute("." * node.level + (node.module or ""), package)
                yield from [] if origin is None else [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Call) and (called := _imported_by_call(node)) is not None:
                yield from filter(None, [_absolute(called, package)])


def _imported_by_call(node: ast.Call) -> str | None:
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
    first = node.args[0] if node.args else None
    named = first.value if isinstance(first, ast.Constant) else None
    return named if function in _IMPORT_CALLS and isinstance(named, str) else None


def _absolute(name: str, package: str) -> str | None:
    try:
        return importlib.util.resolve_name(name, package or None)
    except (ImportError, ValueError):
        return None
