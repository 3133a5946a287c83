"""Responses in a text, found by the texts that open them (`response_template`, `instruction_template`)."""

from __future__ import annotations

import numpy as np

from sftkit.core.rows import IGNORE_INDEX, Ids, Mask, Offsets, Ragged
from sftkit.tokenization.encoding.spans import Span


def response_spans(
    text: str, response_template: str, instruction_template: str | None, eos_token: str | None
) -> list[Span]:
    """The parts of a text the model has to produce, in characters.

    A response begins after each `response_template`. It ends with its eos token, which is part of it; where it has
    none, before the next `instruction_template`, or at the end of the text. The templates are looked for in the text,
    so that how they tokenize in isolation does not matter.

    A response without an end of its own before the next one opens (no eos, no instruction between) could hold
    anything: it is left out, so that of several such responses the last one counts.
    """
    spans: list[Span] = []
    opening = text.find(response_template)
    while opening >= 0:
        start = opening + len(response_template)
        following = text.find(response_template, start)
        instruction = text.find(instruction_template, start) if instruction_template else -1
        limit = min((edge for edge in (following, instruction) if edge >= 0), default=len(text))
        stop = text.find(eos_token, start, limit) if eos_token else -1
        if stop >= 0 and eos_token:
            spans.append((start, stop + len(eos_token)))
        elif following < 0 or 0 <= instruction <= following:
            spans.append((start, limit))
        opening = following
    return [(start, stop) for start, stop in spans if stop > start]


def labels_after_prefix(ids: Ragged, prefixes: Offsets) -> Ragged:
    """Labels of a batch: -100 for the first `prefixes[i]` tokens of row i, the ids from there on."""
    position = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], ids.lengths)
    return labels_from_mask(ids, position >= np.repeat(prefixes, ids.lengths))


def labels_everywhere(ids: Ragged) -> Ragged:
    """Labels with a loss on every token."""
    return Ragged(ids.values, ids.offsets)


def labels_from_mask(ids: Ragged, trained: Mask) -> Ragged:
    """Ids where `trained` (bool, shape (total tokens,)) is true, -100 elsewhere."""
    values: Ids = np.where(trained, ids.values, np.int32(IGNORE_INDEX)).astype(np.int32, copy=False)
    return Ragged(values, ids.offsets)
