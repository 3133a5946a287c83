"""The rows that one row becomes when each of its turns is trained as the model sees it at inference."""

from __future__ import annotations

from typing import NamedTuple

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.tokenization.conversations import Conversation, read_conversation
from sftkit.tokenization.masking.prepared_conversation import PreparedConversation
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.samples.sample_flags import cut_messages
from sftkit.tokenization.samples.turn_samples import TurnSamples


class RowSamples(NamedTuple):
    """The rows that a row becomes."""

    rows: list[Row]
    """One for each sample; the row itself if its conversation is trained as a whole."""
    differing: int = 0
    """Number of trained turns that do not follow the text of their prompt at inference."""
    unknown: int = 0
    """Number of trained turns of which this is not known."""
    whole: PreparedConversation | None = None
    """The conversation of the row itself, if it is trained as a whole and was prepared on the way."""
    text_once: str | None = None
    """The text of the conversation as `render: once` has it; None if it is trained as a whole."""

    @property
    def differs_from_prompts(self) -> bool:
        """Whether a turn does not follow its prompt at inference."""
        return self.differing > 0


def samples_as_rows(
    row: Row, column: str | None, conversation: Conversation, found: TurnSamples, supervision: Supervision
) -> list[Row]:
    """Return the rows of some samples: each has the messages of one, and all other columns of the row.

    Args:
        row: the row.
        column: the column of its messages; None if the template takes the whole row.
        conversation: its conversation, as the template takes it.
        found: the samples.
        supervision: decides which turns carry a loss.

    Raises:
        RowError: no column, or several, hold messages; or `train_on` chooses other turns of the messages of a sample.
    """
    if found.is_whole:
        return [row]
    name = conversation.column if column is None else column
    assert name is not None
    messages = read_conversation(row, column).message_list
    rows: list[Row] = []
    for sample in found.samples:
        cut = cut_messages(messages, sample)
        if supervision.trained_turns(cut) != list(sample.turns):
            raise RowError(f"train_on={supervision.train_on} chooses other turns of a conversation that is cut")
        rows.append({**row, name: cut})
    return rows
