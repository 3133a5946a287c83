"""Flags that say which messages of a sample carry a loss."""

from __future__ import annotations

from collections.abc import Sequence

from sftkit.core.message_fields import LOSS_FLAGS
from sftkit.tokenization.conversations import Message, is_assistant
from sftkit.tokenization.masking.supervision import Supervision
from sftkit.tokenization.samples.turn_samples import TurnSample

FLAG = "train"
"""The flag that is set."""


def cut_messages(messages: Sequence[Message], sample: TurnSample) -> list[Message]:
    """Return the messages of a sample; assistant messages that carry no loss in it have the flag `train: false`.

    Example:
        >>> talk = [{"role": "assistant", "weight": 1}, {"role": "user"}, {"role": "assistant"}, {"role": "user"}]
        >>> cut_messages(talk, TurnSample(3, (2,)))
        [{'role': 'assistant', 'train': False}, {'role': 'user'}, {'role': 'assistant'}]
    """
    return [
        with_flag(message, trains=False) if is_assistant(message) and index not in sample.turns else message
        for index, message in enumerate(messages[: sample.messages])
    ]


def history_length(messages: Sequence[Message], supervision: Supervision) -> int:
    """Return how many messages end with the last untrained turn before the first trained one.

    In a sample, they are the history, which the chat template may shorten; another sample trains their turns.

    Raises:
        RowError: a loss flag is invalid, or `train_on` refused.

    Example:
        >>> talk = [{"role": "user"}, {"role": "assistant", "train": False}, {"role": "user"}, {"role": "assistant"}]
        >>> history_length(talk, Supervision())
        2
    """
    turns = [index for index, message in enumerate(messages) if is_assistant(message)]
    trained = set(supervision.trained_turns(messages)) if turns else set()
    if not trained:
        return 0
    return max((turn + 1 for turn in turns if turn < min(trained)), default=0)


def with_flag(message: Message, *, trains: bool) -> Message:
    """Return a message with one flag, and none of those that it had.

    Example:
        >>> with_flag({"role": "assistant", "loss": True}, trains=False)
        {'role': 'assistant', 'train': False}
    """
    return {**{key: value for key, value in message.items() if key not in LOSS_FLAGS}, FLAG: trains}
