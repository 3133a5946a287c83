"""The text before the produced part of an assistant turn: the generation prompt or a header."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sftkit.tokenization.conversations import Message, role_of, text_after_reasoning, text_of
from sftkit.tokenization.masking.reasoning import REASONING_TAGS_AT_END, TAGS_ONLY
from sftkit.tokenization.probing.turn_format import PROBE_CONTENT, TurnFormat

_UNFINISHED_TAG = re.compile(r"[<\[{(][^<>\[\]{}()\s]*\Z")
_UNFINISHED_WORD = re.compile(r"\w+\Z")
_TAG_START = re.compile(r"[<\[]")
_TAG = re.compile(r"\s*[<\[]")
TAGS = re.compile(r"(?:\s|<[^<>\s]*>)*")
"""Tags and white space."""
_PROBE: Message = {"content": PROBE_CONTENT}
_QUESTION_ROLES = frozenset({"user", "human"})


@dataclass(frozen=True)
class TurnStart:
    """How the assistant turns of a template start after a question."""

    text: str
    """The generation prompt, or the header that a template without one writes; may be empty."""
    variants: tuple[str, ...]
    """All texts that turns may start with, in the order in which they are tried: `text`, then the prompts with thinking
    switched on or off."""
    shorter: tuple[str, ...]
    """What the prompt and made-up turns have in common, for a prompt that opens (or skips) the reasoning and a turn
    that was rendered without it; longer ones first."""
    openings: frozenset[str]
    """What the prompt and made-up turns have in common before the content, for a prompt that goes on with words. A turn
    must differ from the prompt at the same place."""
    is_prompt: bool
    """Whether `text` is a generation prompt."""
    varies: bool
    """Whether the prompt may differ between conversations."""

    def find_end(self, text: str, start: int, end: int, message: Message) -> int | None:
        """Return where the start of the turn at [start, end) ends; None if the turn does not start so."""
        for variant in self.variants:
            if text.startswith(variant, start, end):
                return start + len(variant)
        if not self.is_prompt:
            return None
        shared = length_of_shared_start(self.text, text[start:end], message)
        if shared is not None:
            return start + shared
        indent = end - start - len(text[start:end].lstrip())
        opening = start_up_to_word(self.text.lstrip(), text[start + indent : end])
        if opening in self.openings:
            return start + indent + len(opening)
        return next((start + len(each) for each in self.shorter if text.startswith(each, start, end)), None)

    def may_differ(self, text: str, produced: int, previous: Message) -> bool:
        """Return whether the prompt of a turn may be another one: it was learned after questions and before words."""
        if not self.varies and self.text:
            return False
        return role_of(previous) not in _QUESTION_ROLES or _TAG.match(text, produced) is not None


def learn_turn_start(turn_format: TurnFormat, *, varies: bool) -> TurnStart | None:
    """Derive from a turn format how turns start; None if that is unknown.

    A template without a generation prompt (it ignores `add_generation_prompt`) still writes a header: the text before
    the content of made-up turns. White space alone is not a header, and reasoning is not part of it: the model
    produces both.
    """
    prompt = turn_format.prompt
    if prompt and turn_format.is_always_written and not _starts_turns(prompt, turn_format):
        if TAGS.sub("", prompt):
            return None  # the model answers to the text after the messages, which quotes them
        prompt = ""  # such as an eos token
    if prompt:
        others = sorted(turn_format.other_prompts, key=len, reverse=True)
        variants = tuple(dict.fromkeys([prompt, *others]))
        shared = [REASONING_TAGS_AT_END.sub("", prompt), *(_shared_prefix(prompt, turn) for turn in turn_format.turns)]
        shorter = sorted({text for text in shared if text.strip()} - {*variants}, key=len, reverse=True)
        header = prompt.lstrip()
        turns = [turn for turn in turn_format.turns if length_of_shared_start(prompt, turn, _PROBE) is not None]
        openings = {opening for turn in turns if (opening := start_up_to_word(header, turn.lstrip())).strip()}
        varies = varies or turn_format.is_always_written
        return TurnStart(prompt, variants, tuple(shorter), frozenset(openings), is_prompt=True, varies=varies)
    if prompt is None or not turn_format.headers:
        return None
    stripped = [REASONING_TAGS_AT_END.sub("", header) for header in turn_format.headers]
    headers = list(dict.fromkeys(header if header.strip() else "" for header in stripped))
    if "" in headers and len(headers) > 1:
        return None  # some turns have a header and some have none, and nothing shows which
    return TurnStart(
        headers[0], tuple(sorted(headers, key=len, reverse=True)), (), frozenset(), is_prompt=False, varies=varies
    )


def length_of_shared_start(prompt: str, turn: str, message: Message) -> int | None:
    """Return how many characters of a turn are the part of its prompt that the turn really starts with.

    White space before the prompt may differ: a line end or an indentation there may belong to the message before. The
    turn may lack the start of the prompt up to a tag, if it has all of the rest, and the end of the prompt, if that
    opens or skips the reasoning or if the content of the message follows. Other differences, such as a number that
    changes, say nothing about what the model produces.

    Args:
        prompt: what the model gets at inference after the messages before this one.
        turn: what the template writes for the message.
        message: the message.

    Returns:
        The number of characters; None if the turn does not start with such a part.

    Example:
        >>> length_of_shared_start("\\nBot: <think>", "Bot: yes", {"content": "yes"})
        5
    """
    indent = len(turn) - len(turn.lstrip())
    header = prompt.lstrip()
    shared = start_up_to_word(header, turn[indent:])
    length = indent + len(shared) if shared else 0
    rest, produced = header[len(shared) :], turn[length:]
    opens_reasoning = REASONING_TAGS_AT_END.fullmatch(rest.lstrip()) or (
        not rest.strip() and not produced[:1].isspace()
    )
    if opens_reasoning and shared.strip() and (_TAG.match(produced) or REASONING_TAGS_AT_END.search(shared)):
        return length
    ends = (header[tag.start() :] for tag in _TAG_START.finditer(header, 1))
    end = next((end for end in ends if turn.startswith(end) and not REASONING_TAGS_AT_END.fullmatch(end)), None)
    if end is not None:
        return len(end)
    if prompt and not shared and (produced[:1].isspace() or not text_of(message)):
        return None  # nothing shows whether the white space or the tag there belongs to the turn
    return length if _continues_with_content(produced, message) else None


def common_prefix(first: str, second: str) -> str:
    """Return the longest text that two texts start with."""
    length = min(len(first), len(second))
    pairs = zip(first, second, strict=False)
    return first[: next((index for index, pair in enumerate(pairs) if pair[0] != pair[1]), length)]


def start_up_to_tag(first: str, second: str) -> str:
    """Return the longest text that two texts start with, without a tag that ends differently in the second one."""
    shared = common_prefix(first, second)
    return shared if shared == first else _UNFINISHED_TAG.sub("", shared)


def start_up_to_word(first: str, second: str) -> str:
    """Return the longest text that two texts start with, without a tag or word that ends differently."""
    shared = start_up_to_tag(first, second)
    return _UNFINISHED_WORD.sub("", shared) if first[len(shared) :][:1].isalnum() else shared


def _continues_with_content(rest: str, message: Message) -> bool:
    """Return whether a part of a turn consists of the content of its message and what follows it.

    A content that occurs again there could be a part of a header.
    """
    content, rest = text_of(message).strip(), rest.lstrip()
    if not content:
        return not message.get("tool_calls") and TAGS_ONLY.fullmatch(rest) is not None
    answers = dict.fromkeys(text for text in (content, text_after_reasoning(content)) if text)
    return any(rest.startswith(answer) and answer not in TAGS.sub("", rest[len(answer) :]) for answer in answers)


def _starts_turns(prompt: str, turn_format: TurnFormat) -> bool:
    """Return whether made-up turns start with a prompt or a part of it."""
    return all(length_of_shared_start(prompt, turn, _PROBE) for turn in turn_format.turns)


def _shared_prefix(prompt: str, turn: str) -> str:
    """Return the common prefix of a prompt and a turn, if only tags follow it in the prompt, else "".

    The prefix is useless if the prompt continues with other text, such as a number that changes.
    """
    shared = start_up_to_tag(prompt, turn)
    return shared if TAGS_ONLY.fullmatch(prompt, len(shared)) else ""
