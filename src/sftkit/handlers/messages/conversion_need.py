"""Recognizes conversations that are not yet messages as chat templates take them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from sftkit.handlers.messages.roles import ASSISTANT, STANDARD_ROLES, SYSTEM, TOOL, USER
from sftkit.handlers.messages.template_forms import NoTemplate, TemplateForms
from sftkit.handlers.messages.tool_calls import is_object_text
from sftkit.handlers.messages.turn_reader import CONTENT_KEYS, unwritten_types

_PLAIN_ROLES = frozenset({SYSTEM, USER, ASSISTANT, TOOL})
_CALLS, _OLD_CALL, _REFUSAL = "tool_calls", "function_call", "refusal"
_CALL_KEYS = frozenset({_CALLS, _OLD_CALL})


def needs_conversion(conversation: Any, forms: Callable[[], TemplateForms] = NoTemplate) -> bool:
    """Return whether a conversation has something that the chat template cannot read, or would misread.

    Args:
        conversation: the value of a conversation column.
        forms: tells what the template can write; called only for what it may be able to.
    """
    if isinstance(conversation, list):
        return not _are_plain(conversation) and any(_needs_conversion(turn, forms) for turn in conversation)
    return isinstance(conversation, (str, dict))


def _are_plain(messages: list[Any]) -> bool:
    """Return whether all messages have a usual role and a text, and no calls, as in most conversations."""
    try:
        if {type(message["content"]) for message in messages} != {str}:
            return False
        if not _PLAIN_ROLES.issuperset([message["role"] for message in messages]):
            return False
        # With two keys, these are all that there are.
        return {*map(len, messages)} == {2} or _CALL_KEYS.isdisjoint(chain.from_iterable(messages))
    except (KeyError, TypeError):  # something is missing, not an object, or not a text
        return False


def _needs_conversion(turn: Any, forms: Callable[[], TemplateForms]) -> bool:
    if not isinstance(turn, dict):
        return True
    role = turn.get("role")
    if not isinstance(role, str) or (role not in STANDARD_ROLES and not forms().knows_role(role)):
        return True
    if turn.get(_OLD_CALL) or (turn.get(_CALLS, ...) is not ... and _need_conversion(turn[_CALLS], forms)):
        return True
    content = turn.get("content")
    if isinstance(content, str):
        return not content and bool(turn.get(_REFUSAL))
    if content is None:
        return bool(turn.get(_REFUSAL)) or any(turn.get(key) is not None for key in CONTENT_KEYS)
    if isinstance(content, list):
        return bool(unwritten_types(content, forms)) or (role == TOOL and not _are_parts_or_texts(content))
    return role != TOOL or not isinstance(content, dict) or not forms().writes_objects_as_json()


def _need_conversion(calls: Any, forms: Callable[[], TemplateForms]) -> bool:
    if not calls:
        return not forms().ignores_calls(calls)
    return not isinstance(calls, list) or any(_call_needs_conversion(call, forms) for call in calls)


def _call_needs_conversion(call: Any, forms: Callable[[], TemplateForms]) -> bool:
    if not isinstance(call, dict):
        return True
    function = call.get("function")
    if not isinstance(function, dict):
        return not isinstance(call.get("arguments"), dict) or not forms().writes_bare_calls()
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        return forms().takes_objects() or not is_object_text(arguments)
    return not isinstance(arguments, dict)


def _are_parts_or_texts(content: list[Any]) -> bool:
    return all(isinstance(part, str) or (isinstance(part, dict) and "type" in part) for part in content)
