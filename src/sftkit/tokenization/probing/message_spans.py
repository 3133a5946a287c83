"""Marks in a rendered conversation -> the stretch of text that each message was rendered to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import lt

from sftkit.tokenization.conversations import Message
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.templates.template_marks import MarkedBlock, MarkedTemplate, split_iterations, split_marks

MessageSpans = dict[int, Span]
"""Place of a message -> the characters [start, end) that it was rendered to; empty ones are left out."""


def find_message_spans(
    rendered: str, marked: MarkedTemplate, messages: Sequence[Message], turns: Sequence[int]
) -> tuple[str, MessageSpans | None]:
    """The plain text of a marked rendering, and the stretches of the messages; None where the marks do not tell.

    turns: places of messages that are asked for: the loop that wrote them is the one that tells. Where the turns of a
    loop are counted, a message without a stretch was not written by itself.
    """
    split = split_iterations(rendered, marked.counted_loop) if marked.counted_loop else None
    if split is not None:
        text, edges = split
        if len(edges) == len(messages) + 1:
            spans = dict(enumerate(pairwise(edges)))
            if all(map(lt, edges, edges[1:])):
                return text, spans
            return text, {place: (start, end) for place, (start, end) in spans.items() if start < end}
    text, blocks = split_marks(rendered)
    stretches = _of_one_loop(blocks, messages, turns)
    if stretches is None and turns and turns[-1] == len(messages) - 1:
        # A template may write the last answer behind the loop: then that is what stands there.
        stretches = _of_one_loop(blocks, messages, turns[:-1])
        if stretches and turns[-1] not in stretches and (edge := _end_of(blocks, stretches)) < len(text):
            return text, {**stretches, turns[-1]: (edge, len(text))}
        return text, None
    return text, stretches


def _of_one_loop(
    blocks: Sequence[MarkedBlock], messages: Sequence[Message], turns: Sequence[int]
) -> MessageSpans | None:
    """What the one loop wrote that has all the turns; None when none has, or several have."""
    written = [block for block in blocks if block.end > block.start and block.message >= 0]
    found = []
    for loop in dict.fromkeys(block.loop for block in written):
        stretches = _of_loop([block for block in written if block.loop == loop], messages)
        if stretches is not None and all(turn in stretches for turn in turns):
            found.append(stretches)
    return found[0] if len(found) == 1 else None


def _end_of(blocks: Sequence[MarkedBlock], stretches: MessageSpans) -> int:
    """Where the loop ends that wrote some stretches."""
    last = max(end for _, end in stretches.values())
    loops = {block.loop for block in blocks if (block.start, block.end) in set(stretches.values())}
    return max([last, *(block.end for block in blocks if block.loop in loops)])


def _of_loop(written: Sequence[MarkedBlock], messages: Sequence[Message]) -> MessageSpans | None:
    if not written[0].exact:
        return _named(written, messages)
    stretches = {block.message: (block.start, block.end) for block in written}
    return stretches if len(stretches) == len(written) else None  # else the loop ran more than once


def _named(written: Sequence[MarkedBlock], messages: Sequence[Message]) -> MessageSpans | None:
    """Where marks name the first of several equal messages, the order of rendering tells which one it is."""
    plain = [{name: value for name, value in message.items() if value is not None} for message in messages]
    first_equal = [plain.index(message) for message in plain]
    stretches: MessageSpans = {}
    following = 0
    for block in written:
        try:
            index = first_equal.index(block.message, following)
        except ValueError:
            return None
        stretches[index] = (block.start, block.end)
        following = index + 1
    return stretches
