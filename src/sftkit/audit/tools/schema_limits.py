"""Limits on JSON schemas, which come with rows and may be hostile: none may hang or end the process.

A schema is limited in size and depth. `$ref` may only point into the schema itself, and the work that it causes is
calculated before anything is validated, because a few references can stand for billions of checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

MAX_NODES = 20_000
"""Values in a schema, and in arguments."""

MAX_DEPTH = 64
"""Levels of a schema, and of arguments."""

MAX_WORK = 1_000_000
"""Subschemas that references may stand for, for arguments of a given depth."""

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "dict": "object",
        "float": "number",
        "int": "integer",
        "str": "string",
        "list": "array",
        "tuple": "array",
        "bool": "boolean",
    }
)
"""Names of Python's types, which schemas of tools often have."""

_DATA = frozenset({"const", "default", "enum", "examples", "example"})
"""Keywords whose values are data, not schemas."""

_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keywords whose values hold schemas under names."""

_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "$ref"})
"""Keywords whose schemas are about the same value, not a part of it."""

_REMOVED = frozenset({"$id", "id", "$schema", "$comment", "$vocabulary"})
_REFUSED = frozenset({"$dynamicRef", "$recursiveRef"})
_DEFINITIONS = frozenset({"$defs", "definitions"})


class SchemaLimitError(Exception):
    """A schema, or arguments, exceed a limit. The message says which."""


def prepared_schema(schema: Any) -> Any:
    """Return a copy of a schema that can be validated.

    Keys with null are left out, which columnar files fill in. Types in capitals (Gemini) and the names of Python's
    types get their names in JSON Schema. `$schema` and `$id` are left out.

    Raises:
        SchemaLimitError: the schema exceeds a limit.

    Example:
        >>> prepared_schema({"type": "OBJECT", "properties": {"a": {"type": "float", "enum": None}, "b": None}})
        {'type': 'object', 'properties': {'a': {'type': 'number'}}}
    """
    check_size(schema)
    prepared = _prepared(schema)
    _references(prepared)
    return prepared


def check_size(value: Any) -> int:
    """Return the depth of a JSON value.

    Raises:
        SchemaLimitError: it has too many values or levels.
    """
    depth, level, count = 0, [value], 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > MAX_DEPTH:
            raise SchemaLimitError(f"it has more than {MAX_DEPTH} levels")
        if count > MAX_NODES:
            raise SchemaLimitError(f"it has more than {MAX_NODES:,} values")
        level = [each for parent in level for each in _children(parent)]
    return depth


def check_work(schema: Any, depth: int) -> None:
    """Check how many subschemas apply to arguments of some depth, with all references followed.

    Args:
        schema: a prepared schema.
        depth: levels of the arguments.

    Raises:
        SchemaLimitError: there are too many, or a reference leads back to itself.
    """
    if not _references(schema):
        return
    try:
        _work(schema, schema, depth, {})
    except RecursionError:
        raise SchemaLimitError("its references are nested too deeply") from None


def _work(root: Any, schema: Any, depth: int, known: dict[tuple[int, int], int | None]) -> int:
    if not isinstance(schema, dict) or depth < 0:
        return 1
    key = id(schema), depth
    if key in known:
        work = known[key]
        if work is None:
            raise SchemaLimitError("a reference leads back to itself")
        return work
    known[key] = None
    total = 1
    for keyword, subschema in _subschemas(schema):
        target = _target(root, subschema) if keyword == "$ref" else subschema
        total += _work(root, target, depth if keyword in _IN_PLACE else depth - 1, known)
        if total > MAX_WORK:
            raise SchemaLimitError(f"its references stand for more than {MAX_WORK:,} subschemas")
    known[key] = total
    return total


def _subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword, value in schema.items():
        if keyword in _DATA or keyword in _DEFINITIONS:
            continue
        if keyword == "$ref":
            yield keyword, value
        elif isinstance(value, dict):
            for each in value.values() if keyword in _NAMED else [value]:
                yield keyword, each
        elif isinstance(value, list):
            for each in value:
                yield keyword, each


def _target(root: Any, reference: Any) -> Any:
    """Return the schema that a JSON pointer within the schema points to."""
    target = root
    for part in str(reference)[1:].split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and name.isdecimal() and len(name) < 6 and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, dict) and name in target:
            target = target[name]
        else:
            raise SchemaLimitError(f"its reference {str(reference)[:60]!r} points nowhere")
    return target


def _references(schema: Any) -> bool:
    """Return whether a schema has references.

    Raises:
        SchemaLimitError: one is not to a place within the schema.
    """
    found = False
    level = [schema]
    while level:
        for each in level:
            if not isinstance(each, dict):
                continue
            if not _REFUSED.isdisjoint(each):
                raise SchemaLimitError("it has a dynamic reference")
            reference = each.get("$ref")
            if isinstance(reference, str):
                found = True
                if reference != "#" and not reference.startswith("#/"):
                    raise SchemaLimitError(f"it refers to {reference[:60]!r}, which is not within the schema")
        level = [child for parent in level for child in _children(parent)]
    return found


def _prepared(schema: Any, *, are_names: bool = False) -> Any:
    if isinstance(schema, list):
        return [_prepared(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if value is None:
            continue
        if are_names:
            made[key] = _prepared(value)
        elif key in _DATA:
            made[key] = value
        elif key == "type":
            made[key] = _type(value)
        elif key not in _REMOVED or isinstance(value, dict):
            made[key] = _prepared(value, are_names=key in _NAMED)
    if not are_names and made.get("type") == "any":
        del made["type"]
    return made


def _type(value: Any) -> Any:
    if isinstance(value, list):
        return [_type(each) for each in value]
    if not isinstance(value, str):
        return _prepared(value)
    name = value.lower() if value.isupper() else value
    return _TYPES.get(name, name)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
