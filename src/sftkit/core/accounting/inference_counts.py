"""How the rows of conversations compare with what a model sees at inference."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class InferenceCounts:
    """Counts of `render: auto` and `per_turn`.

    Example:
        >>> InferenceCounts(rows=2) + InferenceCounts(rows=1, samples=3)
        InferenceCounts(rows=3, inexact_rows=0, inexact_turns=0, conversations=0, samples=3, added_tokens=0)
    """

    rows: int = 0
    """Rows of which it was established whether each trained token follows the tokens of its prompt at inference, and
    those of its own turn."""
    inexact_rows: int = 0
    """Those of them with a turn for which this is not so, or not known."""
    inexact_turns: int = 0
    """Such turns."""
    conversations: int = 0
    """Conversations that became samples of their turns."""
    samples: int = 0
    """The samples that they became."""
    added_tokens: int = 0
    """Tokens of these samples, less those that the same conversations have if they are rendered once."""

    def __add__(self, other: InferenceCounts) -> InferenceCounts:
        return InferenceCounts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))
