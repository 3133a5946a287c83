"""Removes the null fields that Arrow adds to objects: each has the fields of all others in its column."""

from __future__ import annotations

from typing import Any


def without_null_fields(value: Any) -> Any:
    """Return a value of an Arrow column without the null fields of objects, and with maps as objects.

    Example:
        >>> without_null_fields([{"role": "user", "name": None}, None])
        [{'role': 'user'}, None]
    """
    if isinstance(value, dict):
        return {name: without_null_fields(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):  # an Arrow map is a list of pairs
            return {str(name): without_null_fields(item) for name, item in value}
        return [without_null_fields(item) for item in value]
    return value
