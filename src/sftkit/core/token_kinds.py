"""The kinds of trained tokens: what of a turn each token is. Their numbers are values of the column `token_kinds`."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from sftkit.core.rows import IGNORE_INDEX, Ids, Mask, Ragged

TOKEN_KINDS = "token_kinds"
"""Column with the kind of every token, and key of the numbers by name in manifests and in the metadata of shards."""


class TokenKind(IntEnum):
    """What of a turn a token is."""

    UNTRAINED = 0
    """The token carries no loss."""
    CONTENT = 1
    """Everything else that carries a loss, also where it is not certain what it is."""
    REASONING = 2
    """Reasoning with its tags and the white space after them."""
    TOOL_CALL = 3
    """What the template writes for the tool calls of a message."""
    STOP = 4
    """The stop token, and what carries a loss after it."""

    @property
    def label(self) -> str:
        """The name in manifests and reports."""
        return self.name.lower()


TRAINED_KINDS = tuple(kind for kind in TokenKind if kind != TokenKind.UNTRAINED)
"""The kinds of tokens that carry a loss."""

KIND_NUMBERS = {kind.label: int(kind) for kind in TokenKind}
"""The numbers of all kinds, by name."""


def kinds_by_stop_ids(ids: Ragged, labels: Ragged, stop_ids: list[int]) -> Ragged:
    """Tell kinds from ids alone: stop tokens at the end of trained tokens, content before them.

    Args:
        ids: token ids of rows.
        labels: their labels, of the same shape.
        stop_ids: ids of stop tokens.

    Example:
        >>> ids, labels = Ragged.from_lists([[5, 6, 2, 7]]), Ragged.from_lists([[-100, 6, 2, -100]])
        >>> kinds_by_stop_ids(ids, labels, [2]).values.tolist()
        [0, 1, 4, 0]
    """
    trained = labels.values != IGNORE_INDEX
    kinds: Ids = np.where(trained, np.int32(TokenKind.CONTENT), np.int32(TokenKind.UNTRAINED))
    stops = trained & np.isin(ids.values, stop_ids)
    if stops.any():
        kinds[stops & ~_before_content(ids, trained, stops)] = TokenKind.STOP
    return Ragged(kinds, ids.offsets)


def kinds_for_labels(kinds: Ragged, labels: Ragged) -> Ragged:
    """Return kinds that agree with labels: 0 where there is no loss, and content where a kind is missing."""
    named = np.where(kinds.values == TokenKind.UNTRAINED, np.int32(TokenKind.CONTENT), kinds.values)
    values: Ids = np.where(labels.values != IGNORE_INDEX, named, np.int32(TokenKind.UNTRAINED)).astype(np.int32)
    return Ragged(values, labels.offsets)


def _before_content(ids: Ragged, trained: Mask, stops: Mask) -> Mask:
    """Return which tokens have a trained token other than a stop token after them, with only stop tokens between."""
    total = len(stops)
    positions = np.where(stops, total, np.arange(total))
    following = np.minimum.accumulate(positions[::-1])[::-1]  # the next token that is no stop token
    row_ends = np.repeat(ids.offsets[1:], ids.lengths)
    inside = following < row_ends
    before: Mask = inside & np.append(trained, False)[np.where(inside, following, total)]
    return before
