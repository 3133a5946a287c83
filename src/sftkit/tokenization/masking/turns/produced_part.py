"""Where the produced part of an assistant turn starts, within the text that its message was rendered to."""

from __future__ import annotations

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.turns.turn_start import TurnStart, common_prefix, length_of_shared_start
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
    start, end = span
    messages = conversation.message_list
    if index == 0:
        return _find_first_produced(renderer, conversation, turn_start, text, span)
    produced = turn_start.find_end(text, start, end, messages[index])
    if produced is None and not turn_start.is_prompt:
        raise RowError(f"message {index} does not start with the header of assistant turns; cannot verify its mask")
    if produced is not None and not turn_start.may_differ(text, produced, messages[index - 1]):
        return produced
    earlier = conversation.first_messages(index)
    try:
        source = renderer.source(with_tools=conversation.tools is not None)
        prompt = prompt_after(renderer, source, earlier, text[:start]).text
    except RowError:
        if produced is None:
            raise
        return produced  # the template does not render the beginning of this conversation on its own
    if prompt is not None and text.startswith(prompt, start, end) and (prompt or produced is None):
        return start + len(prompt)
    if produced is not None and (produced > start or not prompt):
        return produced
    shared = None if prompt is None else length_of_shared_start(prompt, text[start:end], messages[index])
    if shared is None:
        raise RowError(f"message {index} does not start with its generation prompt; cannot verify its mask")
    return start + shared


def _find_first_produced(
    renderer: Renderer, conversation: Conversation, turn_start: TurnStart, text: str, span: Span
) -> int:
    """Return where the produced part of an answer starts that begins its conversation.

    What the template writes before a question as well, such as a default system text, does not belong to the turn.

    Raises:
        RowError: the turn starts neither as other turns nor with its content.
    """
    start, end = span
    message = conversation.message_list[0]
    produced = turn_start.find_end(text, start, end, message)
    if produced is not None and produced > start:
        return produced
    source = renderer.source(with_tools=conversation.tools is not None)
    question = render_question(renderer, source, conversation) or ""
    shared = len(common_prefix(question, text[start:end]))
    header = turn_start.text
    for header_end in range(shared + 1, shared + len(header) + 1):
        if header.strip() and text.endswith(header, start, min(start + header_end, end)):
            return start + header_end
    if turn_start.is_prompt or not header:
        length = length_of_shared_start("", text[start + shared : end], message)
        if length is not None:
            return start + shared + length
    raise RowError(
        "the conversation starts with an assistant message, and the chat template does not show where its prompt ends; "
        "cannot verify its mask"
    )
