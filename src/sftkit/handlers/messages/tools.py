"""Converts the tools of a row from the formats found in data sets to the one that chat templates take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from sftkit.handlers.messages.tool_calls import MalformedCallError, parse_json, type_name

Tool = dict[str, Any]
"""`{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}`, as OpenAI has it."""

_FUNCTION = "function"
_SCHEMA_KEYS = ("input_schema", "inputSchema", "parametersJsonSchema")
"""Keys under which others have the JSON schema of the arguments: Anthropic, MCP, Gemini."""
_DECLARATIONS = ("functionDeclarations", "function_declarations")
"""Keys under which Gemini has a list of functions in one tool."""
_FUNCTION_TYPES = (None, _FUNCTION, "custom")
_CACHE_MARK = "cache_control"
_GEMINI_TYPES: Mapping[str, str] = MappingProxyType(
    {name.upper(): name for name in ("string", "number", "integer", "boolean", "array", "object", "null")}
)


def are_openai_tools(value: Any) -> bool:
    """Return whether the tools of a row are a list in the form of OpenAI, or there are none."""
    if not value:
        return value is None or value == []
    return isinstance(value, list) and all(
        isinstance(tool, dict) and isinstance(tool.get(_FUNCTION), dict) and "type" in tool for tool in value
    )


def parse_tools(value: Any) -> list[Any] | None:
    """Read the tools of a row: a list or JSON text, of functions as OpenAI, Anthropic or Gemini describes them.

    Returns:
        Tools in the form of OpenAI, and those built into a model unchanged; None if there are none.

    Raises:
        MalformedCallError: the value is not a list of tools.

    Example:
        >>> parse_tools([{"name": "now", "input_schema": {"type": "object"}}])
        [{'type': 'function', 'function': {'name': 'now', 'parameters': {'type': 'object'}}}]
    """
    if isinstance(value, str):
        value = parse_json(value, "it") if value.strip() else None
    if not value:
        return None
    tools = [value] if isinstance(value, dict) else value
    if not isinstance(tools, list):
        raise MalformedCallError(f"it must be a list of tools, not {type_name(tools)}")
    return [made for index, tool in enumerate(tools) for made in _functions(tool, index)]


def _functions(tool: Any, index: int) -> Iterator[Any]:
    """Return the functions of one entry; Gemini has several in one."""
    if isinstance(tool, str) and tool.lstrip().startswith("{"):
        tool = parse_json(tool, f"tool {index}")
    if not isinstance(tool, dict):
        raise MalformedCallError(f"tool {index} must be an object, not {type_name(tool)}")
    declarations = next((tool[key] for key in _DECLARATIONS if tool.get(key)), None)
    if declarations is None:
        yield _tool(tool, index)
        return
    for function in declarations if isinstance(declarations, list) else [declarations]:
        if not isinstance(function, dict):
            raise MalformedCallError(f"tool {index}: a function must be an object, not {type_name(function)}")
        yield _tool(function, index)


def _tool(tool: Tool, index: int) -> Tool:
    if isinstance(tool.get(_FUNCTION), dict):
        return tool if "type" in tool else {"type": _FUNCTION, **tool}
    schema = next((key for key in _SCHEMA_KEYS if key in tool), None)
    if tool.get("type") not in _FUNCTION_TYPES and schema is None:
        return tool  # one that is built into the model, such as a search
    if not isinstance(tool.get("name"), str):
        raise MalformedCallError(f"tool {index} has no name (keys: {', '.join(tool) or 'none'})")
    function = {
        "parameters" if key == schema else key: value
        for key, value in tool.items()
        if key not in ("type", _CACHE_MARK) and not (key == "parameters" and schema is not None)
    }
    if "parameters" in function:
        function["parameters"] = _json_schema(function["parameters"])
    return {"type": _FUNCTION, _FUNCTION: function}


def _json_schema(schema: Any) -> Any:
    """Return a schema with the types that Gemini writes in capitals (`OBJECT`) as JSON Schema has them."""
    if isinstance(schema, list):
        return [_json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _GEMINI_TYPES.get(value, value) if key == "type" and isinstance(value, str) else _json_schema(value)
        for key, value in schema.items()
    }
