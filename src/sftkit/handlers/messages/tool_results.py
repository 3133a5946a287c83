"""Makes tool messages of results: those in user messages of Anthropic and Gemini, and results that are no text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftkit.handlers.messages.parts import TOOL_RESULT, are_media, are_parts
from sftkit.handlers.messages.roles import TOOL, USER

Message = dict[str, Any]


def split_results(parts: Sequence[Mapping[str, Any]], keys: Mapping[str, Any]) -> list[Message]:
    """Make a tool message of each result among some parts, and user messages of the parts between them.

    Args:
        parts: content blocks, at least one of type `tool_result`.
        keys: other keys of the message, which all messages get.
    """
    messages: list[Message] = []
    others: list[Mapping[str, Any]] = []
    for part in parts:
        if part["type"] != TOOL_RESULT:
            others.append(part)
            continue
        messages += _user_message(others, keys)
        others = []
        messages.append({"role": TOOL, **dict(_result_keys(part)), "content": result_text(part.get("content")), **keys})
    return messages + list(_user_message(others, keys))


def result_text(content: Any) -> str | list[Any]:
    """Return the content of a result as text; parts that are not only text stay parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if are_parts(content) and all(part["type"] == "text" and isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    if are_media(content):
        return list(content)
    return json.dumps(content, ensure_ascii=False, default=str)


def _result_keys(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, name in (("tool_use_id", "tool_call_id"), ("name", "name"), ("is_error", "is_error")):
        if part.get(key) is not None:
            yield name, part[key]


def _user_message(parts: Sequence[Mapping[str, Any]], keys: Mapping[str, Any]) -> Iterator[Message]:
    if parts:
        are_texts = all(part["type"] == "text" and isinstance(part.get("text"), str) for part in parts)
        content = "".join(part["text"] for part in parts) if are_texts else [dict(part) for part in parts]
        yield {"role": USER, "content": content, **keys}
