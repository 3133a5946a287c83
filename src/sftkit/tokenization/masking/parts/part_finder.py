"""Finds the trained parts of rendered conversations: the trained spans, divided by kind and loss weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain

from sftkit.core.row_log import RowError
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.conversations import Conversation, Message, is_assistant
from sftkit.tokenization.encoding.spans import Span
from sftkit.tokenization.masking.message_flags import message_weights
from sftkit.tokenization.masking.prompt_ends import prompt_ends
from sftkit.tokenization.masking.ranges.content_patterns import WeightedSpan
from sftkit.tokenization.masking.supervision import AssistantTurn, StartOfStop, Supervision
from sftkit.tokenization.masking.train_on import ALL
from sftkit.tokenization.masking.turn_parts import Part, fill_spans, turn_parts, untrained_part, weigh_parts
from sftkit.tokenization.masking.turns.turn_finder import TurnFinder
from sftkit.tokenization.templates.recording import Recording


class PartFinder:
    """Divides what a `TurnFinder` finds; it finds and refuses the same spans."""

    def __init__(self, turn_finder: TurnFinder, supervision: Supervision) -> None:
        """Prepare to divide turns.

        Args:
            turn_finder: finds the turns.
            supervision: selects what carries a loss; the same as that of `turn_finder`.
        """
        self._turn_finder = turn_finder
        self._supervision = supervision

    def find(self, conversation: Conversation) -> tuple[Recording, list[Part], list[int]]:
        """Render a conversation and find its trained parts.

        Returns:
            The recorded text, the parts in characters: ordered and disjoint, and where the prompts of trained turns
            end.

        Raises:
            RowError: as `TurnFinder.find`.
        """
        messages = conversation.message_list
        turns: list[AssistantTurn] = []
        if self._supervision.train_on == ALL:
            recording, spans = self._turn_finder.find(conversation)
            with suppress(RowError):  # then all is content
                _, turns = self._turn_finder.find_turns(conversation)
        else:
            recording, turns = self._turn_finder.find_turns(conversation)
            spans = self._turn_finder.trained_spans(recording, turns, conversation)
        turn_end = self._turn_finder.turn_end(conversation)
        parts: list[Part] = []
        text = recording.text
        for (_, start, end), message in zip(turns, _owners(turns, messages), strict=True):
            parts += turn_parts(text, (start, end), turn_end.start_of_stop(text, start, end), message)
        trains_others = self._supervision.trains_other_roles
        others = self._turn_finder.find_other_turns(recording, conversation) if trains_others else []
        parts = sorted([*parts, *(Part(*other.stop, TokenKind.STOP) for other in others if other.stop is not None)])
        filled = fill_spans(spans, parts)
        ends = [] if self._supervision.train_on == ALL else prompt_ends(turns, spans)
        weights = message_weights(messages)
        if weights:
            turns = sorted([*turns, *(other.as_turn() for other in others)])
            filled = weigh_parts(filled, self._weighted_spans(conversation, turns, weights))
        ruled = self._with_content_rules(text, filled, conversation, turn_end.start_of_stop)
        if self._supervision.trains_range_edges:
            return recording, ruled, ends
        hidden = [span for other in others for span in other.hidden(messages[other.message])]
        return recording, sorted([*ruled, *(untrained_part(*span) for span in hidden)]), ends

    def _with_content_rules(
        self, text: str, parts: list[Part], conversation: Conversation, start_of_stop: StartOfStop
    ) -> list[Part]:
        """Apply weights of patterns; and mark the characters without a loss whose tokens carry none (`range_edges`)."""
        messages, supervision = conversation.message_list, self._supervision
        if not supervision.needs_parts(messages):
            return parts
        turns = self._turn_finder.find_turns(conversation)[1] if any(map(is_assistant, messages)) else []
        hidden: list[Span] = []
        if supervision.train_on != ALL:
            turns = supervision.trained_of(turns, messages)
        else:
            hidden += self._turn_finder.hidden_in_other_roles(conversation)
        weighed = weigh_parts(parts, supervision.weighted_content(text, turns, messages, start_of_stop))
        if supervision.trains_range_edges:
            return weighed
        hidden += chain.from_iterable(supervision.hidden_content(text, turns, messages, start_of_stop).values())
        return sorted([*weighed, *(untrained_part(*span) for span in hidden)])

    def _weighted_spans(
        self, conversation: Conversation, turns: Sequence[AssistantTurn], weights: Mapping[int, float]
    ) -> list[WeightedSpan]:
        """Return where messages with weights are in the text: whole messages if all text is trained, else turns."""
        if self._supervision.train_on == ALL:
            spans = self._turn_finder.find_messages(conversation, list(weights))
            return sorted((start, end, weights[index]) for index, (start, end) in spans.items() if index in weights)
        return [(start, end, weights[index]) for index, start, end in turns if index in weights]


def _owners(turns: Sequence[AssistantTurn], messages: Sequence[Message]) -> list[Message]:
    """Return the message of each turn; empty ones if it is unknown, as for some `{% generation %}` blocks."""
    indices = [turn.message for turn in turns]
    owners = [messages[index] for index in indices]
    if len(set(indices)) == len(indices) and all(map(is_assistant, owners)):
        return owners
    assistants = [message for message in messages if is_assistant(message)]
    return assistants if len(assistants) == len(turns) else [{}] * len(turns)
