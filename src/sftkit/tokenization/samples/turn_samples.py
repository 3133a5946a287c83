"""The fewest samples of a conversation in which each trained turn stands as the model sees it at inference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sftkit.core.row_log import RowDroppedError
from sftkit.core.rows import Ids
from sftkit.tokenization.encoding.spans import Span


class TurnSample(NamedTuple):
    """A sample of a conversation: its first messages, of which some assistant turns carry a loss."""

    messages: int
    """Number of messages."""
    turns: tuple[int, ...]
    """Indices of the assistant messages that carry a loss, ascending."""


class TurnSamples(NamedTuple):
    """The samples of a conversation."""

    samples: list[TurnSample]
    """In the order of their messages; none if nothing of the conversation is trained."""
    is_whole: bool
    """Whether the conversation is trained as with `render: once`: as a whole, in one sample, or not at all."""


@dataclass(frozen=True)
class RenderedTurns:
    """The first messages of a conversation as the chat template writes them, as text and as tokens."""

    messages: int
    """Number of messages."""
    text: str
    spans: dict[int, list[Span]]
    """Index of an assistant message -> what the model produces of it: spans of the text, ordered."""
    turn: int
    """Index of the assistant message that is trained."""
    is_closed: bool
    """Whether its turn ends with a special token, so that the tokens up to there do not depend on what follows."""
    encode: Callable[[str, Sequence[Span]], tuple[Ids, int]] = field(repr=False)
    """Returns the tokens of a text, shape (tokens,), and how many of them there are up to the last one in its spans."""

    def begins_as(self, other: RenderedTurns) -> bool:
        """Return whether this one is the same as another up to the end of its trained turn, in text and tokens.

        The turn itself may go on here: some templates write the stop token of a turn only if a message follows.
        """
        own, here = other.spans.get(other.turn), self.spans.get(other.turn, [])
        is_written = own is not None
        if own is None:  # nothing but the stop token is missing there
            own = [(len(other.text), len(other.text))]
        return (
            len(own) == len(here)
            and own[:-1] == here[:-1]
            and own[-1][0] == here[-1][0]
            and own[-1][1] <= here[-1][1]
            and self.text.startswith(other.text[: own[-1][1]])
            and ((is_written and other.is_closed) or self._has_tokens_of(other, is_written))
        )

    def _has_tokens_of(self, other: RenderedTurns, is_written: bool) -> bool:
        ids, stop = other.tokens
        stop = stop if is_written else len(ids)
        return np.array_equal(self.tokens[0][:stop], ids[:stop])

    @cached_property
    def tokens(self) -> tuple[Ids, int]:
        """The tokens, shape (tokens,), and their number up to the last trained one."""
        return self.encode(self.text, self.spans.get(self.turn, []))


@dataclass
class _Group:
    """A sample that is being made, and the turns that are trained in it."""

    rendered: RenderedTurns
    turns: list[int] = field(default_factory=list)


def group_turns(
    turns: Sequence[int], messages: int, render: Callable[[int, int], RenderedTurns], most: int | None = None
) -> TurnSamples:
    """Find the samples of a conversation.

    The sample of a turn ends with this turn. It is merged into the sample of a later turn that begins with it. What
    begins with a sample also begins with what this sample begins with, so looking for any such later sample, from the
    last turn to the first, gives the fewest samples: those that no other begins with.

    The last sample is the whole conversation if that begins with it, as for ordinary templates.

    Args:
        turns: indices of the assistant messages to train, ascending.
        messages: number of messages of the conversation.
        render: renders its first messages, given their number and the turn that is trained.
        most: the most samples that are allowed; None for any number.

    Returns:
        The samples. Turns that the template does not write are in none of them.

    Raises:
        RowDroppedError: there are more than `most`.
        RowError: as `render`.
    """
    groups: list[_Group] = []
    unwritten: list[int] = []
    for turn in reversed(turns):
        sample = render(turn + 1, turn)
        group = next((each for each in groups if each.rendered.begins_as(sample)), None)
        if group is None and turn not in sample.spans:
            unwritten.append(turn)
            continue
        if group is None:
            group = _Group(sample if groups else _whole_if_same(sample, messages, render))
            groups.append(group)
            if most is not None and len(groups) > most:
                raise RowDroppedError(f"a conversation of more than max_samples_per_row={most} samples")
        group.turns.append(turn)
    samples = [TurnSample(each.rendered.messages, tuple(reversed(each.turns))) for each in reversed(groups)]
    last = groups[0].rendered if len(groups) == 1 else None
    is_whole = last is not None and last.messages == messages and last.spans.keys().isdisjoint(unwritten)
    return TurnSamples(samples, is_whole or not samples)


def _whole_if_same(sample: RenderedTurns, messages: int, render: Callable[[int, int], RenderedTurns]) -> RenderedTurns:
    """Return the whole conversation if it begins with the sample of its last turn, else the sample."""
    if sample.messages == messages:
        return sample
    whole = render(messages, sample.turn)
    return whole if whole.begins_as(sample) else sample


def spans_by_turn(turns: Iterable[tuple[int, int, int]]) -> dict[int, list[Span]]:
    """Return the spans of each turn, given (message, start, end) in the order of the text; empty spans are left out.

    Example:
        >>> spans_by_turn([(1, 4, 9), (3, 12, 15), (3, 16, 16)])
        {1: [(4, 9)], 3: [(12, 15)]}
    """
    found: dict[int, list[Span]] = {}
    for message, start, end in turns:
        if start < end:
            found.setdefault(message, []).append((start, end))
    return found
