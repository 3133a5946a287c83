"""A conversation as a template takes it, and when it is ready to be encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sftkit.core.accounting.row_notes import RowNotes
from sftkit.core.rows import Row
from sftkit.tokenization.conversations import Conversation


class ReadConversation(NamedTuple):
    """A conversation as the template takes it."""

    row: Row
    """The row, with special tokens in its contents escaped if the config asks for it."""
    conversation: Conversation
    skips_reasoning: bool
    """Whether it is rendered with an empty block of reasoning in its prompts (`empty_reasoning: add`)."""
    has_special: bool
    """Whether its contents have special tokens."""


class PreparedConversation(NamedTuple):
    """The text of a conversation, what of it carries a loss, and what was noticed on the way."""

    row: Row
    """The row, with special tokens in its contents escaped if the config asks for it."""
    text: str
    trained: Sequence[Any]
    """Spans of the text that carry a loss, or the parts of these spans by kind and weight."""
    notes: RowNotes
    in_parts: bool = False
    """Whether `trained` has parts."""
    prompt_ends: Sequence[int] = ()
    """Where prompts of trained turns end, in characters of the text, ascending, if they are encoded apart."""
