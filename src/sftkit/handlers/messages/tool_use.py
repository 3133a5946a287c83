"""Reads the tool calls of a row, their results and the tools, in any form found in data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.messages.conversation_values import read_turns
from sftkit.handlers.messages.roles import ASSISTANT, DEVELOPER, SYSTEM, USER
from sftkit.handlers.messages.template_forms import NoTemplate
from sftkit.handlers.messages.tool_calls import MalformedCallError
from sftkit.handlers.messages.tool_results import Message
from sftkit.handlers.messages.tools import parse_tools
from sftkit.handlers.messages.turn_reader import TurnReader

TOOLS = ("tools", "functions")
"""Columns that hold the tools, in order of preference."""

_WITHOUT_TOOLS = frozenset({SYSTEM, DEVELOPER, USER, ASSISTANT})
_CALL_KEYS = frozenset({"tool_calls", "function_call"})


class ToolUse(NamedTuple):
    """The conversation of a row with tools."""

    turns: Sequence[Sequence[Message]]
    """The messages of each turn, in the form of OpenAI."""
    tools: list[Any] | None
    """The tools that the row offers, in the form of OpenAI."""


def usual_reader(roles: Mapping[str, str] | None = None) -> TurnReader:
    """Return a reader of turns in any known form."""
    return TurnReader(None, None, roles or {}, keeps_written=False)


def read_tool_use(row: Row, column: str, reader: TurnReader, tools_columns: Sequence[str] = TOOLS) -> ToolUse | None:
    """Read the conversation and the tools of a row; return None if no message has to do with tools.

    A conversation that is not understood for another reason than its tool calls is left to the handler that needs it.

    Args:
        row: the row.
        column: the column of the conversation.
        reader: reads turns.
        tools_columns: columns of which the first that is filled holds the tools.

    Raises:
        MalformedCallError: JSON does not parse, or a call or a tool is no object with a name.

    Example:
        >>> call = {"from": "function_call", "value": '{"name": "now", "arguments": {}}'}
        >>> read_tool_use({"conversations": [call]}, "conversations", usual_reader()).turns[0][0]["tool_calls"]
        [{'type': 'function', 'function': {'name': 'now', 'arguments': {}}}]
    """
    if _is_plain_talk(row.get(column)):
        return None
    try:
        turns = read_turns(row.get(column), column, reader, NoTemplate)
    except MalformedCallError:
        raise
    except RowError:
        return None
    if not any(message.get("tool_calls") or message.get("role") == "tool" for turn in turns for message in turn):
        return None
    name = next((name for name in tools_columns if row.get(name)), None)
    try:
        return ToolUse(turns, None if name is None else parse_tools(row[name]))
    except MalformedCallError as error:
        raise MalformedCallError(f"column {name!r}: {error}") from None


def _is_plain_talk(messages: Any) -> bool:
    """Return whether all messages are texts of usual roles, without calls, as in most conversations."""
    try:
        return (
            isinstance(messages, list)
            and {type(message["content"]) for message in messages} == {str}
            and _WITHOUT_TOOLS.issuperset([message["role"] for message in messages])
            and _CALL_KEYS.isdisjoint(chain.from_iterable(messages))
        )
    except (KeyError, TypeError):
        return False
