"""The text before the produced part of an assistant turn: the generation prompt or a header."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sftkit.tokenization.masking.reasoning import REASONING_TAG, REASONING_TAGS_AT_END, TAGS_ONLY
from sftkit.tokenization.probing.turn_format import TurnFormat

_UNFINISHED_TAG = re.compile(r"[<\[{(][^<>\[\]{}()\s]*\Z")


@dataclass(frozen=True)
class TurnStart:
    """How the assistant turns of a template start."""

    text: str
    """The generation prompt, or the header that a template without one writes; may be empty."""
    variants: tuple[str, ...]
    """All texts that turns may start with, in the order in which they are tried: `text`, then the prompts with thinking
    switched on or off, then shorter ones. A shorter one is what a prompt and a turn have in common, for a prompt that
    opens (or skips) the reasoning and a turn that was rendered without it."""
    is_prompt: bool
    """Whether `text` is a generation prompt."""
    varies: bool
    """Whether the prompt may differ between conversations."""

    def find_end(self, text: str, start: int, end: int) -> int | None:
        """Return where the start of the turn at [start, end) ends; None if the turn starts with no variant."""
        for variant in self.variants:
            if text.startswith(variant, start, end):
                return start + len(variant)
        return None


def starts_with_reasoning_tag(text: str, start: int) -> bool:
    """Return whether the text at `start` continues with a reasoning tag."""
    return REASONING_TAG.match(text, start) is not None


def learn_turn_start(turn_format: TurnFormat, *, varies: bool) -> TurnStart | None:
    """Derive from a turn format how turns start; None if that is unknown.

    A template without a generation prompt (it ignores `add_generation_prompt`) still writes a header: the text before
    the content of made-up turns. White space alone is not a header, and reasoning is not part of it: the model
    produces both.
    """
    if turn_format.prompt:
        prompt = turn_format.prompt
        # A line end before the header may belong to the prompt, or to the message before when a turn follows.
        prompts = [prompt, prompt.lstrip()]
        shared = [REASONING_TAGS_AT_END.sub("", prompt), prompt.lstrip()]
        shared += [_shared_prefix(each, turn) for each in prompts for turn in turn_format.turns]
        others = sorted(turn_format.other_prompts, key=len, reverse=True)
        shorter = sorted((text for text in shared if text.strip()), key=len, reverse=True)
        variants = tuple(dict.fromkeys([prompt, *others, *shorter]))
        return TurnStart(prompt, variants, is_prompt=True, varies=varies)
    if turn_format.prompt is None or not turn_format.headers:
        return None
    stripped = [REASONING_TAGS_AT_END.sub("", header) for header in turn_format.headers]
    headers = list(dict.fromkeys(header if header.strip() else "" for header in stripped))
    if "" in headers and len(headers) > 1:
        return None  # some turns have a header and some have none, and nothing shows which
    return TurnStart(headers[0], tuple(sorted(headers, key=len, reverse=True)), is_prompt=False, varies=varies)


def _common_prefix(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # all others sort between them
    length = next((index for index, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    return first[:length]


def _shared_prefix(prompt: str, turn: str) -> str:
    """Return the common prefix of a prompt and a turn, if only tags follow it in the prompt, else "".

    The prefix is useless if the prompt continues with other text, such as a number that changes.
    """
    shared = _common_prefix([prompt, turn])
    if shared != prompt:
        shared = _UNFINISHED_TAG.sub("", shared)
    return shared if TAGS_ONLY.fullmatch(prompt, len(shared)) else ""
