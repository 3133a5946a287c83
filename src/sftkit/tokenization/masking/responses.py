"""Finds responses in plain text by `response_template` and `instruction_template`."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.core.row_log import RowError
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.reasoning import answer_start
from sftkit.tokenization.masking.turn_masks import TurnMasks


def response_spans(
    text: str, response_template: str, instruction_template: str | None, eos_token: str | None
) -> list[Span]:
    """Find the responses in a text.

    A response starts after each `response_template`. It ends with its eos token, which is included; without one it
    ends before the next `instruction_template`, or at the end of the text. The templates are searched in the text,
    not in its tokens, so it does not matter how they are tokenized on their own.

    A response with no end of its own before the next response (no eos token and no instruction in between) could
    contain anything, so it is left out: of several such responses only the last one is returned.

    Returns:
        Non-empty spans in characters, ordered and disjoint.

    Example:
        >>> text = "Q: one A: 1</s> Q: two A: 2"
        >>> [text[start:end] for start, end in response_spans(text, "A:", "Q:", "</s>")]
        [' 1</s>', ' 2']
    """
    spans: list[Span] = []
    found = text.find(response_template)
    while found >= 0:
        start = found + len(response_template)
        next_response = text.find(response_template, start)
        instruction = text.find(instruction_template, start) if instruction_template else -1
        limit = min((edge for edge in (next_response, instruction) if edge >= 0), default=len(text))
        eos = text.find(eos_token, start, limit) if eos_token else -1
        if eos >= 0 and eos_token:
            spans.append((start, eos + len(eos_token)))
        elif next_response < 0 or 0 <= instruction <= next_response:
            spans.append((start, limit))
        found = next_response
    return [(start, end) for start, end in spans if end > start]


def mask_responses(text: str, spans: Sequence[Span], eos_token: str | None, masks: TurnMasks) -> list[Span]:
    """Remove the reasoning and the eos tokens that carry no loss from responses; tool calls in texts are not known.

    A response whose reasoning is not closed may hold anything; it is left out if its reasoning carries no loss.

    Example:
        >>> text = "A: 1</s> A: 2</s>"
        >>> [text[start:end] for start, end in mask_responses(text, [(2, 8), (11, 17)], "</s>", TurnMasks(stop="last"))]
        [' 1', ' 2</s>']
    """
    masked = []
    for number, (start, end) in enumerate(spans, 1):
        is_last = number == len(spans)
        if masks.hides_reasoning(is_last=is_last):
            try:
                start = answer_start(text, start, end, {})
            except RowError:
                continue
        if masks.hides_stop(is_last=is_last) and eos_token and text.endswith(eos_token, start, end):
            end -= len(eos_token)
        masked.append((start, end))
    return masked
