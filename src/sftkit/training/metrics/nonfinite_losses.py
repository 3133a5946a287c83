"""Remembers losses that are not finite (NaN or infinite): they mean that a run has diverged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NonfiniteLosses:
    """The steps of one process, numbered from 1, in which a micro-batch had a loss that is not finite."""

    first_step: int = 0
    """0 if there is none yet."""

    last_step: int = 0
    """0 if there is none yet."""

    in_a_row: int = 0
    """Consecutive steps that end with `last_step`."""

    since_log: bool = False
    """Whether there was one since the last log event."""

    def add(self, step: int) -> None:
        """Record that a micro-batch of a step has such a loss.

        Example:
            >>> losses = NonfiniteLosses()
            >>> losses.add(2), losses.add(2), losses.add(3)
            (None, None, None)
            >>> losses
            NonfiniteLosses(first_step=2, last_step=3, in_a_row=2, since_log=True)
        """
        self.since_log = True
        if step != self.last_step:
            self.in_a_row = self.in_a_row + 1 if self.last_step == step - 1 else 1
            self.first_step, self.last_step = self.first_step or step, step
