"""Assistant turns by the renderings that end with them: for templates whose marks do not tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import (
    Conversation,
    Message,
    assistant_indices,
    content_of,
    text_after_reasoning,
    text_of,
)
from sftkit.tokenization.masking.supervision import AssistantTurn
from sftkit.tokenization.masking.turn_end import TurnEnd
from sftkit.tokenization.masking.turn_start import TurnStart
from sftkit.tokenization.probing.message_spans import MessageSpans
from sftkit.tokenization.rendering.reference_renderer import Renderer

# Characters of a text that is not in a turn by chance; fewer do where the text was not written elsewhere.
_TELLING, _TELLING_UNWRITTEN = 12, 4
_TAG = re.compile(r"<[^<>]*>")  # templates write these themselves

_MANY_MESSAGES = 500
_MOST_STEPS = 20_000_000  # a minute's worth


def check_conversation_size(messages: Sequence[Message]) -> None:
    """Raise `RowError` for a conversation that would take too long where each turn is held against all messages."""
    if len(messages) < _MANY_MESSAGES:
        return
    turns = len(assistant_indices(messages))
    thousands = sum(len(text_of(message)) for message in messages) // 1000
    if turns * (len(messages) + thousands) > _MOST_STEPS:
        raise RowError(
            f"a conversation of {len(messages):,} messages is too long for this template, of which each turn has to be "
            "proven against all the others; split it"
        )


def find_turns_by_prefix(
    renderer: Renderer, conversation: Conversation, opening: TurnStart | None, closing: TurnEnd
) -> tuple[str, list[AssistantTurn]]:
    """The text of a conversation, and each turn between the rendering of what comes before it and the rendering that
    ends with it. Both must be beginnings of the whole text.

    Raises:
        RowError: they are not, or a turn does not begin as the template has turns begin.
    """
    messages = conversation.message_list
    text = renderer.render(conversation)
    turns: list[AssistantTurn] = []
    for place in assistant_indices(messages):
        start = _end_of_prompt(renderer, conversation, place, text, opening)
        through = renderer.render(conversation.first_messages(place + 1))
        if not text.startswith(through):
            raise RowError(f"message {place} is rendered differently when others follow; cannot prove its mask")
        check_content_in_turn(text, start, len(through), messages[place])
        turns.append(AssistantTurn(place, start, closing.find(text, start, len(through), messages[place])))
    if any(second.start < first.end for first, second in pairwise(turns)):
        raise RowError("assistant turns overlap in the rendered text; cannot prove their masks")
    return text, turns


def check_content_in_turn(text: str, start: int, end: int, message: Message) -> None:
    """Raise `RowError` when a turn's content stands outside of the turn's text at [start, end), and not in it.

    Then either the template moved it, or the turn is not where we think. What stands nowhere was reformatted or left
    out by the template: that is its right.
    """
    for piece in _content_pieces(message):
        if text.find(piece, start, end) < 0 and piece in text[end:] + text[:start]:
            raise RowError("an assistant turn's content lies outside of the turn's own text; cannot prove its mask")


def check_no_foreign_text(produced: str, messages: Sequence[Message], place: int, stretches: MessageSpans) -> None:
    """Raise `RowError` when what a turn is to produce holds the text of another message, which the turn's own message
    does not hold: a system text that was not written by itself, or a question that is quoted.
    """
    own = str(messages[place])
    for other, message in enumerate(messages):
        said = text_of(message).strip()
        least = _TELLING if other in stretches else _TELLING_UNWRITTEN
        if other == place or len(_TAG.sub("", said)) < least or said not in produced:
            continue
        if said not in own and repr(said)[1:-1] not in own:
            raise RowError(f"message {place} is rendered with the text of message {other} in it; cannot prove its mask")


def _end_of_prompt(
    renderer: Renderer, conversation: Conversation, place: int, text: str, opening: TurnStart | None
) -> int:
    """Where the model would begin to write a turn: the end of what it would have been given.

    Raises:
        RowError: the text does not begin with what the model would have been given.
    """
    if place == 0:
        raise RowError("the conversation begins with the assistant, and nothing tells where its prompt ends")
    earlier = conversation.first_messages(place)
    before = renderer.render(earlier)
    prompt = renderer.render(earlier, add_generation_prompt=True)
    if prompt != before and text.startswith(prompt):
        return len(prompt)
    if not text.startswith(before):
        raise RowError(f"message {place} is rendered differently when others follow; cannot prove its mask")
    if opening is None:
        raise RowError("the template writes no generation prompt and no header; cannot prove a mask")
    produced = opening.find_end(text, len(before), len(text))
    if produced is None and prompt != before:
        raise RowError(f"message {place} does not begin with its generation prompt; cannot prove its mask")
    return len(before) if produced is None else produced


def _content_pieces(message: Message) -> Iterator[str]:
    """What of a message must be found in its turn: the texts of its content, after any reasoning in it."""
    content: Any = content_of(message)
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            answer = text_after_reasoning(text)
            if answer:
                yield answer
