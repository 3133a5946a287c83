"""What a chat template shows of its manners in small made-up conversations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from sftkit.core.message_fields import THINKING_SWITCHES
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.probing.message_spans import find_message_spans
from sftkit.tokenization.rendering.reference_renderer import Renderer
from sftkit.tokenization.templates.template_marks import MarkedTemplate, split_marks

PROBE_CONTENT = "sftkitprobe"
_SPACED = f" {PROBE_CONTENT} "

_USER: Message = {"role": "user", "content": "a"}
_ANSWER: Message = {"role": "assistant", "content": PROBE_CONTENT}
_SYSTEM: Message = {"role": "system", "content": "b"}
# The same with the names that ShareGPT has for them, for templates that read those.
_OTHER_NAMES = {"role": "from", "content": "value"}
_OTHER_ROLES = {"user": "human", "assistant": "gpt"}


@dataclass(frozen=True)
class TurnFormat:
    """How a template renders an assistant turn.

    prompt: the generation prompt, "" for none; None where it cannot be told. other_prompts: those with thinking
    switched on or off, where the template knows such a switch. turns: a turn whose content is `PROBE_CONTENT`, as the
    last of a conversation, and before another exchange where that can be rendered; () where the marks do not tell.
    keeps_space: white space around a content is rendered with it.
    """

    prompt: str | None
    other_prompts: tuple[str, ...]
    turns: tuple[str, ...]
    keeps_space: bool

    @property
    def headers(self) -> list[str]:
        """What stands before the content in the turns that show it."""
        return [turn[: turn.index(PROBE_CONTENT)] for turn in self.turns if PROBE_CONTENT in turn]

    @property
    def tails(self) -> list[str]:
        """What stands after the content in the turns that show it."""
        return [turn[turn.index(PROBE_CONTENT) + len(PROBE_CONTENT) :] for turn in self.turns if PROBE_CONTENT in turn]


def learn_turn_format(renderer: Renderer, marked: MarkedTemplate, like: Conversation) -> TurnFormat | None:
    """Look at how a template renders made-up conversations; None when it can render none of them.

    Args:
        renderer: renders the probes.
        marked: the template with marks.
        like: a conversation of the kind that is asked for: it gives the template's variables, and the row around the
            messages where the template takes one.
    """
    for probe in _probes(like):
        try:
            before = probe.first_messages(len(probe.message_list) - 1)
            after = _after(renderer, marked, before)
            prompt = after.prompt
            others = tuple(_other_prompts(renderer, marked, before)) if prompt else ()
            turns = tuple(_turns_in(renderer, marked, probe))
            spaced = _text(renderer, marked, _with_answer(probe, _SPACED))
            if prompt == "" and turns and after.written.strip() and all(t.startswith(after.written) for t in turns):
                prompt = after.written  # the template writes it whether it is asked to or not
        except RowError:
            continue
        return TurnFormat(prompt, others, turns, keeps_space=_SPACED in spaced)
    return None


@dataclass(frozen=True)
class _After:
    """Some messages rendered with a generation prompt and without.

    edge: where in the first the messages end; None where the marks do not tell.
    """

    asked: str
    plain: str
    edge: int | None

    @property
    def prompt(self) -> str | None:
        """The generation prompt, "" for none; None where it cannot be told."""
        if self.asked == self.plain:
            return ""
        if self.edge is not None:
            return self.asked[self.edge :]
        return self.asked[len(self.plain) :] if self.asked.startswith(self.plain) else None

    @property
    def written(self) -> str:
        """All that is written after the messages, be it a prompt or what the template always writes."""
        return "" if self.edge is None else self.asked[self.edge :]


def possible_prompts(renderer: Renderer, marked: MarkedTemplate, before: Conversation) -> tuple[str, ...]:
    """What a template may write between some messages and an assistant turn after them, the likeliest first: all that
    it writes after them when it is asked for a generation prompt; nothing, where it then writes nothing else than
    otherwise.

    Raises:
        RowError: the template cannot render the messages.
    """
    after = _after(renderer, marked, before)
    written = (after.written,) if after.edge is not None else ()
    return (*written, "") if after.prompt == "" else written


def _after(renderer: Renderer, marked: MarkedTemplate, before: Conversation) -> _After:
    asked, edge = _text_and_edge(renderer, marked, before, add_generation_prompt=True)
    plain, plain_edge = _text_and_edge(renderer, marked, before, add_generation_prompt=False)
    if plain_edge is not None and asked.startswith(plain[:plain_edge]):
        edge = plain_edge  # the prompt may be written in the last turn of the loop, or behind it
    return _After(asked, plain, edge)


def _other_prompts(renderer: Renderer, marked: MarkedTemplate, before: Conversation) -> Iterator[str]:
    for name in THINKING_SWITCHES:
        if name not in marked.source:
            continue
        for value in (True, False):
            switched = replace(before, variables={**before.variables, name: value})
            with suppress(RowError):
                prompt = _after(renderer, marked, switched).prompt
                if prompt:
                    yield prompt


def _text(renderer: Renderer, marked: MarkedTemplate, conversation: Conversation) -> str:
    return split_marks(renderer.render_marked(conversation, marked))[0]


def _text_and_edge(
    renderer: Renderer, marked: MarkedTemplate, conversation: Conversation, *, add_generation_prompt: bool
) -> tuple[str, int | None]:
    """A rendering, and where in it the last of the messages ends; None where the marks do not tell."""
    rendered = renderer.render_marked(conversation, marked, add_generation_prompt=add_generation_prompt)
    last = len(conversation.message_list) - 1
    text, stretches = find_message_spans(rendered, marked, conversation.message_list, [last])
    return text, stretches[last][1] if stretches else None


def _turns_in(renderer: Renderer, marked: MarkedTemplate, probe: Conversation) -> Iterator[str]:
    """How the probe's answer is rendered: at the end, and before another exchange, as far as that can be told."""
    turns = probe.message_list
    longer = probe.with_message_list([*turns, turns[-2], turns[-1]])
    place = len(turns) - 1
    for conversation in (probe, longer):
        try:
            rendered = renderer.render_marked(conversation, marked)
        except RowError:
            if conversation is probe:
                raise
            continue
        text, stretches = find_message_spans(rendered, marked, conversation.message_list, [place])
        if stretches:
            start, end = stretches[place]
            yield text[start:end]
        elif conversation is probe:
            before = _text(renderer, marked, probe.first_messages(place))
            if text.startswith(before):
                yield text[len(before) :]


def _probes(like: Conversation) -> Iterator[Conversation]:
    """Small conversations of the kind asked for, without and with a system prompt, by either names of the keys."""
    plain = Conversation(like.messages, None, None, like.variables)
    others = any("from" in message for message in like.message_list)
    for turns in ([_USER, _ANSWER], [_SYSTEM, _USER, _ANSWER]):
        yield plain.with_message_list([_renamed(message) for message in turns] if others else turns)


def _with_answer(probe: Conversation, content: str) -> Conversation:
    *before, answer = probe.message_list
    key = "value" if "value" in answer else "content"
    return probe.with_message_list([*before, {**answer, key: content}])


def _renamed(message: Message) -> Message:
    content = {_OTHER_NAMES[key]: value for key, value in message.items()}
    return {**content, "from": _OTHER_ROLES.get(str(message["role"]), message["role"])}
