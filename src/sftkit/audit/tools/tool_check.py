"""Checks the tool calls of a conversation: their names, arguments and results, and the order of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sftkit.audit.findings import (
    TOOL_ARGUMENTS_INVALID,
    TOOL_JSON_INVALID,
    TOOL_NOT_OFFERED,
    TOOL_ORDER,
    TOOL_RESULT_UNPAIRED,
    TOOL_SCHEMA_UNUSABLE,
)
from sftkit.audit.tools.argument_schemas import ArgumentSchemas, UnusableSchemaError

Message = Mapping[str, Any]

_NAMES_SHOWN = 5


REASONS: Mapping[str, str] = MappingProxyType(
    {
        TOOL_JSON_INVALID: "invalid JSON of a tool call, or of the tools",
        TOOL_NOT_OFFERED: "a call names a tool that the row does not offer",
        TOOL_ARGUMENTS_INVALID: "arguments of a call that are not valid against the tool's schema",
        TOOL_RESULT_UNPAIRED: "a result that belongs to no call",
        TOOL_ORDER: "an order that is not call, result, answer",
        TOOL_SCHEMA_UNUSABLE: "a schema of a tool that cannot be used",
    }
)
"""Why a row is dropped that breaks a rule."""


class ToolFault(NamedTuple):
    """Something that is wrong with the tool calls of a conversation."""

    rule: str
    """The rule of the audit that it breaks."""
    message: str
    """What is wrong, and in which message."""


class Offered(NamedTuple):
    """The tools of a row."""

    schemas: Mapping[str, Sequence[Any]]
    """The name of each tool, and the JSON schemas of its arguments: one, or several of tools of the same name."""
    has_list: bool
    """Whether the row has a list of tools."""
    prompt: str
    """The system prompt, which may describe tools if there is no list."""

    def names(self) -> str:
        """The names, for a message."""
        shown = ", ".join(list(self.schemas)[:_NAMES_SHOWN])
        return shown + (", ..." if len(self.schemas) > _NAMES_SHOWN else "") if shown else "no tools"


def offered_tools(tools: Sequence[Any] | None, messages: Sequence[Message]) -> Offered:
    """Return the tools that a row offers.

    Args:
        tools: in the form of OpenAI; those built into a model (with a `type` of their own) have no schema.
        messages: of the conversation.
    """
    schemas: dict[str, list[Any]] = {}
    for tool in tools or ():
        described = tool.get("function", tool) if isinstance(tool, Mapping) else {"name": tool}
        if not isinstance(described, Mapping):
            continue
        name = described.get("name") or described.get("type")
        if isinstance(name, str):
            schemas.setdefault(name, []).append(None if described is tool else described.get("parameters"))
    prompts = [str(each.get("content")) for each in messages if each.get("role") in ("system", "developer")]
    return Offered(schemas, bool(tools), "\n".join(prompts))


def check_tool_use(
    turns: Sequence[Sequence[Message]], tools: Sequence[Any] | None, schemas: ArgumentSchemas
) -> list[ToolFault]:
    """Check the tool calls of a conversation.

    Args:
        turns: the messages of each turn as the data has it, in the form of chat templates. A turn with results of
            tools and other content is several messages.
        tools: the tools of the row, in the form of OpenAI.
        schemas: compiles the schemas of tools, and keeps them.

    Example:
        >>> call = {"function": {"name": "now", "arguments": {}}}
        >>> turns = [[{"role": "user", "content": "time?"}], [{"role": "assistant", "tool_calls": [call]}]]
        >>> check_tool_use(turns, [{"type": "function", "function": {"name": "add"}}], schemas=ArgumentSchemas())
        [ToolFault(rule='tool_not_offered', message="message 1 calls 'now', which is no tool of the row (add)")]
    """
    offered = offered_tools(tools, [message for turn in turns for message in turn])
    faults: list[ToolFault] = []
    for index, turn in enumerate(turns):
        for message in turn:
            for call in message.get("tool_calls") or ():
                faults += _call_faults(call, index, offered, schemas)
    return faults + list(_Pairing().faults(turns))


def _call_faults(call: Any, index: int, offered: Offered, schemas: ArgumentSchemas) -> Iterator[ToolFault]:
    function = call.get("function", call)
    name, arguments = function.get("name"), function.get("arguments") or {}
    if name not in offered.schemas:
        if offered.has_list or str(name) not in offered.prompt:
            message = f"message {index} calls {str(name)[:60]!r}, which is no tool of the row ({offered.names()})"
            yield ToolFault(TOOL_NOT_OFFERED, message)
        return
    problems: list[str] = []
    for schema in offered.schemas[name]:
        try:
            problem = schemas.problem(schema, arguments)
        except UnusableSchemaError as error:
            yield ToolFault(
                TOOL_SCHEMA_UNUSABLE, f"message {index} calls {name!r}, whose schema cannot be used: {error}"
            )
            return
        if problem is None:
            return
        problems.append(problem)
    yield ToolFault(TOOL_ARGUMENTS_INVALID, f"message {index} calls {name!r} with invalid arguments: {problems[0]}")


class _Pairing:
    """Follows the calls of a conversation that wait for their results."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, Any]] = []
        """(id, name) of each call without a result."""
        self._called_in = 0
        """The message with these calls."""
        self._has_results = False
        """Whether one of the calls of that message has a result."""
        self._one_for_all = False
        """Whether there was one result, without an id, which may be that of all calls."""
        self._ended_with_result = False

    def faults(self, turns: Sequence[Sequence[Message]]) -> Iterator[ToolFault]:
        """Yield what is wrong with the order of messages, and with results."""
        for index, turn in enumerate(turns):
            for place, message in enumerate(turn):
                role = message.get("role")
                if role == "tool":
                    yield from self._result(message, index)
                    continue
                yield from self._no_more_results(index)
                if self._ended_with_result and role != "assistant" and place == 0:
                    yield ToolFault(TOOL_ORDER, f"message {index} ({role}) follows a result that has no answer")
                self._ended_with_result = False
                calls = message.get("tool_calls") or ()
                self._waiting = [(call.get("id"), call.get("function", call).get("name")) for call in calls]
                self._called_in, self._has_results, self._one_for_all = index, False, False

    def _no_more_results(self, index: int) -> Iterator[ToolFault]:
        """Check, at the next message of another kind, that each call got its result."""
        if self._waiting and not self._one_for_all:
            name = str(self._waiting[0][1])[:60]
            yield ToolFault(
                TOOL_ORDER, f"message {self._called_in} calls {name!r}, but message {index} comes before its result"
            )

    def _result(self, message: Message, index: int) -> Iterator[ToolFault]:
        identifier, name = message.get("tool_call_id"), message.get("name")
        self._ended_with_result = True
        self._one_for_all = not self._has_results and identifier is None
        match = self._match(identifier, name)
        self._has_results = True
        if match is None:
            shown = f"id {str(identifier)[:60]!r}" if identifier is not None else f"name {str(name)[:60]!r}"
            why = f"its {shown} is of no call that waits for one" if self._waiting else "no call waits for one"
            yield ToolFault(TOOL_RESULT_UNPAIRED, f"message {index} is a result, but {why}")
        else:
            del self._waiting[match]

    def _match(self, identifier: Any, name: Any) -> int | None:
        """Return which waiting call a result belongs to: by its id; without ids, by its name, else the first."""
        if identifier is not None and any(other is not None for other, _ in self._waiting):
            return next((at for at, (other, _) in enumerate(self._waiting) if other == identifier), None)
        if name is not None:
            return next((at for at, (_, other) in enumerate(self._waiting) if other == name), None)
        return 0 if self._waiting else None
