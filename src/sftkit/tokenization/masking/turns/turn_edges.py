"""Where the produced parts of turns start and end under a template, learned once for each set of its variables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.masking.turns.turn_end import TurnEnd
from sftkit.tokenization.masking.turns.turn_start import TurnStart, learn_turn_start
from sftkit.tokenization.probing.turn_format import MessageForm, learn_turn_format, message_form
from sftkit.tokenization.rendering.reference_renderer import Renderer
from sftkit.tokenization.templates.template_analysis import prompt_depends_on_messages

_MOST_KEPT = 1000
"""How many results are kept; every row may have values of its own."""


class TurnEdges:
    """Learns turn edges from made-up conversations, and keeps the results."""

    def __init__(self, renderer: Renderer, stop_tokens: Sequence[str], special_tokens: Sequence[str]) -> None:
        """Prepare to learn.

        Args:
            renderer: renders the made-up conversations.
            stop_tokens: known stop tokens, as text.
            special_tokens: special tokens of the tokenizer, as text.
        """
        self._renderer = renderer
        self._stop_tokens, self._special_tokens = stop_tokens, special_tokens
        self._learned: dict[tuple[str, str, MessageForm], tuple[TurnStart | None, TurnEnd]] = {}

    def learn(self, source: str, conversation: Conversation) -> tuple[TurnStart | None, TurnEnd]:
        """Return the edges of turns under a template, with the variables of a conversation.

        Args:
            source: the template.
            conversation: gives the variables, and the names of keys.
        """
        key = source, _variables_key(source, conversation.variables), message_form(conversation)
        if key not in self._learned:
            if len(self._learned) >= _MOST_KEPT:
                self._learned.clear()
            self._learned[key] = self._learn(source, conversation)
        return self._learned[key]

    def _learn(self, source: str, conversation: Conversation) -> tuple[TurnStart | None, TurnEnd]:
        turn_format = learn_turn_format(self._renderer, source, conversation)
        turn_end = TurnEnd(self._stop_tokens, self._special_tokens, turn_format)
        varies = prompt_depends_on_messages(source)
        turn_start = learn_turn_start(turn_format, varies=varies) if turn_format is not None else None
        return turn_start, turn_end


def _variables_key(source: str, variables: Mapping[str, Any]) -> str:
    """Identify the values of those variables that a template may read: it can do so only by name."""
    read = {name: value for name, value in variables.items() if name in source}
    return json.dumps(read, sort_keys=True, default=str) if read else ""
