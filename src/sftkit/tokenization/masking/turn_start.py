"""What stands in an assistant turn before the part that the model produces: the generation prompt, or a header."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sftkit.tokenization.masking.reasoning import REASONING_TAG, REASONING_TAGS_AT_END, TAGS_ONLY
from sftkit.tokenization.probing.turn_format import TurnFormat

_UNFINISHED_TAG = re.compile(r"[<\[{(][^<>\[\]{}()\s]*\Z")


@dataclass(frozen=True)
class TurnStart:
    """What opens the assistant turns of a template.

    text: the generation prompt, or the header that a template without one writes; may be empty. variants: what turns
    may begin with, the text itself first, then the prompts with thinking switched the other way; where a prompt opens
    (or leaves out) the reasoning, and the turn was rendered without it, what the two have in common. prompted: it is a
    generation prompt. depends: the prompt may differ from conversation to conversation.
    """

    text: str
    variants: tuple[str, ...]
    prompted: bool
    depends: bool

    def find_end(self, text: str, start: int, end: int) -> int | None:
        """Where the opening of the turn at [start, end) ends; None when the turn does not begin with it."""
        for opening in self.variants:
            if text.startswith(opening, start, end):
                return start + len(opening)
        return None


def starts_with_reasoning_tag(text: str, start: int) -> bool:
    """Whether a text goes on with a tag of reasoning at a place."""
    return REASONING_TAG.match(text, start) is not None


def learn_turn_start(manners: TurnFormat, *, depends: bool) -> TurnStart | None:
    """What a template opens assistant turns with; None when it cannot be told.

    A template without a generation prompt (it ignores `add_generation_prompt`) still writes a header: what stands
    before the content of made-up turns. White space alone is no header, the model produces it, and so is reasoning.
    """
    if manners.prompt:
        prompt = manners.prompt
        # A line end before the header may be part of the prompt, and of the message before where a turn follows.
        wholes = [prompt, prompt.lstrip()]
        shared = [REASONING_TAGS_AT_END.sub("", prompt), prompt.lstrip()]
        shared += [_shared(whole, turn) for whole in wholes for turn in manners.turns]
        others = sorted(manners.other_prompts, key=len, reverse=True)
        shorter = sorted((text for text in shared if text.strip()), key=len, reverse=True)
        variants = tuple(dict.fromkeys([prompt, *others, *shorter]))
        return TurnStart(prompt, variants, prompted=True, depends=depends)
    if manners.prompt is None or not manners.headers:
        return None
    stripped = [REASONING_TAGS_AT_END.sub("", header) for header in manners.headers]
    headers = list(dict.fromkeys(header if header.strip() else "" for header in stripped))
    if "" in headers and len(headers) > 1:
        return None  # a header in one turn and none in another: nothing tells which a turn has
    return TurnStart(headers[0], tuple(sorted(headers, key=len, reverse=True)), prompted=False, depends=depends)


def _common(texts: Sequence[str]) -> str:
    """What some texts begin with alike."""
    first, last = min(texts), max(texts)  # all others lie between them
    length = next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    return first[:length]


def _shared(prompt: str, turn: str) -> str:
    """What a prompt and a turn begin with alike, where nothing but tags follows in the prompt, "" elsewhere: a header
    that holds a number, say, has no such part.
    """
    shared = _common([prompt, turn])
    if shared != prompt:
        shared = _UNFINISHED_TAG.sub("", shared)
    return shared if TAGS_ONLY.fullmatch(prompt, len(shared)) else ""
