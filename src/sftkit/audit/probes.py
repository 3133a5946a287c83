"""Made-up conversations that show what a chat template writes around contents, whatever the contents are."""

from __future__ import annotations

from dataclasses import dataclass

USER, SYSTEM, ASSISTANT, TOOL = "user", "system", "assistant", "tool"
CALL, SAID_CALL, REASONED = "call", "said and call", "reasoned"
ANSWERS = frozenset(
    {ASSISTANT, CALL, SAID_CALL, REASONED, "assistant_tool_call", "function_call", "model", "gpt", "ai", "chatbot"}
)
"""What may stand in a shape for a message that the model writes."""

SHAPES: tuple[tuple[str, ...], ...] = (
    (USER, ASSISTANT),
    (SYSTEM, USER, ASSISTANT),
    (USER, ASSISTANT, USER, ASSISTANT),
    (SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER, ASSISTANT),
    (USER, REASONED),
    (USER, REASONED, USER, REASONED),
    (USER, ASSISTANT, ASSISTANT),
    (USER, USER, ASSISTANT),
)
TOOL_SHAPES: tuple[tuple[str, ...], ...] = (
    (USER, CALL, TOOL, ASSISTANT),
    (SYSTEM, USER, SAID_CALL, TOOL, TOOL, ASSISTANT, USER, ASSISTANT),
    (USER, CALL, TOOL, CALL, TOOL, SAID_CALL),
    (USER, CALL),
)


@dataclass(frozen=True)
class Probe:
    """One shape of a conversation.

    shape: roles, or kinds of assistant messages. tools: whether there are any. asks: ends with a generation prompt.
    word: ends the content of the first message, for a template that looks for it there.
    """

    shape: tuple[str, ...]
    tools: bool
    asks: bool = False
    word: str = ""


@dataclass(frozen=True)
class Shown:
    """What the template and the tokenizer make of one probe, over many contents.

    specials: the special tokens in order, the same for all contents. gaps: for each stretch before, between and behind
    them its ids, one tuple for each of the contents. texts: the renderings.
    """

    probe: Probe
    specials: tuple[int, ...]
    gaps: tuple[tuple[tuple[int, ...], ...], ...]
    texts: tuple[str, ...]
