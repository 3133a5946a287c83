"""Finds the assistant turns of simple conversations quickly; most conversations are simple."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.tokenization.conversations import USUAL_ROLES, Message
from sftkit.tokenization.masking.supervision import AssistantTurn
from sftkit.tokenization.masking.turns.turn_end import TurnEnd
from sftkit.tokenization.masking.turns.turn_start import TurnStart
from sftkit.tokenization.probing.message_spans import message_pieces
from sftkit.tokenization.templates.recording import Recording


def find_simple_turns(
    recording: Recording, messages: Sequence[Message], turn_start: TurnStart, turn_end: TurnEnd
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
        turn_start: must have a prompt that is the same for all conversations.
        turn_end: of the same template.
    """
    written = message_pieces(recording, len(messages))
    if written is None:
        return None
    before, *pieces, _ = written
    prompt, (tail, stop) = turn_start.text, turn_end.simple
    prompt_length, after_stop = len(prompt), len(tail) - stop
    turns: list[AssistantTurn] = []
    position = len(before)
    for index, message in enumerate(messages):
        piece, role = pieces[index], message.get("role")
        end = position + len(piece)
        if role == "assistant":
            if index and position == len(before):
                return None  # the messages before it were not rendered: this turn may contain them
            content = message.get("content")
            if (
                type(content) is not str
                or not piece.startswith(prompt)
                or not piece.endswith(f"{content}{tail}", prompt_length)
            ):
                return None
            turns.append(AssistantTurn(index, position + prompt_length, end - after_stop))
        elif (turns and end == position) or type(role) is not str or role not in USUAL_ROLES:
            return None
        position = end
    return turns or None
