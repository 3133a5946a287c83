"""How a chat template renders assistant turns, learned from small made-up conversations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from sftkit.core.message_fields import THINKING_SWITCHES
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.probing.message_spans import find_message_spans
from sftkit.tokenization.rendering.reference_renderer import Renderer

PROBE_CONTENT = "sftkitprobe"
"""Content of made-up messages; it occurs in no template."""
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
    """The generation prompt; "" if the template has none, None if it is unknown."""
    other_prompts: tuple[str, ...]
    """The prompts with thinking switched on or off, if the template has such a switch."""
    turns: tuple[str, ...]
    """The text of a turn whose content is `PROBE_CONTENT`: at the end of a conversation, and before another exchange if
    the template renders that. Empty if it is ambiguous."""
    keeps_space: bool
    """Whether the template keeps white space around a content."""

    @property
    def headers(self) -> list[str]:
        """The texts before the content, for the turns that contain it."""
        return [turn[: turn.index(PROBE_CONTENT)] for turn in self.turns if PROBE_CONTENT in turn]

    @property
    def tails(self) -> list[str]:
        """The texts after the content, for the turns that contain it."""
        return [turn[turn.index(PROBE_CONTENT) + len(PROBE_CONTENT) :] for turn in self.turns if PROBE_CONTENT in turn]


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
            ending = _render_ending(renderer, source, before)
            prompt = ending.prompt
            others = tuple(_other_prompts(renderer, source, before)) if prompt else ()
            turns = tuple(_render_turns(renderer, source, probe))
            spaced = _render(renderer, source, _with_answer(probe, _SPACED_CONTENT))
            if prompt == "" and turns and ending.after.strip() and all(t.startswith(ending.after) for t in turns):
                prompt = ending.after  # the template writes its prompt even if it is not asked to
        except RowError:
            continue
        return TurnFormat(prompt, others, turns, keeps_space=_SPACED_CONTENT in spaced)
    return None


@dataclass(frozen=True)
class _Ending:
    """The same messages rendered with and without a generation prompt."""

    with_prompt: str
    without_prompt: str
    edge: int | None
    """Where the messages end in `with_prompt`; None if it is ambiguous."""

    @property
    def prompt(self) -> str | None:
        """The generation prompt; "" if there is none, None if it is unknown."""
        if self.with_prompt == self.without_prompt:
            return ""
        if self.edge is not None:
            return self.with_prompt[self.edge :]
        if self.with_prompt.startswith(self.without_prompt):
            return self.with_prompt[len(self.without_prompt) :]
        return None

    @property
    def after(self) -> str:
        """All text after the messages, whether it is a prompt or what the template always writes."""
        return "" if self.edge is None else self.with_prompt[self.edge :]


def possible_prompts(renderer: Renderer, before: Conversation) -> tuple[str, ...]:
    """Return what a template may write between some messages and the assistant turn after them, most likely first.

    That is all text after the messages when a generation prompt is asked for; and nothing, if the template writes the
    same text when it is not asked for.

    Raises:
        RowError: the template cannot render the messages.
    """
    source = renderer.source(with_tools=before.tools is not None)
    ending = _render_ending(renderer, source, before)
    after = (ending.after,) if ending.edge is not None else ()
    return (*after, "") if ending.prompt == "" else after


def _render_ending(renderer: Renderer, source: str, before: Conversation) -> _Ending:
    with_prompt, edge = _render_with_edge(renderer, source, before, add_generation_prompt=True)
    without_prompt, plain_edge = _render_with_edge(renderer, source, before, add_generation_prompt=False)
    if plain_edge is not None and with_prompt.startswith(without_prompt[:plain_edge]):
        edge = plain_edge  # the prompt may be written in the last iteration of the loop, or after the loop
    return _Ending(with_prompt, without_prompt, edge)


def _other_prompts(renderer: Renderer, source: str, before: Conversation) -> Iterator[str]:
    for name in THINKING_SWITCHES:
        if name not in source:
            continue
        for value in (True, False):
            switched = replace(before, variables={**before.variables, name: value})
            with suppress(RowError):
                prompt = _render_ending(renderer, source, switched).prompt
                if prompt:
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


def _render_turns(renderer: Renderer, source: str, probe: Conversation) -> Iterator[str]:
    """Yield the text of the answer at the end of a conversation, and before another exchange, where it is known."""
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
        spans = find_message_spans(recording, len(conversation.message_list), [index])
        if spans and index in spans:
            start, end = spans[index]
            yield recording.text[start:end]
        elif conversation is probe:
            before = _render(renderer, source, probe.first_messages(index))
            if recording.text.startswith(before):
                yield recording.text[len(before) :]


def _probes(like: Conversation) -> Iterator[Conversation]:
    """Yield small conversations with the keys of another one: first without a system message, then with one."""
    plain = Conversation(like.messages, None, None, like.variables)
    is_sharegpt = any("from" in message for message in like.message_list)
    for messages in ([_USER, _ANSWER], [_SYSTEM, _USER, _ANSWER]):
        yield plain.with_message_list([_to_sharegpt(message) for message in messages] if is_sharegpt else messages)


def _with_answer(probe: Conversation, content: str) -> Conversation:
    *before, answer = probe.message_list
    key = "value" if "value" in answer else "content"
    return probe.with_message_list([*before, {**answer, key: content}])


def _to_sharegpt(message: Message) -> Message:
    renamed = {_SHAREGPT_KEYS[key]: value for key, value in message.items()}
    return {**renamed, "from": _SHAREGPT_ROLES.get(str(message["role"]), message["role"])}
