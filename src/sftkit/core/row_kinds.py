"""What rows are made of once all handlers have run, which decides what the audit can expect of them."""

from __future__ import annotations

from enum import StrEnum


class RowKind(StrEnum):
    """What a handler makes of rows. `UNKNOWN` is always safe: only checks that hold for any tokens apply."""

    CONVERSATIONS = "conversations"
    """Tokens of a conversation that the chat template rendered, with labels on what the model has to produce."""
    PAIRS = "pairs"
    """Tokens of an input followed by an output, with labels on the output."""
    RENDERED = "rendered text"
    """Text that the chat template rendered."""
    TEXT = "text"
    """Any other text."""
    UNKNOWN = "unknown"
    """Tokens about whose labels nothing is known."""

    @property
    def is_tokens(self) -> bool:
        """Whether rows have tokens, so that no later handler changes their kind."""
        return self in (RowKind.CONVERSATIONS, RowKind.PAIRS, RowKind.UNKNOWN)
