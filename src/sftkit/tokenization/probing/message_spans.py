"""From the marks in a rendered conversation to the span of text that each message was rendered to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import lt

from sftkit.tokenization.conversations import Message
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.templates.template_marks import MarkedBlock, MarkedTemplate, split_iterations, split_marks

MessageSpans = dict[int, Span]
"""Index of a message -> the characters [start, end) that it was rendered to. Those that wrote nothing are missing."""


def find_message_spans(
    rendered: str, marked: MarkedTemplate, messages: Sequence[Message], turns: Sequence[int]
) -> tuple[str, MessageSpans | None]:
    """Return the plain text of a marked rendering, and the spans of its messages.

    If the template has one loop over the messages, its iterations are counted: iteration i rendered message i, and a
    message without a span was not rendered on its own. Otherwise the marks name messages, and the loop that rendered
    all messages in `turns` is used. A template may render the last message after its loop; then the text after the loop
    is its span.

    Args:
        rendered: output of the marked template.
        marked: the marked template.
        messages: the messages.
        turns: indices of the messages whose spans are needed, ascending; one that a counted loop did not render has no
            span.

    Returns:
        The text, and the spans; None if the marks are ambiguous.
    """
    split = split_iterations(rendered, marked.counted_loop) if marked.counted_loop else None
    if split is not None:
        text, edges = split
        if len(edges) == len(messages) + 1:
            spans = dict(enumerate(pairwise(edges)))
            if all(map(lt, edges, edges[1:])):
                return text, spans
            return text, {index: (start, end) for index, (start, end) in spans.items() if start < end}
    text, blocks = split_marks(rendered)
    found = _spans_of_one_loop(blocks, messages, turns)
    if found is None and turns and turns[-1] == len(messages) - 1:
        found = _spans_of_one_loop(blocks, messages, turns[:-1])
        if found and turns[-1] not in found and (loop_end := _end_of_loop(blocks, found)) < len(text):
            return text, {**found, turns[-1]: (loop_end, len(text))}
        return text, None
    return text, found


def _spans_of_one_loop(
    blocks: Sequence[MarkedBlock], messages: Sequence[Message], turns: Sequence[int]
) -> MessageSpans | None:
    """Return the spans of the one loop that rendered all turns; None if no loop did, or several did."""
    written = [block for block in blocks if block.end > block.start and block.message >= 0]
    candidates = []
    for loop in dict.fromkeys(block.loop for block in written):
        spans = _spans_of_loop([block for block in written if block.loop == loop], messages)
        if spans is not None and all(turn in spans for turn in turns):
            candidates.append(spans)
    return candidates[0] if len(candidates) == 1 else None


def _end_of_loop(blocks: Sequence[MarkedBlock], spans: MessageSpans) -> int:
    """Return where the output of the loop ends that rendered some spans."""
    last = max(end for _, end in spans.values())
    loops = {block.loop for block in blocks if (block.start, block.end) in set(spans.values())}
    return max([last, *(block.end for block in blocks if block.loop in loops)])


def _spans_of_loop(written: Sequence[MarkedBlock], messages: Sequence[Message]) -> MessageSpans | None:
    if not written[0].exact:
        return _spans_by_equality(written, messages)
    spans = {block.message: (block.start, block.end) for block in written}
    return spans if len(spans) == len(written) else None  # else the loop ran more than once


def _spans_by_equality(written: Sequence[MarkedBlock], messages: Sequence[Message]) -> MessageSpans | None:
    """Assign blocks to messages if marks only name the first of several equal messages.

    Messages are rendered in order, so each block is the next one of the equal messages.
    """
    without_nulls = [{name: value for name, value in message.items() if value is not None} for message in messages]
    first_equal = [without_nulls.index(message) for message in without_nulls]
    spans: MessageSpans = {}
    next_index = 0
    for block in written:
        try:
            index = first_equal.index(block.message, next_index)
        except ValueError:
            return None
        spans[index] = (block.start, block.end)
        next_index = index + 1
    return spans
