"""From the recording of a rendered conversation to the span of text that each message was rendered to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from sftkit.core.row_log import RowError
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.templates.recording import GENERATION, NO_MESSAGE, Mark, Recording, WrittenBlock

MessageSpans = dict[int, Span]
"""Index of a message -> the characters [start, end) that it was rendered to. Those that wrote nothing are missing."""


def message_starts(recording: Recording, count: int) -> list[int] | None:
    """Return where the text of each message starts, if one loop wrote all messages, in their order.

    Args:
        recording: the rendered conversation.
        count: how many messages it has.

    Returns:
        The first character of each message, and the end of the last one, as positions in the text; else None.

    Example:
        >>> message_starts(Recording("<s>ab!", ["<s>", "a", "b", "!"], [(1, 0, 0), (3, 0, NO_MESSAGE)]), 1)
        [3, 5]
    """
    marks = marks_of_one_loop(recording.marks, count)
    if marks is None:
        return None
    positions = list(accumulate(map(len, recording.pieces), initial=0))
    return [positions[index] for index in marks]


def marks_of_one_loop(marks: Sequence[Mark], count: int) -> Sequence[int] | None:
    """Return the piece with which each message starts, and the one after the last, as `message_starts`."""
    if not marks:
        return None
    pieces, loops, messages = zip(*marks, strict=True)
    if messages == _in_order(count) and loops.count(loops[0]) == len(loops):
        return pieces
    written = {loop for _, loop, message in marks if message != NO_MESSAGE}
    others = [mark for mark in marks if mark[1] in written]
    if len(written) != 1 or len(others) == len(marks):
        return None
    return marks_of_one_loop(others, count)  # loops that wrote no message are left out


@lru_cache(maxsize=256)
def _in_order(count: int) -> tuple[int, ...]:
    """The messages of the marks of a loop over all messages."""
    return (*range(count), NO_MESSAGE)


def find_message_spans(recording: Recording, count: int, turns: Sequence[int]) -> MessageSpans | None:
    """Return the spans of messages.

    If one loop of the template iterated over all messages in their order, its iterations are their spans, and a message
    without a span was not rendered on its own. Otherwise the loop that wrote all messages in `turns` is used. A
    template may render the last message after its loop; then the text after the loop is its span.

    Args:
        recording: the rendered conversation.
        count: how many messages it has.
        turns: indices of the messages whose spans are needed, ascending.

    Returns:
        The spans; None if they are ambiguous.
    """
    loops: dict[int, list[WrittenBlock]] = {}
    for block in recording.blocks:
        if block.loop != GENERATION:
            loops.setdefault(block.loop, []).append(block)
    complete = [blocks for blocks in loops.values() if [block.message for block in blocks] == list(range(count))]
    if len(complete) == 1:
        return {block.message: (block.start, block.end) for block in complete[0] if block.start < block.end}
    found = _spans_of_one_loop(loops, turns)
    if found is None and turns and turns[-1] == count - 1:
        found = _spans_of_one_loop(loops, turns[:-1])
        if found and turns[-1] not in found and (loop_end := _end_of_loop(loops, found)) < len(recording.text):
            return {**found, turns[-1]: (loop_end, len(recording.text))}
        return None
    return found


def known_message_spans(recording: Recording, count: int, turns: Sequence[int]) -> MessageSpans:
    """Return the spans of at least the messages at some indices, as `find_message_spans`.

    Raises:
        RowError: it is ambiguous which message was rendered where.
    """
    spans = find_message_spans(recording, count, turns)
    if spans is None:
        raise RowError("with this chat template, sftkit cannot find the text that each message was rendered to")
    return spans


def _spans_of_one_loop(loops: dict[int, list[WrittenBlock]], turns: Sequence[int]) -> MessageSpans | None:
    """Return the spans of the one loop that wrote all turns; None if no loop did, or several did."""
    candidates = []
    for blocks in loops.values():
        written = [block for block in blocks if block.start < block.end]
        spans = {block.message: (block.start, block.end) for block in written}
        if spans and len(spans) == len(written) and all(turn in spans for turn in turns):
            candidates.append(spans)  # else the loop ran more than once
    return candidates[0] if len(candidates) == 1 else None


def _end_of_loop(loops: dict[int, list[WrittenBlock]], spans: MessageSpans) -> int:
    """Return where the output of the loop ends that wrote some spans."""
    wrote = set(spans.values())
    ends = [
        block.end
        for blocks in loops.values()
        if any((block.start, block.end) in wrote for block in blocks)
        for block in blocks
    ]
    return max(ends)
