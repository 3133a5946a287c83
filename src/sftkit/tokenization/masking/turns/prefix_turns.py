"""Finds assistant turns by rendering prefixes of the conversation, for templates that cannot be recorded."""

from __future__ import annotations

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, assistant_indices
from sftkit.tokenization.masking.supervision import AssistantTurn
from sftkit.tokenization.masking.turns.turn_checks import check_content_in_turn, check_order
from sftkit.tokenization.masking.turns.turn_end import TurnEnd
from sftkit.tokenization.masking.turns.turn_start import TurnStart
from sftkit.tokenization.rendering.reference_renderer import Renderer


def find_turns_by_prefix(
    renderer: Renderer, conversation: Conversation, turn_start: TurnStart | None, turn_end: TurnEnd
) -> tuple[str, list[AssistantTurn]]:
    """Render a conversation, and find each assistant turn from two more renderings.

    A turn starts where the rendering of the messages before it ends, and ends where the rendering that includes it
    ends. Both renderings must be prefixes of the whole text.

    Raises:
        RowError: they are not prefixes, or a turn does not start as the template starts turns.
    """
    messages = conversation.message_list
    text = renderer.render(conversation)
    turns: list[AssistantTurn] = []
    for index in assistant_indices(messages):
        start = _end_of_prompt(renderer, conversation, index, text, turn_start)
        with_turn = renderer.render(conversation.first_messages(index + 1))
        if not text.startswith(with_turn):
            raise RowError(
                f"message {index} is rendered differently when other messages follow; cannot verify its mask"
            )
        end = len(with_turn)
        check_content_in_turn(text, start, end, messages[index])
        turns.append(AssistantTurn(index, start, turn_end.find(text, start, end, messages[index])))
    check_order(turns)
    return text, turns


def _end_of_prompt(
    renderer: Renderer, conversation: Conversation, index: int, text: str, turn_start: TurnStart | None
) -> int:
    """Return where the model starts to write the turn of a message.

    Raises:
        RowError: the text does not start with the prompt that the model gets at inference.
    """
    if index == 0:
        raise RowError(
            "the conversation starts with an assistant message, and the chat template does not show where its prompt "
            "ends; cannot verify its mask"
        )
    messages = conversation.message_list
    earlier = conversation.first_messages(index)
    before = renderer.render(earlier)
    prompt = renderer.render(earlier, add_generation_prompt=True)
    if prompt != before and text.startswith(prompt):
        return len(prompt)
    if not text.startswith(before):
        raise RowError(f"message {index} is rendered differently when other messages follow; cannot verify its mask")
    if turn_start is None:
        raise RowError("the chat template writes neither a generation prompt nor a header; cannot verify a mask")
    produced = turn_start.find_end(text, len(before), len(text), messages[index])
    if produced is None and prompt != before:
        raise RowError(f"message {index} does not start with its generation prompt; cannot verify its mask")
    return len(before) if produced is None else produced
