"""Reads the `parts` of Gemini as content blocks, which `parts.py` and `tool_results.py` take apart."""

from __future__ import annotations

from typing import Any

from sftkit.core.row_log import RowError
from sftkit.handlers.messages.parts import THINKING, TOOL_RESULT, TOOL_USE
from sftkit.handlers.messages.tool_calls import type_name

PARTS = "parts"
"""The key of a message that has its parts."""

_CALL = ("functionCall", "function_call")
_RESPONSE = ("functionResponse", "function_response")
_SIGNATURES = frozenset({"thoughtSignature", "thought_signature"})

Block = dict[str, Any]


def content_of(parts: Any) -> str | list[Block]:
    """Return the parts of a message as one text, or as content blocks if they are not all text.

    Raises:
        RowError: a part is not understood.

    Example:
        >>> content_of([{"text": "hm", "thought": True}, {"text": "yes"}])
        [{'type': 'thinking', 'thinking': 'hm'}, {'type': 'text', 'text': 'yes'}]
        >>> content_of([{"text": "a"}, {"text": "b"}])
        'ab'
    """
    if isinstance(parts, (str, dict)):
        parts = [parts]
    if not isinstance(parts, list) or not parts:
        raise RowError(f"its parts must be a list, not {type_name(parts)}")
    blocks = [_block(part) for part in parts]
    return "".join(block["text"] for block in blocks) if all(map(_is_text, blocks)) else blocks


def _is_text(block: Block) -> bool:
    return bool(block["type"] == "text")


def _block(part: Any) -> Block:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise RowError(f"a part must be an object, not {type_name(part)}")
    call, response = _first(part, _CALL), _first(part, _RESPONSE)
    if isinstance(call, dict):
        return {"type": TOOL_USE, **_id(call), "name": call.get("name"), "input": call.get("args")}
    if isinstance(response, dict):
        block = {"type": TOOL_RESULT, "name": response.get("name"), "content": response.get("response")}
        return block if response.get("id") is None else {**block, "tool_use_id": response["id"]}
    text = part.get("text")
    if isinstance(text, str):
        return {"type": THINKING, THINKING: text} if part.get("thought") is True else {"type": "text", "text": text}
    keys = [key for key, value in part.items() if value is not None and key not in _SIGNATURES]
    raise RowError(f"a part with {' and '.join(map(repr, keys)) or 'no key'} is not understood")


def _first(part: Block, keys: tuple[str, ...]) -> Any:
    return next((part[key] for key in keys if part.get(key) is not None), None)


def _id(call: Block) -> Block:
    return {} if call.get("id") is None else {"id": call["id"]}
