"""Reads the system prompt of a row that has it beside its messages."""

from __future__ import annotations

from typing import Any

from sftkit.core.row_log import RowError
from sftkit.handlers.messages.gemini import PARTS, content_of
from sftkit.handlers.messages.parts import are_parts, text_of_part
from sftkit.handlers.messages.tool_calls import type_name

SYSTEM_COLUMNS = dict.fromkeys(("system", "system_prompt", "systemInstruction", "system_instruction")).keys()
"""Columns that may hold the system prompt, in order of preference."""


def parse_system(value: Any) -> str:
    """Return a system prompt as text: a text, the content blocks of Anthropic, or the parts of Gemini.

    Raises:
        RowError: it is something else.

    Example:
        >>> parse_system({"parts": [{"text": "Be brief."}]})
        'Be brief.'
    """
    if isinstance(value, dict) and value.get(PARTS) is not None:
        value = content_of(value[PARTS])
    elif isinstance(value, dict) and isinstance(value.get("text"), str):
        value = value["text"]
    if are_parts(value) and all(part["type"] == "text" for part in value):
        return "".join(map(text_of_part, value))
    if not isinstance(value, str):
        raise RowError(f"must be text, not {type_name(value)}")
    return value
