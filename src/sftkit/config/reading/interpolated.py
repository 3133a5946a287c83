"""Values that a config takes from the environment: a run uses the value, and what it writes has the text instead."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sftkit.config.fields import Interpolated, option_info
from sftkit.config.untrusted import expand_references, uses_resolver

_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)")
_LEAST = 4  # characters of a value that is replaced wherever it is in a text


def mark_interpolated(raw: Any, resolved: Any, tree: Mapping[Any, Any]) -> Any:
    """Return a resolved config in which every text from the environment is an `Interpolated`.

    Args:
        raw: The config, unresolved.
        resolved: The same, resolved.
        tree: The whole config, unresolved, for references.
    """
    if isinstance(raw, Mapping):
        return {key: mark_interpolated(value, resolved[key], tree) for key, value in raw.items()}
    if isinstance(raw, list):
        return [mark_interpolated(*each, tree) for each in zip(raw, resolved, strict=True)]
    text = expand_references(raw, tree) if isinstance(raw, str) and "${" in raw else ""
    return _marked(resolved, text) if uses_resolver(text) else resolved


def _marked(value: Any, text: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _marked(each, text) for key, each in value.items()}
    if isinstance(value, list):
        return [_marked(each, text) for each in value]
    return Interpolated.of(value, text) if isinstance(value, str) else value


def interpolated_values(config: Any) -> dict[str, str]:
    """Return what to write in place of the values that a config took from the environment, the longest first."""
    found: dict[str, str] = {}
    for value in _interpolated(config):
        found[str(value)] = value.text
        found |= {os.environ.get(name, ""): f"${{oc.env:{name}}}" for name in _VARIABLE.findall(value.text)}
    return {value: found[value] for value in sorted(found, key=len, reverse=True) if len(value) >= _LEAST}


def _interpolated(config: Any) -> Iterator[Interpolated]:
    if isinstance(config, Interpolated):
        yield config
    elif dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            if not option_info(field).choices:  # one of a few words, which is no secret and may be part of other texts
                yield from _interpolated(getattr(config, field.name))
    elif isinstance(config, (Mapping, list, tuple)):
        for value in config.values() if isinstance(config, Mapping) else config:
            yield from _interpolated(value)


def replace_values(text: str, values: Mapping[str, str]) -> str:
    """Replace values in a text, as `interpolated_values` returns them."""
    for value, shown in values.items():
        text = text.replace(value, shown)
    return text
