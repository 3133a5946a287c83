"""Arguments against JSON schemas of tools, which may be sloppy or hostile."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftkit.audit.tools.argument_schemas import ArgumentSchemas, UnusableSchemaError
from sftkit.audit.tools.schema_limits import MAX_DEPTH, MAX_NODES


def deep(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """References that stand for 2 ** levels subschemas."""
    definitions = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "object"}}}


TREE = {
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/node"}},
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name"],
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "arguments", "problem"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": 5}, 'a: 5 is not of type "string"'),
        ({"type": "object", "required": ["a"]}, {}, '"a" is a required property'),
        ({"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}, {"a": "z"}, 'a: "z" is not one of'),
        ({"type": "object", "properties": {}, "additionalProperties": False}, {"a": 1}, "Additional properties"),
        ({"properties": {"a": {"items": {"type": "integer"}}}}, {"a": [1, "x"]}, 'a.1: "x" is not of type "integer"'),
        ({"type": "object"}, {"a": 1}, None),
        ({}, {"a": 1}, None),
        (None, {"a": 1}, None),
        # Null for what need not be there; where null is a value, it is one.
        ({"properties": {"a": {"type": "string"}}}, {"a": None}, None),
        ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"a": None}, 'a: null is not of type "string"'),
        ({"properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]}, {"a": None}, None),
        # As columnar files hold it.
        ({"type": "object", "properties": {"a": {"type": "string", "enum": None}, "b": None}, "required": None},
         {"a": "x"}, None),
        # Names of types.
        ({"type": "OBJECT", "properties": {"a": {"type": "NUMBER"}}}, {"a": 1.5}, None),
        ({"type": "dict", "properties": {"a": {"type": "float"}, "b": {"type": "any"}}}, {"a": 1.5, "b": []}, None),
        ({"type": "dict", "properties": {"type": {"type": "str"}}}, {"type": 5}, 'type: 5 is not of type "string"'),
        # Drafts.
        ({"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"items": [{"type": "string"}]}}},
         {"a": [1]}, 'a.0: 1 is not of type "string"'),
        ({"properties": {"a": {"minimum": 1, "exclusiveMinimum": True}}}, {"a": 1}, "a: 1 is less than or equal"),
        ({"$schema": "https://example.com/my-own", "$id": "https://example.com/x", "required": ["a"]}, {"a": 1}, None),
        # References within the schema.
        (TREE, {"root": {"name": "a", "children": [{"name": "b", "children": []}]}}, None),
        (TREE, {"root": {"name": "a", "children": [{"children": []}]}}, 'root.children.0: "name" is a required'),
        ({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "string"}}}, {"a": 1}, "a: 1 is not of type"),
        # Patterns, also those that other engines need ages for.
        ({"properties": {"a": {"pattern": "^[a-z]+$"}}}, {"a": "A"}, 'a: "A" does not match'),
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 50_000 + "b"}, "a: "),
        ({"properties": {"a": {"pattern": "^(?!x)"}}}, {"a": "y"}, None),
    ],
)  # fmt: skip
def test_arguments_are_checked(schema: Any, arguments: dict[str, Any], problem: str | None) -> None:
    found = ArgumentSchemas().problem(schema, arguments)
    assert found is None if problem is None else found is not None and found.startswith(problem)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "objekt"}, "type: "),
        ({"properties": []}, "properties: "),
        ([1], "it is list, not an object"),
        ("object", "it is str, not an object"),
        ({"$ref": "https://example.com/schema.json"}, "it refers to 'https://example.com/schema.json', which is not"),
        ({"$ref": "file:///etc/passwd"}, "it refers to 'file:///etc/passwd'"),
        ({"$ref": "other.json#/a"}, "it refers to 'other.json#/a'"),
        ({"$dynamicRef": "#a"}, "it has a dynamic reference"),
        ({"$ref": "#/nowhere"}, "schema: Pointer '/nowhere' does not exist"),
        ({"$ref": "#"}, "a reference leads back to itself"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/allOf/0"}}}, "a reference leads back to itself"),
        (doubling(40), "its references stand for more than 1,000,000 subschemas"),
        (deep(MAX_DEPTH), f"it has more than {MAX_DEPTH} levels"),
        ({"enum": list(range(MAX_NODES))}, f"it has more than {MAX_NODES:,} values"),
        ({"properties": {"a": {"pattern": "("}}}, "properties.a.pattern: "),
        ({"properties": {"a": {"pattern": "((a{1000}){1000}){1000}"}}}, "properties.a.pattern: "),
        ({"properties": {"a": {"pattern": "(?=a)((a+)+)\\1$"}}}, "a pattern of it takes too many steps"),
        ({"properties": {"\ud800": {}}}, ""),
        ({"x": {1}}, "it is not JSON"),
    ],
)  # fmt: skip
def test_schemas_that_cannot_be_used_are_said_to_be(schema: Any, problem: str) -> None:
    schemas = ArgumentSchemas()
    for _ in range(2):  # compiled once, and remembered
        with pytest.raises(UnusableSchemaError) as caught:
            schemas.problem(schema, {"a": "a" * 10_000 + "b"})
        assert str(caught.value).startswith(problem)
        assert len(str(caught.value)) <= 200


def test_arguments_have_the_same_limits() -> None:
    nested: Any = 1
    for _ in range(MAX_DEPTH + 1):
        nested = [nested]
    for arguments in ({"a": nested}, {"a": list(range(MAX_NODES + 1))}):
        with pytest.raises(UnusableSchemaError):
            ArgumentSchemas().problem({"type": "object"}, arguments)


def test_a_recursive_schema_costs_what_the_arguments_need_and_no_more() -> None:
    branching = {"properties": {"a": {"allOf": [{"$ref": "#"}] * 8}}}
    assert ArgumentSchemas().problem(branching, {"a": {"a": {}}}) is None
    arguments: Any = {}
    for _ in range(30):
        arguments = {"a": arguments}
    with pytest.raises(UnusableSchemaError, match="stand for more than"):
        ArgumentSchemas().problem(branching, arguments)


_KEYWORDS = st.sampled_from(
    ["type", "properties", "items", "allOf", "anyOf", "not", "$ref", "$defs", "enum", "pattern", "required", "minimum",
     "additionalProperties", "const", "if", "then", "$id", "format", "uniqueItems", "multipleOf", "a"]
)  # fmt: skip
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from(["object", "string", "#", "#/$defs/a", "#/properties/a", "(a+)+$", "http://x/y", "a"]),
)  # fmt: skip
_SCHEMAS = st.recursive(
    _VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYWORDS, inner, max_size=4), max_leaves=12
)


@given(schema=_SCHEMAS, arguments=st.dictionaries(st.sampled_from(["a", "b"]), _SCHEMAS, max_size=2))
def test_no_schema_and_no_arguments_crash_the_check(schema: Any, arguments: dict[str, Any]) -> None:
    with suppress(UnusableSchemaError):
        problem = ArgumentSchemas().problem(schema, arguments)
        assert problem is None or problem


@given(st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(), st.booleans()), max_size=4))
def test_arguments_that_a_schema_was_made_of_are_valid_and_without_one_they_are_not(arguments: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {name: {"const": value} for name, value in arguments.items()},
              "required": list(arguments), "additionalProperties": False}  # fmt: skip
    schemas = ArgumentSchemas()
    with suppress(UnusableSchemaError):  # text with a lone surrogate
        assert schemas.problem(schema, arguments) is None
        for name in arguments:
            rest = {other: value for other, value in arguments.items() if other != name}
            assert schemas.problem(schema, rest) is not None


def test_the_validator_is_imported_only_when_a_schema_is_used() -> None:
    code = "import sys, sftkit.preprocessing.planning; print('jsonschema_rs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
