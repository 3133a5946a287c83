"""Handlers, source formats and other extensions that installed packages register as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any


@cache
def plugins(group: str) -> Mapping[str, Any]:
    """Load what installed packages register under the entry point group `sftkit.<group>`, by name.

    A package registers a handler like this in its `pyproject.toml`:

        [project.entry-points."sftkit.handlers"]
        lowercase = "my_package.handlers:Lowercase"

    Entry points are read once per process, so worker processes and Ray nodes find the same ones.

    Example:
        >>> dict(plugins("no_such_group"))
        {}
    """
    return MappingProxyType({point.name: point.load() for point in entry_points(group=f"sftkit.{group}")})
