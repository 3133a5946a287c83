"""What a run knows of itself besides the Trainer's own state."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.training.measuring.work import WorkCounts


@dataclass(frozen=True)
class Progress:
    """What is kept with a checkpoint, so that a resumed run logs what the run would have logged.

    loss: sum of the losses of the steps since the last log event. logged: step of that event. total: sum of the losses
    of all steps before it. work: done so far.
    """

    loss: float
    logged: int
    total: float
    work: WorkCounts
