"""The quick way to the assistant turns of a conversation in which nothing is out of the ordinary, as most are."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.tokenization.conversations import USUAL_ROLES, Message
from sftkit.tokenization.masking.supervision import AssistantTurn
from sftkit.tokenization.masking.turn_end import TurnEnd
from sftkit.tokenization.masking.turn_start import TurnStart
from sftkit.tokenization.templates.template_marks import MARK_END, MARK_START


def find_simple_turns(
    rendered: str, loop: str, messages: Sequence[Message], opening: TurnStart, closing: TurnEnd
) -> tuple[str, list[AssistantTurn]] | None:
    """The text of a marked rendering and its assistant turns; None when anything is not plain, and is to be looked at.

    Plain is: the loop was run once for each message, and nothing else wrote; every turn begins with the generation
    prompt and ends with its content and the stop token that plain turns have (reasoning may stand between); no message
    that follows a turn was left to be written with another.

    Args:
        rendered: what the marked template wrote.
        loop: name of its counted loop.
        messages: of the conversation.
        opening: with a prompt that does not depend on the conversation.
        closing: of the same template.
    """
    before, *pieces = rendered.split(f"{MARK_START}{loop}{MARK_END}")
    if len(pieces) != len(messages) or rendered.count(MARK_START) != len(pieces) + 1:
        return None
    pieces[-1], _, after = pieces[-1].partition(f"{MARK_START}/{loop}{MARK_END}")
    prompt, (tail, stop) = opening.text, closing.plain
    front, back = len(prompt), len(tail) - stop
    turns: list[AssistantTurn] = []
    position = len(before)
    for place, message in enumerate(messages):
        piece, role = pieces[place], message.get("role")
        end = position + len(piece)
        if role == "assistant":
            if place and position == len(before):
                return None  # messages before it were not written: this turn may hold them
            content = message.get("content")
            if (
                type(content) is not str
                or not piece.startswith(prompt)
                or not piece.endswith(f"{content}{tail}", front)
            ):
                return None
            turns.append(AssistantTurn(place, position + front, end - back))
        elif (turns and end == position) or type(role) is not str or role not in USUAL_ROLES:
            return None
        position = end
    return ("".join([before, *pieces, after]), turns) if turns else None
