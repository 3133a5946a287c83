"""Finding the files of modules without importing anything: whose code would run, and from where."""

from __future__ import annotations

import json
import os
import pkgutil
import site
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

_PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARY = ("stdlib", "platstdlib", "purelib", "platlib")


def find_module(name: str, folders: Iterable[Path] = ()) -> list[ModuleSpec]:
    """Find a module as an import would find it, but import neither it nor the packages that it is in.

    Args:
        name: The module, `package.module`.
        folders: Where to look for a module that the import path does not have. The folder that has it is appended to
            the import path.

    Returns:
        The specs of its packages, outermost first, and its own. Empty if there is no such module.
    """
    found = _find_below(name, _find_top_level(name.partition(".")[0]))
    if found:
        return found
    for folder in folders:
        top = _find_in([str(folder)], name.partition(".")[0])
        found = _find_below(name, top)
        if found:
            sys.path.append(str(folder))
            return found
    return []


def module_file(spec: ModuleSpec) -> Path | None:
    """Return the file whose code an import runs; None for a namespace package, which has none.

    The result is not a regular file if the module is built into Python, or in an archive.
    """
    if not spec.has_location:  # the origin would be a word, such as `frozen`
        is_namespace = spec.loader is None or (spec.origin is None and spec.submodule_search_locations is not None)
        return None if is_namespace else Path(os.devnull)
    return Path(str(spec.origin)).resolve()


def is_installed(file: Path) -> bool:
    """Whether a file belongs to Python's own library, to an installed package, or to nothing on disk.

    Args:
        file: As `module_file` returns it.
    """
    if not file.is_file() or not _PACKAGE_FOLDERS.isdisjoint(file.parts) or is_below(file, _installed_folders()):
        return True
    return any(_holds_installed_packages(folder, folder.stat().st_mtime_ns) for folder in _import_folders(file))


def is_own(file: Path, folders: Sequence[Path]) -> bool:
    """Whether a file is the user's own: neither installed, nor part of a project that is installed in editable mode.

    Args:
        file: As `module_file` returns it.
        folders: Files below these are the user's own in spite of an editable install.
    """
    if is_installed(file) or file.is_relative_to(_PACKAGE):
        return False
    return is_below(file, folders) or not is_below(file, _editable_projects())


def is_below(file: Path, folders: Iterable[Path]) -> bool:
    """Whether a file is in one of some folders, or in a folder there."""
    return any(file.is_relative_to(folder) for folder in folders)


def _find_top_level(name: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, None, None)
        if isinstance(spec, ModuleSpec):
            return spec
    return None


def _find_below(name: str, top: ModuleSpec | None) -> list[ModuleSpec]:
    """Find a module in its top-level package, which is known; return the whole chain, or nothing."""
    found = [] if top is None else [top]
    parts = name.split(".")
    for depth in range(2, len(parts) + 1):
        places = found[-1].submodule_search_locations if found else None
        spec = None if places is None else _find_in(list(places), ".".join(parts[:depth]))
        if spec is None:
            return []
        found.append(spec)
    return found


def _find_in(places: Sequence[str], name: str) -> ModuleSpec | None:
    """Find a module in folders or archives, as Python's own `PathFinder`, which needs the packages to be imported."""
    portions: list[str] = []
    for place in places:
        finder = pkgutil.get_importer(place or ".")
        spec = finder.find_spec(name) if finder is not None and hasattr(finder, "find_spec") else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec and spec.submodule_search_locations) or []
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


@cache
def _installed_folders() -> frozenset[Path]:
    """Folders of Python's library and of installed packages, also those of the Python that a venv is made from."""
    folders = {sysconfig.get_path(name) for name in _LIBRARY}
    folders |= {sysconfig.get_path(name, vars={"base": sys.base_prefix}) for name in _LIBRARY}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return frozenset(Path(folder).resolve() for folder in folders)


def _import_folders(file: Path) -> list[Path]:
    """Return the folders of the import path that a file is below."""
    folders = (Path(entry or ".").resolve() for entry in sys.path)
    return [folder for folder in folders if file.is_relative_to(folder) and folder.is_dir()]


@cache
def _holds_installed_packages(folder: Path, changed: int) -> bool:
    """Whether packages were installed into a folder of the import path, such as by `pip install --target`."""
    return any(folder.glob("*.dist-info"))


@cache
def _editable_projects() -> frozenset[Path]:
    """Return the folders of projects that are installed in editable mode."""
    found: set[Path] = set()
    for distribution in distributions():
        text = distribution.read_text("direct_url.json")
        origin = json.loads(text) if text else {}
        if origin.get("dir_info", {}).get("editable"):
            found.add(Path(unquote(urlsplit(str(origin.get("url"))).path)).resolve())
    return frozenset(found)
