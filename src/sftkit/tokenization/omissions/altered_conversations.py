"""Changes values of a conversation, to see whether a template writes something else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sftkit.tokenization.conversations import Conversation, Message

CALLS = ("tool_calls", "function_call")
"""Keys of a message that hold calls."""

Place = tuple[int, str]
"""The index of a message, and one of its keys."""

_MEDIA_PREFIX = "content: "


def part_key(kind: str) -> str:
    """Return the key that stands for the parts of a kind in the content of a message (`content: image`)."""
    return f"{_MEDIA_PREFIX}{kind}"


def mark_of(place: Place) -> str:
    """Return the characters that are put into the value at a place: digits, which no filter changes."""
    return f"907{place[0]:07d}{sum(map(ord, place[1])):05d}509"


def altered(conversation: Conversation, places: Iterable[Place], *, keeps_texts: bool) -> Conversation:
    """Return a conversation with other values at some places.

    Args:
        conversation: the conversation.
        places: where to change it.
        keeps_texts: whether marks are added to texts, at both ends, instead of taking their place.
    """
    messages = list(conversation.message_list)
    for index, key in places:
        messages[index] = _altered_message(messages[index], key, mark_of((index, key)), keeps_texts)
    return conversation.with_message_list(messages)


def _altered_message(message: Message, key: str, mark: str, keeps_texts: bool) -> Message:
    if key.startswith(_MEDIA_PREFIX):
        kind = key.removeprefix(_MEDIA_PREFIX)
        parts = [part for part in message["content"] if not (isinstance(part, Mapping) and part.get("type") == kind)]
        return {**message, "content": parts}
    value = message[key]
    if key in CALLS:
        return {**message, key: _altered_calls(value, mark)}
    if isinstance(value, str):
        return {**message, key: _altered_text(value, mark, keeps_texts)}
    if key in ("content", "value"):
        return {**message, key: _altered_content(value, mark, keeps_texts)}
    return {name: each for name, each in message.items() if name != key}


def _altered_text(text: str, mark: str, keeps_texts: bool) -> str:
    return f"{mark}{text}{mark}" if keeps_texts else mark


def _altered_content(content: Any, mark: str, keeps_texts: bool) -> Any:
    if not isinstance(content, list):
        return mark
    parts: list[Any] = []
    for part in content:
        if isinstance(part, str):
            part = _altered_text(part, mark, keeps_texts)
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            part = {**part, "text": _altered_text(part["text"], mark, keeps_texts)}
        parts.append(part)
    return parts


def _altered_calls(calls: Any, mark: str) -> Any:
    """Give calls another name and one more argument."""
    if isinstance(calls, list):
        return [_altered_calls(call, mark) for call in calls]
    if isinstance(calls, str):
        return f"{calls}{mark}"
    if not isinstance(calls, Mapping):
        return mark
    if isinstance(calls.get("function"), Mapping):
        return {**calls, "function": _altered_calls(calls["function"], mark)}
    changed = dict(calls)
    if isinstance(changed.get("name"), str):
        changed["name"] += mark
    if "arguments" in changed:
        changed["arguments"] = _altered_arguments(changed["arguments"], mark)
    return changed


def _altered_arguments(arguments: Any, mark: str) -> Any:
    if isinstance(arguments, Mapping):
        return {**arguments, mark: mark}
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return f"{arguments}{mark}"
    return json.dumps({**parsed, mark: mark}, ensure_ascii=False) if isinstance(parsed, dict) else arguments
