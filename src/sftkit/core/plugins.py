"""Handlers, packing strategies, source formats and other extensions that installed packages register.

A package registers a handler like this in its `pyproject.toml`:

    [project.entry-points."sftkit.handlers"]
    lowercase = "my_package.handlers:Lowercase"

Finding plugins reads the metadata of installed packages and imports nothing; a plugin is imported when it is used.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

from sftkit.core.error_text import single_line
from sftkit.errors import ConfigError

T = TypeVar("T")

_PREFIX = "sftkit."


@dataclass(frozen=True)
class Plugin:
    """An extension that an installed package registers."""

    name: str
    """What configs call it."""
    package: str
    """The distribution that registers it."""
    version: str
    """The version of that distribution."""
    entry_point: EntryPoint = field(repr=False)

    def load(self) -> Any:
        """Import the extension.

        Raises:
            ConfigError: its module cannot be imported, or does not have it.
        """
        try:
            return self.entry_point.load()
        except Exception as error:  # a plugin may raise anything
            kind = "" if isinstance(error, ImportError | AttributeError) else f"it raised {type(error).__name__}: "
            raise ConfigError(
                f"plugin {self.name!r} of the package {self.package} cannot be loaded from {self.entry_point.value}: "
                f"{kind}{single_line(error)}; fix the package, or uninstall it"
            ) from None

    def identity(self, extension: Any) -> list[str]:
        """What changes when the extension changes: its package, version and the sha256 of the file that defines it."""
        defined = extension if inspect.isclass(extension) or inspect.isroutine(extension) else type(extension)
        digest = ""
        with suppress(TypeError, OSError):  # not written in Python
            digest = hashlib.sha256(Path(inspect.getfile(defined)).read_bytes()).hexdigest()
        return [self.package, self.version, digest]


@cache
def find_plugins(group: str) -> Mapping[str, Plugin]:
    """Find what installed packages register in an entry point group, without importing any of it.

    Entry points are read once per process, so worker processes and Ray nodes find the same ones.

    Args:
        group: without the prefix `sftkit.`, such as `handlers`.

    Raises:
        ConfigError: two packages register the same name.

    Example:
        >>> dict(find_plugins("no_such_group"))
        {}
    """
    found: dict[str, Plugin] = {}
    for point in entry_points(group=_PREFIX + group):
        package, version = (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "")
        if point.name in found:
            raise ConfigError(
                f"the packages {found[point.name].package} and {package} both register {point.name!r} as "
                f"{_PREFIX}{group}; a name must be unique, so uninstall one of them"
            )
        found[point.name] = Plugin(point.name, package, version, point)
    return MappingProxyType(found)


def plugin_packages() -> dict[str, str]:
    """The packages that register extensions of any kind, with their versions."""
    points = entry_points()
    groups = [group for group in points.groups if group.startswith(_PREFIX)]
    found = (point.dist for group in groups for point in points.select(group=group))
    return {package.name: package.version for package in found if package is not None}


def find_built_in(package: ModuleType, base: type[Any]) -> dict[str, Any]:
    """Find the subclasses of `base` in the modules of a package and its sub-packages, by their class attribute
    `registered_as`.
    """
    found: dict[str, Any] = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for member in vars(importlib.import_module(module.name)).values():
            name = getattr(member, "registered_as", "") if inspect.isclass(member) and issubclass(member, base) else ""
            if name:
                found[name] = member
    return dict(sorted(found.items()))


def subclass_problem(extension: Any, base: type[Any]) -> str | None:
    """Say why an extension is not a usable subclass of `base`; None if it is one.

    Example:
        >>> subclass_problem(5, Mapping)
        'must be a subclass of collections.abc.Mapping'
        >>> subclass_problem(dict, Mapping)
    """
    if not inspect.isclass(extension) or not issubclass(extension, base):
        return f"must be a subclass of {base.__module__}.{base.__qualname__}"
    missing = ", ".join(sorted(getattr(extension, "__abstractmethods__", ())))
    return f"must define {missing}" if missing else None


class Registry(Mapping[str, T]):
    """The extensions of one kind by name: the built-in ones and those of installed packages.

    A plugin is imported when it is looked up; membership tests and iteration import nothing.

    Raises:
        ConfigError: (all methods) a plugin has the name of a built-in extension, or two plugins have the same name;
            (lookups) the plugin cannot be loaded or is not a valid extension.
    """

    def __init__(
        self, group: str, built_in: Mapping[str, T], problem_of: Callable[[Any], str | None] = lambda _: None
    ) -> None:
        """Name the extensions of a group.

        Args:
            group: the entry point group without the prefix `sftkit.`.
            built_in: the extensions of this package.
            problem_of: says what is wrong with an extension that a plugin provides, None if it is valid.
        """
        self._group = group
        self._built_in = built_in
        self._problem_of = problem_of

    def __getitem__(self, name: str) -> T:
        plugin = self._plugins.get(name)
        if plugin is None:
            return self._built_in[name]
        extension: T = plugin.load()
        problem = self._problem_of(extension)
        if problem is not None:
            raise ConfigError(f"plugin {name!r} of the package {plugin.package} {problem}; fix the package")
        return extension

    def __iter__(self) -> Iterator[str]:
        return iter([*self._built_in, *self._plugins])

    def __len__(self) -> int:
        return len(self._built_in) + len(self._plugins)

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._plugins

    def identity(self, name: str) -> list[str] | None:
        """What changes when an extension changes (see `Plugin.identity`); None for a built-in extension."""
        plugin = self._plugins.get(name)
        return None if plugin is None else plugin.identity(self[name])

    @property
    def _plugins(self) -> Mapping[str, Plugin]:
        found = find_plugins(self._group)
        clash = next((plugin for name, plugin in found.items() if name in self._built_in), None)
        if clash is not None:
            raise ConfigError(
                f"the package {clash.package} registers {clash.name!r} as {_PREFIX}{self._group}, which is the name of "
                "a built-in; rename its entry point, or uninstall the package"
            )
        return found
