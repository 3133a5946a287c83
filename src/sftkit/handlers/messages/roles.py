"""The names of roles in data sets, and the role that each means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

SYSTEM, DEVELOPER, USER, ASSISTANT, TOOL = "system", "developer", "user", "assistant", "tool"

CALL = "function_call"
"""The role of an assistant message whose content is a tool call."""

STANDARD_ROLES = frozenset({SYSTEM, DEVELOPER, USER, ASSISTANT, TOOL})
"""The roles of messages as OpenAI and chat templates name them."""

_ASSISTANT_NAMES = (
    *(ASSISTANT, "gpt", "model", "bot", "chatbot", "chatgpt", "ai"),
    *("bard", "bing", "claude", "gemini", "llm"),
)
_CALL_NAMES = (CALL, "function_calls", "tool_call", "tool_calls", "assistant_tool_call")
_RESULT_NAMES = (
    *(TOOL, "function", "observation", "observations", "ipython"),
    *(f"{kind}_{result}" for kind in (TOOL, "function") for result in ("response", "result", "results", "output")),
    *(f"{kind}_responses" for kind in (TOOL, "function")),
)

ROLES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys((SYSTEM, "system_prompt"), SYSTEM),
        DEVELOPER: DEVELOPER,
        **dict.fromkeys((USER, "human", "prompter"), USER),
        **dict.fromkeys(_ASSISTANT_NAMES, ASSISTANT),
        **dict.fromkeys(_CALL_NAMES, CALL),
        **dict.fromkeys(_RESULT_NAMES, TOOL),
    }
)
"""Accepted role names and the role that each means."""

_SEPARATORS = re.compile(r"[\s-]+")


def known_role(name: str) -> str | None:
    """Return the role that a name means, in any capitalization; None if it is unknown.

    Example:
        >>> known_role(" Human "), known_role("Tool Response"), known_role("assistent")
        ('user', 'tool', None)
    """
    return ROLES.get(name) or ROLES.get(_SEPARATORS.sub("_", name.strip().lower()))
