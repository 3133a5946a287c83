"""Makes messages of one turn of a conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sftkit.config.binding import describe_value
from sftkit.config.fields import did_you_mean
from sftkit.core.message_fields import REASONING_FIELDS
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.messages import gemini
from sftkit.handlers.messages.parts import TOOL_RESULT, Content, are_media, are_parts, foreign_types, parse_parts
from sftkit.handlers.messages.roles import ASSISTANT, CALL, ROLES, STANDARD_ROLES, TOOL, USER, known_role
from sftkit.handlers.messages.template_forms import TemplateForms
from sftkit.handlers.messages.tool_calls import (
    message_calls,
    parse_calls,
    parse_json,
    split_text_and_calls,
    type_name,
)
from sftkit.handlers.messages.tool_results import Message, result_text, split_results

_ROLE, _CONTENT, _REFUSAL = "role", "content", "refusal"
ROLE_KEYS = (_ROLE, "from")
CONTENT_KEYS = (_CONTENT, "value", "text", "message", gemini.PARTS)
"""Keys of messages that have the role and the content, in order of preference."""

_THINKING = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


class ReadTurn(NamedTuple):
    """What became of a turn."""

    messages: list[Message]
    is_call: bool
    """Whether the role of the turn says that it is a tool call."""


@dataclass(frozen=True)
class TurnReader:
    """Reads turns of conversations in the forms found in data sets."""

    role_key: str | None
    """Key that holds the role; None for one of `ROLE_KEYS`."""
    content_key: str | None
    """Key that holds the content; None for one of `CONTENT_KEYS`."""
    roles: Mapping[str, str]
    """Further names of roles, and the role that each means."""
    keeps_written: bool
    """Whether what the template can write as it is stays so."""

    def read(self, turn: Any, forms: Callable[[], TemplateForms]) -> ReadTurn:
        """Make messages of a turn.

        Raises:
            RowError: the turn is not understood.
        """
        if isinstance(turn, str) and turn.lstrip().startswith("{"):
            turn = parse_json(turn, "it")
        if not isinstance(turn, dict):
            raise RowError(f"it must be an object, not {type_name(turn)}")
        role_key = self.role_key or first_of(turn, *ROLE_KEYS)
        role = self._role(turn, role_key, forms)
        if role not in STANDARD_ROLES and role != CALL:
            return ReadTurn([{**turn, _ROLE: role}], is_call=False)  # a role of the template's own
        content_key = self.content_key or first_of(turn, *CONTENT_KEYS)
        content: Any = turn.get(content_key)
        if content_key == gemini.PARTS and content is not None:
            content = gemini.content_of(content)
        taken = {role_key, content_key, _ROLE, _CONTENT, "tool_calls", "function_call"}
        keys = {key: value for key, value in turn.items() if key not in taken}
        if role in (USER, TOOL) and TOOL_RESULT in unwritten_types(content, forms):
            return ReadTurn(split_results(content, keys), is_call=False)
        return ReadTurn([self._message(turn, role, content, keys, forms)], is_call=role == CALL)

    def _message(
        self, turn: Row, role: str, content: Any, keys: dict[str, Any], forms: Callable[[], TemplateForms]
    ) -> Message:
        calls, has_reasoning = message_calls(turn), any(turn.get(key) for key in REASONING_FIELDS)
        refusal = turn.get(_REFUSAL)
        if role == ASSISTANT and not content and isinstance(refusal, str) and refusal:
            content = refusal
            del keys[_REFUSAL]
        if self.keeps_written and role == TOOL and isinstance(content, dict) and forms().writes_objects_as_json():
            return {_ROLE: role, _CONTENT: content, **keys}
        parsed = self._parse(content, role, forms, may_be_empty=bool(calls) or has_reasoning)
        if parsed.reasoning is not None and has_reasoning:
            raise RowError("it has reasoning both in its content and beside it")
        message = {_ROLE: ASSISTANT if role == CALL else role, _CONTENT: parsed.text, **keys}
        for name, flag in parsed.flags.items():
            if message.get(name, flag) not in (None, flag):
                raise RowError(f"its {name!r} is {message[name]!r}, and that of its parts is {flag!r}")
            message[name] = flag
        if parsed.reasoning is not None:
            message["reasoning_content"] = parsed.reasoning
        if parsed.redacted:
            message["redacted_thinking"] = list(parsed.redacted)
        if parsed.calls or calls:
            message["tool_calls"] = [*parsed.calls, *calls]
        if self.keeps_written and content is None and turn.get(_ROLE) is not None:
            # Whether templates want null or an empty text beside calls differs; the tokenizer adapts it.
            message.pop(_CONTENT)
            message |= {key: None for key in (_CONTENT,) if key in turn}
        return message

    def _role(self, turn: Row, key: str, forms: Callable[[], TemplateForms]) -> str:
        if turn.get(key) is None:
            raise RowError(f"it has no {key!r} (keys: {', '.join(turn) or 'none'})")
        name = turn[key]
        if not isinstance(name, str) or not name.strip():
            raise RowError(f"unknown role {describe_value(name)}; map it to a known role with `roles`")
        if name in self.roles:
            return ROLES[self.roles[name]]
        role = known_role(name)
        if role == name and role in STANDARD_ROLES:
            return role
        as_it_is = self.keeps_written and key == _ROLE
        if role is not None:
            knows = forms().knows_role(name)
            return name if knows and (as_it_is or not _is_written(role, forms())) else role
        hint = did_you_mean(name.strip().lower(), {**ROLES, **self.roles})
        if forms().knows_role(name) or (as_it_is and not hint and forms().writes_role(name)):
            return name
        raise RowError(f"unknown role {describe_value(name)}{hint}; map it to a known role with `roles`")

    def _parse(self, content: Any, role: str, forms: Callable[[], TemplateForms], *, may_be_empty: bool) -> Content:
        """Take the content of a message apart. It may be empty if it has calls or reasoning under other keys."""
        if content is None:
            if may_be_empty:
                return Content()
            raise RowError("it has no content")
        if role == TOOL and not isinstance(content, str) and not are_media(content):
            return Content(result_text(content))
        if unwritten_types(content, forms):
            return parse_parts(content, role)
        if role == CALL:
            return _parse_call_content(content)
        if isinstance(content, str) or are_parts(content) or (self.keeps_written and _are_texts(content)):
            return Content(content)
        raise RowError(f"its content must be text, not {type_name(content)}")


def unwritten_types(content: Any, forms: Callable[[], TemplateForms]) -> frozenset[str]:
    """Return the types of parts in a content that need conversion; none if the template writes all of them."""
    found = foreign_types(content)
    return frozenset() if found and all(forms().writes_part(kind) for kind in found) else found


def first_of(row: Row, *keys: str) -> str:
    """Return the first of these keys whose value is not null, else the first that exists, else the first."""
    for key in keys:
        if row.get(key) is not None:
            return key
    return next((key for key in keys if key in row), keys[0])


def _is_written(role: str, forms: TemplateForms) -> bool:
    return forms.writes_calls() if role == CALL else forms.writes_role(role)


def _are_texts(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and all(isinstance(each, (str, dict)) for each in content)


def _parse_call_content(content: Any) -> Content:
    """Read calls, as objects or as JSON text; reasoning and other text may come before them."""
    if not isinstance(content, str):
        return Content(calls=parse_calls(content))
    thinking = _THINKING.match(content)
    text, calls = split_text_and_calls(content[thinking.end() :] if thinking else content)
    return Content(text, thinking[1].strip("\n") if thinking else None, calls)
