"""Decides whether a template writes a value: it does if another value gives another text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.omissions.altered_conversations import Place, altered, mark_of

_MOST_SINGLE = 64
"""The most values of a conversation that are judged one by one."""


class OmissionJudge:
    """Renders conversations with altered values, and compares the texts.

    The result does not depend on how a template writes a value: cut, escaped, or taken apart. A template that refuses
    the altered conversation looks at the value, which counts as written.
    """

    def __init__(self, render: Callable[[Conversation], str]) -> None:
        self._render = render

    def omitted(self, conversation: Conversation, text: str, places: Sequence[Place]) -> list[Place]:
        """Return those of some places of a conversation whose values its rendering does not depend on.

        Args:
            conversation: the conversation.
            text: its rendering.
            places: where there are values.
        """
        if not places:
            return []
        marked = self._render_altered(conversation, places, keeps_texts=True)
        unmarked = [place for place in places if marked is None or mark_of(place) not in marked]
        if not unmarked:
            return []
        if marked == text:
            if self._render_altered(conversation, places, keeps_texts=False) == text:
                return list(places)
        elif len(unmarked) < len(places) and self._is_independent(conversation, text, unmarked):
            return unmarked
        if len(places) == 1:
            return []
        return [place for place in unmarked[:_MOST_SINGLE] if self._is_independent(conversation, text, [place])]

    def is_same(self, conversation: Conversation, text: str) -> bool:
        """Return whether a conversation that was changed has the same rendering as before."""
        try:
            return self._render(conversation) == text
        except RowError:
            return False

    def _is_independent(self, conversation: Conversation, text: str, places: Sequence[Place]) -> bool:
        return all(self._render_altered(conversation, places, keeps_texts=kept) == text for kept in (True, False))

    def _render_altered(self, conversation: Conversation, places: Sequence[Place], *, keeps_texts: bool) -> str | None:
        try:
            return self._render(altered(conversation, places, keeps_texts=keeps_texts))
        except RowError:
            return None
