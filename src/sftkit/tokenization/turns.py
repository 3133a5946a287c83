"""Which characters of a rendered conversation the model has to produce: from the end of the generation prompt to the
end of the stop token of every assistant turn. Proven for each row, or refused with a reason. See docs/masking.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from sftkit.rows import RowError
from sftkit.tokenization.masks import Span
from sftkit.tokenization.rendering import Conversation, Message, Renderer
from sftkit.tokenization.template_marks import Block, MarkedTemplate, mark_template, split_marks, split_turns

ASSISTANT_ROLES = frozenset({"assistant", "assistant_tool_call", "model", "gpt", "bot", "ai", "function_call"})

_PROBE_CONTENT = "sftkitprobe"
_PROBES: tuple[list[Message], ...] = (
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE_CONTENT}],
    [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": _PROBE_CONTENT},
    ],
)


# What a generation prompt may end with to open the model's reasoning: <think>, <|reasoning|>, ... and line ends.
_REASONING_TAG = re.compile(r"<[^<>\s]*(?:think|reason|thought)[^<>\s]*>\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class _Opening:
    """What stands in a turn before the part that the model produces.

    prompted: it is the generation prompt; otherwise the header that a template without one writes.
    """

    text: str
    prompted: bool

    def end_in(self, text: str, start: int, end: int) -> int | None:
        """Where the opening of the turn at [start, end) ends, None when the turn does not begin with it.

        A prompt may open the reasoning too, which templates take out of earlier turns again: there the turn begins
        with the rest of the prompt.
        """
        for opening in self._variants:
            if text.startswith(opening, start, end):
                return start + len(opening)
        return None

    def plain_span(self, text: str, start: int, end: int, content: Any) -> Span | None:
        """The trained part of a turn at [start, end) that is the opening, the content and a stop token after it, as
        most turns are; None for any other.
        """
        start += len(self.text)
        if type(content) is not str or not text.startswith(self.text, start - len(self.text)):
            return None
        rest = start + len(content)
        stop = text[rest:end].rstrip()
        return (start, rest + len(stop)) if stop and text.startswith(content, start) else None

    @cached_property
    def _variants(self) -> tuple[str, ...]:
        shorter = _REASONING_TAG.sub("", self.text)
        return (self.text, shorter) if shorter and shorter != self.text else (self.text,)


class TurnFinder:
    """Renders conversations once, with marks, and finds the trained spans of their assistant turns.

    Where marks cannot tell (a template that does not loop over the messages), each turn is found by rendering the
    conversation up to it.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._marked = lru_cache(maxsize=8)(mark_template)
        self._opening = lru_cache(maxsize=8)(self._find_opening)

    def find(self, conversation: Conversation) -> tuple[str, list[Span]]:
        """The rendered text of a conversation and its trained spans: ordered, disjoint, in characters.

        Raises:
            RowError: the template cannot render it, or its spans cannot be proven.
        """
        if isinstance(conversation.messages, Mapping):
            raise RowError("masking by turns needs a list of messages; give `conversation_column`")
        source = self._renderer.source(with_tools=conversation.tools is not None)
        marked = self._marked(source)
        if marked is None:
            return self._by_prefixes(conversation, marked, source)
        rendered = self._renderer.render_marked(conversation, marked)
        if marked.has_generation:
            text, blocks = split_marks(rendered)
            return text, [(block.start, block.end) for block in blocks if block.end > block.start]
        text, found = _stretches(rendered, marked, conversation.messages)
        opening = self._opening(marked, source) if found is not None else None
        if found is None or opening is None:
            return self._by_prefixes(conversation, marked, source)
        spans = []
        for turn, start, end in found:
            span = opening.plain_span(text, start, end, conversation.messages[turn].get("content"))
            if span is not None:
                spans.append(span)
                continue
            produced = opening.end_in(text, start, end)
            if produced is None:
                produced = self._end_of_prompt(conversation, turn, text, opening)
                if not start <= produced <= end:
                    raise RowError(f"message {turn} does not begin where its prompt ends; cannot prove its mask")
            spans.append(_span(text, produced, end, conversation.messages[turn]))
        return text, spans

    def _find_opening(self, marked: MarkedTemplate | None, source: str) -> _Opening | None:
        """The generation prompt of a template, as it stands after a small conversation.

        A template without one (it ignores `add_generation_prompt`) still writes a header: then what stands before the
        content of a made-up turn. White space alone is no header, the model produces it. None: it cannot be told.
        """
        for probe in _PROBES:
            before, whole = Conversation(probe[:-1]), Conversation(probe)
            try:
                asked = self._renderer.render(before, template=source, add_generation_prompt=True)
                plain = self._renderer.render(before, template=source)
                marks = self._renderer.render_marked(whole, marked or MarkedTemplate(source))
                text, blocks = split_marks(marks)
            except RowError:
                continue
            if len(asked) > len(plain) and asked.startswith(plain):
                return _Opening(asked[len(plain) :], prompted=True)
            found = _blocks_of_turns(blocks, probe, [len(probe) - 1])
            if found is None and text.startswith(plain):
                found = [(len(probe) - 1, len(plain), len(text))]
            if asked != plain or found is None:
                return None
            [(_, start, end)] = found
            content = text.find(_PROBE_CONTENT, start, end)
            if content < 0:
                return None
            header = text[start:content]
            return _Opening(header if header.strip() else "", prompted=False)
        return None

    def _by_prefixes(
        self, conversation: Conversation, marked: MarkedTemplate | None, source: str
    ) -> tuple[str, list[Span]]:
        """Find each turn between the rendering of what comes before it and the rendering that ends with it."""
        messages = conversation.messages
        assert not isinstance(messages, Mapping)
        text = self._renderer.render(conversation)
        opening = self._opening(marked, source)
        spans: list[Span] = []
        for turn in _assistant_turns(messages):
            start = self._end_of_prompt(conversation, turn, text, opening)
            through = self._renderer.render(_first(conversation, turn + 1))
            if not text.startswith(through):
                raise RowError(f"message {turn} is rendered differently when others follow; cannot prove its mask")
            spans.append(_span(text, start, len(through), messages[turn]))
        if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
            raise RowError("assistant turns overlap in the rendered text; cannot prove their masks")
        return text, spans

    def _end_of_prompt(self, conversation: Conversation, turn: int, text: str, opening: _Opening | None) -> int:
        """Where the model would begin to write a turn: the end of what it would have been given.

        Raises:
            RowError: the text does not begin with what the model would have been given.
        """
        if turn == 0:
            raise RowError("the conversation begins with the assistant, and nothing tells where its prompt ends")
        earlier = _first(conversation, turn)
        prompt = self._renderer.render(earlier, add_generation_prompt=True)
        if prompt == self._renderer.render(earlier):
            if opening is None:
                raise RowError("the template writes no generation prompt and no header; cannot prove a mask")
            # Either the template knows no prompt and writes a header, or it asks for none at this place.
            prompt += "" if opening.prompted else opening.text
        if not text.startswith(prompt):
            raise RowError(f"message {turn} is rendered differently when others follow; cannot prove its mask")
        return len(prompt)


def _first(conversation: Conversation, count: int) -> Conversation:
    """The conversation as it stood when it had `count` messages."""
    messages = conversation.messages
    assert not isinstance(messages, Mapping)
    return Conversation(messages[:count], conversation.tools, conversation.documents)


def _assistant_turns(messages: Sequence[Message]) -> list[int]:
    turns = [index for index, message in enumerate(messages) if message.get("role") in ASSISTANT_ROLES]
    if not turns:
        roles = ", ".join(dict.fromkeys(str(message.get("role")) for message in messages))
        raise RowError(f"no assistant turn in this conversation (roles: {roles})")
    return turns


def _stretches(
    rendered: str, marked: MarkedTemplate, messages: Sequence[Message]
) -> tuple[str, list[tuple[int, int, int]] | None]:
    """The plain text of a rendering and (turn, start, end) of the stretch of each assistant turn, None when unknown."""
    turns = _assistant_turns(messages)
    split = split_turns(rendered, marked.counted) if marked.counted else None
    if split is not None:
        text, edges = split
        found = [(turn, edges[turn], edges[turn + 1]) for turn in turns] if len(edges) == len(messages) + 1 else []
        if found and all(start < end for _, start, end in found):
            return text, found
    text, blocks = split_marks(rendered)
    return text, _blocks_of_turns(blocks, messages, turns)


def _blocks_of_turns(
    blocks: Sequence[Block], messages: Sequence[Message], turns: Sequence[int]
) -> list[tuple[int, int, int]] | None:
    """(turn, start, end) of the one stretch of text that each turn was rendered to, in order.

    None when that is not what happened.
    """
    written = [block for block in blocks if block.end > block.start and block.message >= 0]
    if len({block.loop for block in written}) != 1:
        return None
    if written[0].exact:
        spans = {block.message: (block.start, block.end) for block in written}
        if len(spans) < len(written):  # the loop ran more than once
            return None
    else:
        found = _named_messages(written, messages)
        if found is None:
            return None
        spans = found
    # Other names of the role than the field's own may be unknown to the template, which then leaves the turn out.
    if any(turn not in spans for turn in turns if messages[turn].get("role") == "assistant"):
        return None
    return [(turn, *spans[turn]) for turn in turns if turn in spans]


def _named_messages(written: Sequence[Block], messages: Sequence[Message]) -> dict[int, Span] | None:
    """The stretch of each message, where marks name the first of several equal ones: the order of rendering tells
    which one it is.
    """
    plain = [{name: value for name, value in message.items() if value is not None} for message in messages]
    first_equal = [plain.index(message) for message in plain]
    spans: dict[int, Span] = {}
    following = 0
    for block in written:
        try:
            index = first_equal.index(block.message, following)
        except ValueError:
            return None
        spans[index] = (block.start, block.end)
        following = index + 1
    return spans


def _span(text: str, start: int, end: int, message: Message) -> Span:
    """The part of a turn's stretch that is trained: without the white space after the stop token."""
    stop = start + len(text[start:end].rstrip())
    content = message.get("content")
    if isinstance(content, str) and text.startswith(content, start, end):
        return start, stop
    for piece in _content_pieces(message):
        if piece not in text[start:stop] and piece in text[stop:] + text[:start]:
            # Not in the turn but elsewhere: either the template moved it, or the turn is not where we think.
            raise RowError("an assistant turn's content lies outside of the turn's own text; cannot prove its mask")
    return start, stop


def _content_pieces(message: Message) -> Iterator[str]:
    """What of a message must be found in its turn: the texts of its content, after any reasoning in it."""
    content: Any = message.get("content")
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            answer = re.split(r"</think>|</reasoning>", text)[-1].strip()
            if answer:
                yield answer
