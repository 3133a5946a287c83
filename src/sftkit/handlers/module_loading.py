"""Importing the modules of user functions, so that what runs is known: the bytes of each module, and what it opened.

Python would run the compiled code in `__pycache__` if time and size of a source file are those of an older version of
it. The loader here compiles what it reads, and keeps the sha256 of that. It also keeps which modules were imported and
which files were opened while the module was imported.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from sftkit.errors import SourceError
from sftkit.handlers.module_search import is_installed, is_own, module_file
from sftkit.storage.files import known_sha256

_SYSTEM_FOLDERS = ("/dev/", "/proc/", "/sys/")
_IMPORTING, _READS_DATA = "<frozen importlib", "get_data"
_CODE_SUFFIXES = (".py", ".pyc", ".so", ".pyd")


class RecordingLoader(SourceFileLoader):
    """Loads a module from its source, and keeps what that depended on."""

    sha256: str = ""
    """sha256 of the source that was compiled."""
    imported: tuple[str, ...] = ()
    """Modules that were imported for the first time while this one was."""
    opened: tuple[tuple[Path, str], ...] = ()
    """Files that were opened while the module was imported, and the sha256 of each."""
    later: dict[Path, str]
    """The same for modules and files that functions of the module imported and opened while they ran."""

    def __init__(self, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self.later = {}

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source, whatever `__pycache__` holds."""
        path = self.get_filename(fullname)
        source = self.get_data(path)
        self.sha256 = hashlib.sha256(source).hexdigest()
        code: CodeType = self.source_to_code(source, path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and record what it imports and opens."""
        before = set(sys.modules)
        with opened_files() as opened:
            super().exec_module(module)
        self.imported = tuple(sorted(set(sys.modules) - before))
        self.opened = tuple(digests_of(opened).items())

    def has_changed(self) -> bool:
        """Whether the source, or a file that was opened, is no longer what it was."""
        files = [(Path(self.path), self.sha256), *self.opened, *self.later.items()]
        return any(not path.is_file() or known_sha256(path) != sha256 for path, sha256 in files)


class _RecordingFinder(MetaPathFinder):
    """Gives modules that are not installed to the recording loader."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Find a module as Python does; None for one that is not loaded from a source file of the user."""
        package = sys.modules.get(fullname.rpartition(".")[0])
        if getattr(package, "__file__", None) is not None and recorded(package) is None:
            return None  # part of an installed package, which may have thousands of modules
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader or not _is_recorded(spec):
            return None
        spec.loader = RecordingLoader(fullname, str(spec.origin))
        return spec


def _is_recorded(spec: ModuleSpec) -> bool:
    file = module_file(spec)
    return file is not None and is_own(file, [Path.cwd()])


@contextmanager
def recorded_imports() -> Iterator[None]:
    """Load the user's own modules through the recording loader, in a `with` block."""
    finder = _RecordingFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def recorded(module: ModuleType | None) -> RecordingLoader | None:
    """Return the loader that has loaded a module, if it is the recording one."""
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return loader if isinstance(loader, RecordingLoader) else None


@contextmanager
def recorded_calls(module: str) -> Iterator[None]:
    """Add what a function of a module imports and opens in a `with` block to what its loader has recorded.

    Raises:
        SourceError: a file is no longer what it was when the function opened it before.
    """
    loader = recorded(sys.modules.get(module))
    before = set(sys.modules)
    with recorded_imports(), opened_files() as opened:
        yield
    if loader is None:
        return
    for name in files_written():
        loader.later.pop(Path(name), None)
    for path, sha256 in digests_of(opened).items():
        if loader.later.setdefault(path, sha256) != sha256:
            raise SourceError(f"{path}: changed while functions of {module} read it; run the command again")
    for name in set(sys.modules) - before:
        late = recorded(sys.modules[name])
        if late is not None:
            loader.later[Path(late.path).absolute()] = late.sha256


def read_by_functions(module: str) -> dict[str, str]:
    """Return path and sha256 of all files that functions of a module have read so far, other than when imported."""
    loader = recorded(sys.modules.get(module))
    return {} if loader is None else {str(path): sha256 for path, sha256 in loader.later.items()}


def forget_changed_modules() -> None:
    """Forget all modules that were loaded here if a file of theirs has changed, so that they are imported again."""
    loaded = {name: loader for name, module in list(sys.modules.items()) if (loader := recorded(module)) is not None}
    if any(loader.has_changed() for loader in loaded.values()):
        for name in loaded:
            del sys.modules[name]


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """Yield the set of paths that are opened for reading in a `with` block."""
    active = _active_records()
    opened: set[str] = set()
    active.append(opened)
    try:
        yield opened
    finally:
        # Not `remove`, which compares sets by their content.
        active[:] = [each for each in active if each is not opened]


@cache
def _active_records() -> list[set[str]]:
    """Return the sets that receive every path that this process opens, which an audit hook fills."""
    active: list[set[str]] = []

    written = files_written()

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and active:
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and _is_in_own_code():
                name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path costs more, for each file
                is_written = (flags or 0) & (os.O_WRONLY | os.O_RDWR)
                for names in [written] if is_written else active:
                    names.add(name)

    sys.addaudithook(note)  # cannot be removed again
    return active


@cache
def files_written() -> set[str]:
    """Return the paths that the user's own code has opened for writing, such as a cache or a log; it grows."""
    return set()


def _is_in_own_code() -> bool:
    """Whether code of the user is running, or a library that it calls; not the import of a library."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING) and frame.f_code.co_name != _READS_DATA:
            return False
        if isinstance(getattr(frame.f_globals.get("__spec__"), "loader", None), RecordingLoader):
            return True
        frame = frame.f_back  # type: ignore[assignment]  # None for the outermost
    return False


def digests_of(opened: set[str]) -> dict[Path, str]:
    """Hash the data files among opened ones.

    These are regular files that are neither code nor installed, nor of the system, nor written by the same code.
    """
    found: dict[Path, str] = {}
    for name in sorted(opened):
        path = Path(name)
        if path.suffix in _CODE_SUFFIXES or name.startswith(_SYSTEM_FOLDERS) or name in files_written():
            continue
        with suppress(OSError, ValueError):  # the program may have created and removed it
            if stat.S_ISREG(path.stat().st_mode) and not is_installed(path.resolve()):
                found[path] = known_sha256(path)
    return found
