"""The values of the option `train_on`: which assistant turns of a conversation carry a loss.

Adding a value takes one function of the type `TrainOn`. An installed package registers its own in `pyproject.toml`:

    [project.entry-points."sftkit.train_on"]
    longest_answer = "my_package.turns:longest_answer"
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sftkit.core.plugins import Registry
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Message

TrainOn = Callable[[Sequence[Message], Sequence[int]], Collection[int]]
"""Chooses the trained turns of a conversation.

Args:
    messages: all messages; they must not be changed.
    turns: indices of the assistant messages, ascending.

Returns:
    The trained ones of `turns`, in any order. The same arguments must always give the same result.

May raise `RowError` to quarantine the row; any other exception does the same.
"""

ASSISTANT, LAST_ASSISTANT, FIRST_ASSISTANT, ALL = "assistant", "last_assistant", "first_assistant", "all"


def every_turn(messages: Sequence[Message], turns: Sequence[int]) -> Sequence[int]:
    """Train every assistant turn.

    Example:
        >>> messages = [{"role": "user"}, {"role": "assistant"}, {"role": "user"}, {"role": "assistant"}]
        >>> every_turn(messages, [1, 3])
        [1, 3]
    """
    return turns


def last_turn(messages: Sequence[Message], turns: Sequence[int]) -> Sequence[int]:
    """Train the last assistant turn only.

    Example:
        >>> messages = [{"role": "user"}, {"role": "assistant"}, {"role": "user"}, {"role": "assistant"}]
        >>> last_turn(messages, [1, 3])
        [3]
    """
    return turns[-1:]


def first_turn(messages: Sequence[Message], turns: Sequence[int]) -> Sequence[int]:
    """Train the first assistant turn only.

    Example:
        >>> messages = [{"role": "user"}, {"role": "assistant"}, {"role": "user"}, {"role": "assistant"}]
        >>> first_turn(messages, [1, 3])
        [1]
    """
    return turns[:1]


TRAIN_ON: Registry[TrainOn] = Registry(
    "train_on",
    # `all` also trains what no turn contains: `Supervision` and the callers of `ALL` handle that.
    {ASSISTANT: every_turn, LAST_ASSISTANT: last_turn, FIRST_ASSISTANT: first_turn, ALL: every_turn},
    lambda extension: None if callable(extension) else "is not a function",
)
"""All values of `train_on`: the built-in ones and those of installed packages."""


def choose_turns(train_on: str, strategy: TrainOn, messages: Sequence[Message], turns: Sequence[int]) -> frozenset[int]:
    """Return the trained ones of the assistant messages at `turns`.

    Args:
        train_on: the name of the strategy, for messages.
        strategy: the value of `TRAIN_ON` for this name.
        messages: all messages of the conversation.
        turns: indices of the assistant messages.

    Raises:
        RowError: the strategy raised an exception, or returned something other than turns.
    """
    try:
        chosen = frozenset(strategy(messages, turns))
    except RowError:
        raise
    except Exception as error:  # a plugin may raise anything
        raise RowError(f"train_on={train_on} raised {type(error).__name__}: {error}") from None
    others = chosen.difference(turns)
    if others:
        named = ", ".join(sorted(map(repr, others)))
        raise RowError(f"train_on={train_on} must choose among the assistant messages {[*turns]}, not {named}")
    return chosen
