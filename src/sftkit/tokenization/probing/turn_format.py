"""How a chat template renders assistant turns, learned from small made-up conversations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from sftkit.core.message_fields import THINKING_SWITCHES
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.probing.message_spans import find_message_spans
from sftkit.tokenization.rendering.reference_renderer import Renderer

PROBE_CONTENT = "sftkitprobe"
"""Content of made-up messages; it occurs in no template."""
_SEPARATOR = re.compile(r"\n[^\w\s<\[]+ \Z")
_SPACED_CONTENT = f" {PROBE_CONTENT} "

_USER: Message = {"role": "user", "content": "a"}
_ANSWER: Message = {"role": "assistant", "content": PROBE_CONTENT}
_SYSTEM: Message = {"role": "system", "content": "b"}
# ShareGPT's names, for templates that read those.
_SHAREGPT_KEYS = {"role": "from", "content": "value"}
_SHAREGPT_ROLES = {"user": "human", "assistant": "gpt"}


@dataclass(frozen=True)
class TurnFormat:
    """How a template renders an assistant turn."""

    prompt: str | None
    """The generation prompt after a question; "" if the template has none, None if it is unknown."""
    is_always_written: bool
    """Whether the template writes the prompt even if it is not asked to."""
    other_prompts: tuple[str, ...]
    """The prompts with thinking switched on or off, if the template has such a switch."""
    turns: tuple[str, ...]
    """The text of a turn whose content is `PROBE_CONTENT`: at the end of a conversation, and before another exchange if
    the template renders that. Empty if it is ambiguous."""
    separators: tuple[str, ...]
    """Texts after the content that only start the line of the next header, such as a line end and `### `."""
    followers: tuple[str, ...]
    """The text after each of `turns`."""
    keeps_space: bool
    """Whether the template keeps white space around a content."""

    @property
    def headers(self) -> list[str]:
        """The texts before the content, for the turns that contain it."""
        return [turn.partition(PROBE_CONTENT)[0] for turn in self.turns if PROBE_CONTENT in turn]

    @property
    def tails(self) -> list[str]:
        """The texts after the content, for the turns that contain it."""
        return [_tail(turn) for turn in self.turns if PROBE_CONTENT in turn]


def learn_turn_format(renderer: Renderer, source: str, like: Conversation) -> TurnFormat | None:
    """Learn the format of turns from made-up conversations; None if the template cannot render any of them.

    Args:
        renderer: renders the made-up conversations.
        source: the template.
        like: a conversation of the same kind. It gives the template's variables, the names of keys, and the row around
            the messages for a template that takes a whole row.
    """
    for probe in _probes(like):
        try:
            before = probe.first_messages(len(probe.message_list) - 1)
            answers = list(_render_answers(renderer, source, probe))
            if any(repr(PROBE_CONTENT) in answer.turn for answer in answers):
                continue  # the template prints parts as Python does
            history = answers[0].history if answers else None
            prompt = prompt_after(renderer, source, before, history)
            others = tuple(_other_prompts(renderer, source, before, history)) if prompt else ()
            prompted = renderer.render(before, template=source, add_generation_prompt=True)
            is_always_written = prompted == _render(renderer, source, before)
            spaced = _render(renderer, source, _with_answer(probe, _SPACED_CONTENT))
        except RowError:
            continue
        return TurnFormat(
            prompt,
            is_always_written,
            others,
            tuple(answer.turn for answer in answers),
            tuple(tail for answer in answers if _SEPARATOR.search(tail := _tail(answer.turn))),
            tuple(answer.follower for answer in answers),
            keeps_space=_SPACED_CONTENT in spaced,
        )
    return None


def prompt_after(renderer: Renderer, source: str, before: Conversation, history: str | None) -> str | None:
    """Return the generation prompt that a model gets at inference after some messages; None if it is unknown.

    If the conversation is rendered as at inference up to the turn, the prompt is what follows there. Otherwise it is
    all text after the last message.

    Args:
        renderer: renders the messages.
        source: the template.
        before: the messages.
        history: the text before the turn in the rendering of the whole conversation; None if it is unknown.

    Raises:
        RowError: the template cannot render the messages.
    """
    with_prompt, edge = _render_with_edge(renderer, source, before, add_generation_prompt=True)
    if history is not None and with_prompt.startswith(history):
        return with_prompt[len(history) :]
    without_prompt, plain_edge = _render_with_edge(renderer, source, before, add_generation_prompt=False)
    if plain_edge is not None and with_prompt.startswith(without_prompt[:plain_edge]):
        edge = plain_edge  # the prompt may be written in the last iteration of the loop, or after the loop
    if edge is None and with_prompt.startswith(without_prompt):
        edge = len(without_prompt)
    return None if edge is None else with_prompt[edge:]


def render_question(renderer: Renderer, source: str, before: Conversation, like: Conversation) -> str | None:
    """Return what a template writes for a made-up question after some messages; None if it is ambiguous.

    Args:
        renderer: renders the question.
        source: the template.
        before: the messages; there may be none.
        like: a conversation of the same kind.

    Raises:
        RowError: the template cannot render it.
    """
    probe = next(_probes(like))
    question = before.with_message_list([*before.message_list, probe.message_list[0]])
    recording = renderer.record(question, template=source)
    last = len(question.message_list) - 1
    spans = find_message_spans(recording, last + 1, [last])
    return recording.text[slice(*spans[last])] if spans and last in spans else None


def _other_prompts(renderer: Renderer, source: str, before: Conversation, history: str | None) -> Iterator[str]:
    for name in THINKING_SWITCHES:
        if name not in source:
            continue
        for value in (True, False):
            switched = replace(before, variables={**before.variables, name: value})
            with suppress(RowError):
                if prompt := prompt_after(renderer, source, switched, history):
                    yield prompt


def _render(renderer: Renderer, source: str, conversation: Conversation) -> str:
    return renderer.render(conversation, template=source)


def _render_with_edge(
    renderer: Renderer, source: str, conversation: Conversation, *, add_generation_prompt: bool
) -> tuple[str, int | None]:
    """Return a rendering, and where its last message ends; None if it is ambiguous."""
    recording = renderer.record(conversation, template=source, add_generation_prompt=add_generation_prompt)
    last = len(conversation.message_list) - 1
    spans = find_message_spans(recording, last + 1, [last])
    return recording.text, spans[last][1] if spans and last in spans else None


class _Answer(NamedTuple):
    """A rendered answer, and the text before and after it."""

    history: str
    turn: str
    follower: str


def _render_answers(renderer: Renderer, source: str, probe: Conversation) -> Iterator[_Answer]:
    """Yield the answer at the end of a conversation, and before another exchange, where it is known."""
    messages = probe.message_list
    longer = probe.with_message_list([*messages, messages[-2], messages[-1]])
    index = len(messages) - 1
    for conversation in (probe, longer):
        try:
            recording = renderer.record(conversation, template=source)
        except RowError:
            if conversation is probe:
                raise
            continue
        text = recording.text
        spans = find_message_spans(recording, len(conversation.message_list), [index])
        if spans and index in spans:
            start, end = spans[index]
            yield _Answer(text[:start], text[start:end], text[end:])
        elif conversation is probe:
            before = _render(renderer, source, probe.first_messages(index))
            if text.startswith(before):
                yield _Answer(before, text[len(before) :], "")


def _tail(turn: str) -> str:
    return turn.partition(PROBE_CONTENT)[2]


class MessageForm(NamedTuple):
    """The form of a conversation that made-up ones imitate."""

    is_sharegpt: bool
    has_parts: bool
    has_tools: bool


def message_form(conversation: Conversation) -> MessageForm:
    """Return the form of a conversation."""
    _, keys, types = conversation.shape
    has_parts = list in types and any(isinstance(message.get("content"), list) for message in conversation.message_list)
    return MessageForm("from" in keys, has_parts, conversation.tools is not None)


def _probes(like: Conversation) -> Iterator[Conversation]:
    """Yield small conversations in the form of another one: without a system message, with one, with its tools."""
    form = message_form(like)
    plain = Conversation(like.messages, None, None, like.variables)
    for messages, tools in (
        ([_USER, _ANSWER], None),
        ([_SYSTEM, _USER, _ANSWER], None),
        ([_USER, _ANSWER], like.tools),
    ):
        if form.is_sharegpt:
            yield replace(plain.with_message_list(list(map(_to_sharegpt, messages))), tools=tools)
            continue
        if form.has_parts:
            yield replace(plain.with_message_list(list(map(_to_parts, messages))), tools=tools)
        yield replace(plain.with_message_list(messages), tools=tools)


def _with_answer(probe: Conversation, content: str) -> Conversation:
    *before, answer = probe.message_list
    if isinstance(answer.get("content"), list):
        return probe.with_message_list([*before, _to_parts({**answer, "content": content})])
    key = "value" if "value" in answer else "content"
    return probe.with_message_list([*before, {**answer, key: content}])


def _to_parts(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _to_sharegpt(message: Message) -> Message:
    renamed = {_SHAREGPT_KEYS[key]: value for key, value in message.items()}
    return {**renamed, "from": _SHAREGPT_ROLES.get(str(message["role"]), message["role"])}
