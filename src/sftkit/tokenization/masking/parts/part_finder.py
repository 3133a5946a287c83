"""Finds the trained parts of rendered conversations: the trained spans, divided by kind and loss weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message, is_assistant
from sftkit.tokenization.masking.supervision import AssistantTurn, Supervision, message_weights
from sftkit.tokenization.masking.train_on import ALL
from sftkit.tokenization.masking.turn_parts import Part, fill_spans, turn_parts, weigh_parts
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

    def find(self, conversation: Conversation) -> tuple[Recording, list[Part]]:
        """Render a conversation and find its trained parts.

        Returns:
            The recorded text, and the parts in characters: ordered and disjoint.

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
        filled = fill_spans(spans, parts)
        weights = message_weights(messages)
        if weights:
            filled = weigh_parts(filled, self._weighted_spans(conversation, turns, weights))
        return recording, filled

    def _weighted_spans(
        self, conversation: Conversation, turns: Sequence[AssistantTurn], weights: Mapping[int, float]
    ) -> list[tuple[int, int, float]]:
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
