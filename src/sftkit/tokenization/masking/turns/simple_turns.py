"""Finds the assistant turns of simple conversations quickly; most conversations are simple."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.core.message_fields import USUAL_ROLES
from sftkit.tokenization.conversations import Message
from sftkit.tokenization.masking.supervision import AssistantTurn
from sftkit.tokenization.masking.turns.turn_end import TurnEnd
from sftkit.tokenization.masking.turns.turn_start import TurnStart
from sftkit.tokenization.probing.message_spans import message_starts
from sftkit.tokenization.templates.recording import Recording


def find_simple_turns(
    recording: Recording,
    messages: Sequence[Message],
    roles: Sequence[object],
    turn_start: TurnStart,
    turn_end: TurnEnd,
) -> list[AssistantTurn] | None:
    """Return the assistant turns of a rendered conversation; None if the conversation is not simple.

    A conversation is simple if

    - one loop of the template wrote all messages, in their order;
    - each assistant turn starts with the generation prompt, and ends with its content and the usual stop token
      (reasoning may stand in between);
    - each message after a turn, and at least one before the first turn, was rendered on its own.

    Then no other check is needed. In all other cases the caller must use the general method.

    Args:
        recording: the rendered conversation.
        messages: the messages of the conversation.
        roles: their roles.
        turn_start: must have a prompt that is the same for all conversations.
        turn_end: of the same template.
    """
    starts = message_starts(recording, len(roles))
    if starts is None or not _are_usual(roles) or "assistant" not in roles:
        return None
    first = roles.index("assistant")
    if first and starts[first] == starts[0]:
        return None  # the messages before it were not rendered: this turn may contain them
    if len({*starts[first:]}) < len(starts) - first:
        return None  # a message after it was not rendered
    text, prompt, (tail, stop) = recording.text, turn_start.text, turn_end.simple
    prompt_length, tail_length = len(prompt), len(tail)
    turns: list[AssistantTurn] = []
    for index in range(first, len(roles)):
        if roles[index] != "assistant":
            continue
        start, content = starts[index] + prompt_length, messages[index].get("content")
        if type(content) is not str or not text.startswith(prompt, start - prompt_length):
            return None
        content_end = starts[index + 1] - tail_length
        content_start = content_end - len(content)
        if content_start < start or text[content_start : content_end + tail_length] != content + tail:
            return None
        turns.append(AssistantTurn(index, start, content_end + stop))
    return turns


def _are_usual(roles: Sequence[object]) -> bool:
    try:
        return USUAL_ROLES.issuperset(roles)
    except TypeError:  # a role that cannot be hashed
        return False
