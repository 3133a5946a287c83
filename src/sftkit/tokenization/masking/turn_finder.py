"""Which characters of a rendered conversation the model has to produce: from the end of the generation prompt to the
end of the stop token of every assistant turn. Proven for each row, or refused with a reason. See docs/masking.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import (
    Conversation,
    Message,
    assistant_indices,
    content_of,
    is_assistant,
)
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.prefix_turns import (
    check_content_in_turn,
    check_conversation_size,
    check_no_foreign_text,
    find_turns_by_prefix,
)
from sftkit.tokenization.masking.simple_turns import find_simple_turns
from sftkit.tokenization.masking.supervision import (
    AssistantTurn,
    Supervision,
    complement,
    have_train_flags,
    reasoning_span,
    untrained_messages,
)
from sftkit.tokenization.masking.train_on import ALL
from sftkit.tokenization.masking.turn_end import TurnEnd
from sftkit.tokenization.masking.turn_start import TurnStart, learn_turn_start, starts_with_reasoning_tag
from sftkit.tokenization.probing.message_spans import MessageSpans, find_message_spans
from sftkit.tokenization.probing.turn_format import learn_turn_format, possible_prompts
from sftkit.tokenization.rendering.reference_renderer import Renderer
from sftkit.tokenization.templates.template_analysis import prompt_depends_on_messages
from sftkit.tokenization.templates.template_lexer import unmarked_template
from sftkit.tokenization.templates.template_marks import MarkedTemplate, mark_template, split_marks

_PROMPTED_CHARACTERS, _CHARACTERS_PER_MESSAGE = 16_000_000, 200  # what a message costs a template, in characters


class TurnFinder:
    """Renders conversations once, with marks, and finds the trained spans of their assistant turns.

    Where marks cannot tell (a template that does not loop over the messages), each turn is found by rendering the
    conversation up to it.

    Args:
        renderer: the engine.
        supervision: which turns carry a loss; every assistant turn when not given.
        stops: stop tokens as text, besides those that the template shows.
        specials: special tokens of the tokenizer as text.
    """

    def __init__(
        self,
        renderer: Renderer,
        supervision: Supervision | None = None,
        stops: Sequence[str] = (),
        specials: Sequence[str] = (),
    ) -> None:
        self._renderer = renderer
        self._supervision = supervision or Supervision()
        self._stops, self._specials = stops, specials
        self._marked = lru_cache(maxsize=8)(mark_template)
        self._learnt: dict[tuple[str, str], tuple[TurnStart | None, TurnEnd]] = {}

    def find(self, conversation: Conversation) -> tuple[str, list[Span]]:
        """The rendered text of a conversation and its trained spans: ordered, disjoint, in characters.

        Raises:
            RowError: the template cannot render it, or its spans cannot be proven.
        """
        messages = conversation.message_list
        if self._supervision.train_on == ALL:
            return self._everything(conversation, messages)
        text, turns = self._turns(conversation)
        return text, self._supervision.spans(text, turns, messages)

    def _turns(self, conversation: Conversation) -> tuple[str, list[AssistantTurn]]:
        """The text of a conversation, and what the model produces of it."""
        source = self._renderer.source(with_tools=conversation.tools is not None)
        marked = self._marked(source)
        if marked is None or not marked.counted_loop:
            check_conversation_size(conversation.message_list)
        if marked is None:
            return find_turns_by_prefix(self._renderer, conversation, *self._learn(marked, source, conversation))
        if marked.has_generation:
            return self._by_generation(conversation, marked, source)
        return self._by_marks(conversation, marked, source)

    def _everything(self, conversation: Conversation, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The whole text, without the messages that say they are not trained, and without reasoning where that is
        masked.
        """
        text, left_out = None, []
        places = sorted(untrained_messages(messages)) if have_train_flags(messages) else ()
        if places:
            text, stretches = self._stretches(conversation, places)
            left_out += [stretches[place] for place in places if place in stretches]
        if self._supervision.reasoning_masked and any(map(is_assistant, messages)):
            text, turns = self._turns(conversation)
            left_out += [reasoning_span(text, turn, messages) for turn in turns]
        if text is None:
            text = self._renderer.render(conversation)
        return text, complement(left_out, len(text))

    def _stretches(self, conversation: Conversation, places: Sequence[int]) -> tuple[str, MessageSpans]:
        """The text of a conversation, and where in it some of its messages are.

        Raises:
            RowError: the template does not show it.
        """
        source = self._renderer.source(with_tools=conversation.tools is not None)
        marked = self._marked(unmarked_template(source))
        if marked is not None:
            rendered = self._renderer.render_marked(conversation, marked)
            text, stretches = find_message_spans(rendered, marked, conversation.message_list, places)
            if stretches is not None:
                return text, stretches
        raise RowError("the template does not show which text each message was rendered to; cannot tell them apart")

    def _by_generation(
        self, conversation: Conversation, marked: MarkedTemplate, source: str
    ) -> tuple[str, list[AssistantTurn]]:
        """The template's own `{% generation %}` blocks, each with the message it belongs to where that matters."""
        text, blocks = split_marks(self._renderer.render_marked(conversation, marked))
        spans = [(block.start, block.end) for block in blocks if block.end > block.start]
        if not self._supervision.needs_turn_owners and not have_train_flags(conversation.message_list):
            return text, [AssistantTurn(0, start, end) for start, end in spans]
        places = assistant_indices(conversation.message_list)
        try:
            _, stretches = self._stretches(conversation, places)
        except RowError:
            if len(blocks) != len(places):
                raise
            return text, [
                AssistantTurn(place, block.start, block.end) for place, block in zip(places, blocks, strict=True)
            ]
        owners = [
            AssistantTurn(place, start, end)
            for start, end in ((block.start, block.end) for block in blocks)
            for place, (first, last) in stretches.items()
            if first <= start and end <= last
        ]
        if len(owners) != len(blocks):
            raise RowError("a {% generation %} block spans several messages; cannot tell them apart")
        return text, owners

    def _by_marks(
        self, conversation: Conversation, marked: MarkedTemplate, source: str
    ) -> tuple[str, list[AssistantTurn]]:
        """Find each turn by the marks of the template's own loop over the messages."""
        messages = conversation.message_list
        opening, closing = self._learn(marked, source, conversation)
        rendered = self._renderer.render_marked(conversation, marked)
        if marked.counted_loop and opening is not None and opening.text and not opening.depends:
            plain = find_simple_turns(rendered, marked.counted_loop, messages, opening, closing)
            if plain is not None:
                return plain
        check_conversation_size(messages)
        places = assistant_indices(messages)
        text, stretches = find_message_spans(rendered, marked, messages, places)
        if stretches is None or opening is None:
            return find_turns_by_prefix(self._renderer, conversation, opening, closing)
        turns: list[AssistantTurn] = []
        for place in places:
            message = messages[place]
            if place not in stretches:  # the template wrote nothing for it: so there is nothing to learn
                check_content_in_turn(text, 0, 0, message)
                continue
            start, end = stretches[place]
            try:
                if len(stretches) < len(messages) and _may_hold_others(messages, stretches, place):
                    end = start + self._own_end(conversation, marked, place, text[start:end])
                produced = self._produced(conversation, marked, opening, place, text, start, end)
                check_content_in_turn(text, produced, end, message)
                stop = closing.find(text, produced, end, message)
                check_no_foreign_text(text[produced:stop], messages, place, stretches)
            except RowError:
                if place in self._supervision.trained_turns(messages):
                    raise
                continue  # it carries no loss, so nothing need be proven
            turns.append(AssistantTurn(place, produced, stop))
        return text, turns

    def _produced(
        self,
        conversation: Conversation,
        marked: MarkedTemplate,
        opening: TurnStart,
        place: int,
        text: str,
        start: int,
        end: int,
    ) -> int:
        """Where the part of a turn at [start, end) begins that the model produces.

        That is after the opening that turns have, and where they may have several, or a turn has none of them, after
        the prompt that the template writes at this very place.

        Raises:
            RowError: the turn does not begin with it, or nothing comes before the turn.
        """
        produced = opening.find_end(text, start, end)
        if produced is not None and not (place == 0 and produced == start):
            if place == 0 or not opening.depends or not starts_with_reasoning_tag(text, produced):
                return produced
        elif place == 0:
            raise RowError("the conversation begins with the assistant, and nothing tells where its prompt ends")
        elif not opening.prompted:
            raise RowError(f"message {place} does not begin with the header that turns have; cannot prove its mask")
        for prompt in possible_prompts(self._renderer, marked, conversation.first_messages(place)):
            if text.startswith(prompt, start, end) and (prompt or produced is None):
                return start + len(prompt)
        if produced is not None:
            return produced
        raise RowError(f"message {place} does not begin with its generation prompt; cannot prove its mask")

    def _own_end(self, conversation: Conversation, marked: MarkedTemplate, place: int, written: str) -> int:
        """How much of what was written for a turn is its own, where it may hold the results that follow it: as much as
        is written for it when nothing follows.

        Raises:
            RowError: that is not what the turn begins with.
        """
        alone = conversation.first_messages(place + 1)
        text, stretches = find_message_spans(
            self._renderer.render_marked(alone, marked), marked, alone.message_list, [place]
        )
        start, end = stretches.get(place, (0, 0)) if stretches is not None else (0, 0)
        own = text[start:end]
        if not own or not written.startswith(own):
            raise RowError(f"message {place} is rendered together with those that follow it; cannot prove its mask")
        return len(own)

    def _learn(
        self, marked: MarkedTemplate | None, source: str, conversation: Conversation
    ) -> tuple[TurnStart | None, TurnEnd]:
        """What opens and closes the assistant turns of a template, with the variables that the conversation has."""
        key = source, _key_of(conversation.variables)
        if key not in self._learnt:
            manners = learn_turn_format(
                self._renderer, marked or MarkedTemplate(unmarked_template(source)), conversation
            )
            closing = TurnEnd(
                self._stops,
                self._specials,
                manners.tails if manners is not None else (),
                keeps_space=manners is not None and manners.keeps_space,
            )
            depends = prompt_depends_on_messages(source)
            self._learnt[key] = (learn_turn_start(manners, depends=depends) if manners is not None else None), closing
        return self._learnt[key]


def inference_prompts(renderer: Renderer, conversation: Conversation, places: Sequence[int]) -> tuple[str, list[str]]:
    """The text of a conversation, and what the model would have been given for the turns at some places; of a long
    conversation for a few of them. What the template refuses to render is left out, as is a turn that nothing comes
    before; and where no generation prompt is written, the text up to the turn, when it is the conversation's own: it
    may end in the middle of a token.

    Raises:
        RowError: the template cannot render the conversation as a whole.
    """
    text = renderer.render(conversation)
    prompts = []
    after_others = [place for place in places if place]
    cost = len(text) + _CHARACTERS_PER_MESSAGE * len(conversation.message_list)
    step = math.ceil(len(after_others) * cost / _PROMPTED_CHARACTERS)
    for place in after_others[:: -max(step, 1)]:
        earlier = conversation.first_messages(place)
        with suppress(RowError):
            prompt = renderer.render(earlier, add_generation_prompt=True)
            if not text.startswith(prompt) or prompt != renderer.render(earlier):
                prompts.append(prompt)
    return text, prompts


def _key_of(variables: Mapping[str, Any]) -> str:
    return json.dumps(variables, sort_keys=True, default=str) if variables else ""


def _may_hold_others(messages: Sequence[Message], stretches: MessageSpans, place: int) -> bool:
    """Whether a message that follows a turn, up to the next turn, was not written by itself."""
    for following in range(place + 1, len(messages)):
        if is_assistant(messages[following]):
            return False
        if following not in stretches and content_of(messages[following]):
            return True
    return False
