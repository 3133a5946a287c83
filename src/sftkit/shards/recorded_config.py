"""Checks the config that a manifest records, which may come from anyone: commands rely on the types of its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from types import MappingProxyType
from typing import Any


def recorded_config_problem(config: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the first key of a recorded config that a command reads; None if nothing is.

    Keys that no command reads, and those of other versions, may have any value.

    Example:
        >>> recorded_config_problem({"packing": "bfd", "chat_template_kwargs": "x"})
        'config.chat_template_kwargs is not a mapping'
    """
    return next((f"config.{key} is not {kind}" for key, kind in _wrong_keys(config)), None)


def _wrong_keys(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, kind in _KEYS.items():
        if config.get(key) is not None and not _TESTS[kind](config[key]):
            yield key, kind
            return
    for index, dataset in enumerate(config.get("datasets") or ()):
        place = f"datasets[{index}]"
        if not isinstance(dataset, Mapping):
            yield place, _MAPPING
            return
        handlers = dataset.get("data_handlers")
        if handlers is not None and not isinstance(handlers, list):
            yield f"{place}.data_handlers", _LIST
            return
        for number, handler in enumerate(handlers or ()):
            if not _is_handler(handler):
                yield f"{place}.data_handlers[{number}]", "a handler with a name and arguments"


def _is_handler(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("arguments") or {}, Mapping)
    )


def _is_day(value: Any) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


_TEXT, _LIST, _MAPPING, _DAY = "text", "a list", "a mapping", "a day in the form YYYY-MM-DD"
_TESTS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        _TEXT: lambda value: isinstance(value, str),
        _LIST: lambda value: isinstance(value, list),
        _MAPPING: lambda value: isinstance(value, Mapping),
        _DAY: _is_day,
    }
)
_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "packing": _TEXT,
        "response_template": _TEXT,
        "train_on": _TEXT,
        "train_on_stop": _TEXT,
        "reasoning": _TEXT,
        "tool_calls": _TEXT,
        "mask_pattern": _TEXT,
        "pattern_weights": _MAPPING,
        "roles_to_train": _LIST,
        "empty_reasoning": _TEXT,
        "template_date": _DAY,
        "chat_template_kwargs": _MAPPING,
        "dataprocessor": _MAPPING,
        "datasets": _LIST,
    }
)
"""The keys that commands read from a manifest, with what they must be if they are set."""
