"""The source formats by name and by file name extension: the built-in ones and those of installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import sftkit.sources.formats
from sftkit.core.plugins import Registry, find_built_in, find_plugins, subclass_problem
from sftkit.errors import ConfigError
from sftkit.sources.source_format import SourceFormat
from sftkit.sources.streams.decompression import COMPRESSIONS

JSON = "json"
JSON_LINES = "jsonl"
JSON_ARRAY = "json_array"
"""`JSON` stands for one of the other two, whichever the content of the file is."""


def _problem_of(extension: Any) -> str | None:
    problem = subclass_problem(extension, SourceFormat)
    if problem is not None:
        return problem
    names = extension.extensions
    if not isinstance(names, tuple) or not all(isinstance(name, str) and name.startswith(".") for name in names):
        return "must have `extensions`, a tuple of file name extensions such as ('.xml',)"
    return None


_BUILT_IN: Mapping[str, type[SourceFormat]] = find_built_in(sftkit.sources.formats, SourceFormat)
_BUILT_IN_EXTENSIONS = MappingProxyType(
    {".json": JSON} | {extension: name for name, kind in _BUILT_IN.items() for extension in kind.extensions}
)

FORMATS: Registry[type[SourceFormat]] = Registry("formats", _BUILT_IN, _problem_of)


def is_format(name: str | None) -> bool:
    """Whether a data set's `builder` names a source format, rather than a builder of `datasets`."""
    return name == JSON or name in FORMATS


def format_from_name(name: str) -> tuple[str | None, str | None]:
    """Return the format and the compression that a file name implies; None for each that it does not imply.

    Raises:
        ConfigError: An installed package registers a format that cannot be used.

    Example:
        >>> format_from_name("data/train.jsonl.gz"), format_from_name("notes.txt")
        (('jsonl', 'gzip'), (None, None))
    """
    path = PurePosixPath(name)
    compression = COMPRESSIONS.get(path.suffix.lower())
    extension = (PurePosixPath(path.stem).suffix if compression else path.suffix).lower()
    return _BUILT_IN_EXTENSIONS.get(extension) or _plugin_extensions().get(extension), compression


def known_extensions() -> str:
    """Return the file name extensions of all formats, for error messages."""
    compressed = next(iter(COMPRESSIONS))
    return ", ".join([*sorted({*_BUILT_IN_EXTENSIONS, *_plugin_extensions()}), f"each also {compressed}"])


@cache
def _plugin_extensions() -> Mapping[str, str]:
    """Map the extensions of plugin formats to their names.

    Raises:
        ConfigError: A plugin has a name or extension that another format has, or cannot be used.
    """
    found: dict[str, str] = {}
    for name, plugin in find_plugins("formats").items():
        if name == JSON:
            raise ConfigError(
                f"the package {plugin.package} registers {JSON!r} as sftkit.formats, which is the name of a built-in; "
                "rename its entry point, or uninstall the package"
            )
        for extension in FORMATS[name].extensions:
            other = _BUILT_IN_EXTENSIONS.get(extension) or found.get(extension)
            if other is not None:
                raise ConfigError(
                    f"the package {plugin.package} registers the extension {extension} for {name!r}, but {other!r} "
                    "has it; change the package, or uninstall it"
                )
            found[extension] = name
    return MappingProxyType(found)
