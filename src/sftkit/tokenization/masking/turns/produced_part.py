"""Where the produced part of an assistant turn starts, within the text that its message was rendered to."""

from __future__ import annotations

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, role_of
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.turns.turn_start import TurnStart, length_of_shared_start, start_up_to_word
from sftkit.tokenization.probing.message_spans import find_message_spans
from sftkit.tokenization.probing.turn_format import prompt_after, render_question
from sftkit.tokenization.rendering.reference_renderer import Renderer


def find_produced(
    renderer: Renderer, conversation: Conversation, turn_start: TurnStart, index: int, text: str, span: Span
) -> int:
    """Return where the produced part of a turn starts.

    That is after the turn start that was learned from made-up conversations. If the turn does not start so, or if the
    prompt may be another one here, it is after the prompt that the template writes at this point of this conversation.

    Args:
        renderer: renders the messages before the turn.
        conversation: the conversation.
        turn_start: how turns start after a question.
        index: index of the turn's message.
        text: the whole conversation.
        span: where the text of the turn starts and ends.

    Raises:
        RowError: the turn starts with neither.
    """
    messages = conversation.message_list
    learned = turn_start.find_end(text, *span, messages[index])
    if index == 0:
        if learned is None or learned == span[0]:
            learned = _find_after_opening(renderer, conversation, turn_start, index, text, span)
        if learned is None:
            raise RowError(
                "the conversation starts with an assistant message, and the chat template does not show where its "
                "prompt ends; cannot verify its mask"
            )
        return learned
    if learned is None and not turn_start.is_prompt:
        raise RowError(f"message {index} does not start with the header of assistant turns; cannot verify its mask")
    if learned is not None and not turn_start.may_differ(text, learned, messages[index - 1]):
        return learned
    produced = _find_after_prompt(renderer, conversation, index, text, span, learned)
    if produced is None:
        produced = _find_after_name(renderer, conversation, turn_start, index, text, span)
    if produced is None and role_of(messages[index - 1]) == "system":
        produced = _find_after_opening(renderer, conversation, turn_start, index, text, span)
    if produced is None:
        raise RowError(f"message {index} does not start with its generation prompt; cannot verify its mask")
    return produced


def _find_after_prompt(
    renderer: Renderer, conversation: Conversation, index: int, text: str, span: Span, learned: int | None
) -> int | None:
    """Return where the produced part starts by the prompt that the template writes here; None if that is unknown.

    Args:
        renderer: renders the messages before the turn.
        conversation: the conversation.
        index: index of the turn's message.
        text: the whole conversation.
        span: where the text of the turn starts and ends.
        learned: where the produced part starts by what was learned; None if the turn does not start so.

    Raises:
        RowError: the template does not render the messages before the turn, and nothing was learned.
    """
    start, end = span
    source = renderer.source(with_tools=conversation.tools is not None)
    try:
        prompt = prompt_after(renderer, source, conversation.first_messages(index), text[:start])
    except RowError:
        if learned is None:
            raise
        return learned
    if prompt is not None and text.startswith(prompt, start, end) and (prompt or learned is None):
        return start + len(prompt)
    if learned is not None and (learned > start or not prompt):
        return learned
    shared = (
        None if prompt is None else length_of_shared_start(prompt, text[start:end], conversation.message_list[index])
    )
    return None if shared is None else start + shared


def _find_after_opening(
    renderer: Renderer, conversation: Conversation, turn_start: TurnStart, index: int, text: str, span: Span
) -> int | None:
    """Return where the produced part of an answer starts before which nothing is asked; None if that is unknown.

    What the template writes before a question as well, such as a system text, does not belong to the turn.
    """
    start, end = span
    source = renderer.source(with_tools=conversation.tools is not None)
    question = render_question(renderer, source, conversation.first_messages(index), conversation) or ""
    shared = len(start_up_to_word(question, text[start:end]))
    header = turn_start.text
    for header_end in range(shared + 1, shared + len(header) + 1):
        if header.strip() and text.endswith(header, start, min(start + header_end, end)):
            return start + header_end
    if not turn_start.is_prompt and header:
        return None
    length = length_of_shared_start("", text[start + shared : end], conversation.message_list[index])
    return None if length is None else start + shared + length


def _find_after_name(
    renderer: Renderer, conversation: Conversation, turn_start: TurnStart, index: int, text: str, span: Span
) -> int | None:
    """Return where the produced part starts in a turn whose header contains the name of its message; None if unknown.

    That is where the text begins that follows the prompt if the message has no name.
    """
    messages = conversation.message_list
    if not messages[index].get("name"):
        return None
    nameless = {key: value for key, value in messages[index].items() if key != "name"}
    recording = renderer.record(conversation.with_message_list([*messages[:index], nameless, *messages[index + 1 :]]))
    spans = find_message_spans(recording, len(messages), [index])
    if not spans or index not in spans:
        return None
    start, end = spans[index]
    produced = turn_start.find_end(recording.text, start, end, nameless)
    if produced is None or produced == start or not text.endswith(recording.text[produced:end], *span):
        return None
    return span[1] - (end - produced)
