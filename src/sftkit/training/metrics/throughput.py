"""How fast a run is: tokens per second, the share of padding, and how much of the hardware's peak is used."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.metrics.flops import TrainingCost


@dataclass(frozen=True)
class Throughput:
    """Rates over a period of time."""

    tokens_per_second: float
    trained_tokens_per_second: float

    padding_share: float | None
    """Padding among all slots, 0 to 1; None if there was no work."""

    mfu: float | None
    """Model FLOPs utilization: operations that the model needs, divided by those that the hardware could have done in
    that time, 0 to 1. None if either is not known.
    """

    def log_entries(self) -> dict[str, float]:
        """The rates by their names in log events, without unknown ones."""
        rates = {
            "tokens_per_second": self.tokens_per_second,
            "trained_tokens_per_second": self.trained_tokens_per_second,
            "padding_share": self.padding_share,
            "mfu": self.mfu,
        }
        return {name: value for name, value in rates.items() if value is not None}


@dataclass(frozen=True)
class ThroughputMeter:
    """Computes rates from work and seconds."""

    cost: TrainingCost | None = None
    """Cost of the model (`training_cost`); None if it is not known."""

    peak_flops: float | None = None
    """Operations per second of all devices of the run together; None if it is not known."""

    def measure(self, work: WorkCounts, seconds: float) -> Throughput:
        """The rates of some work that took so many seconds."""
        seconds = max(seconds, 1e-9)
        mfu = None
        if self.cost is not None and self.peak_flops:
            needed = self.cost.flops(work.tokens, work.head_positions, work.squared_lengths)
            mfu = needed / seconds / self.peak_flops
        return Throughput(
            tokens_per_second=work.tokens / seconds,
            trained_tokens_per_second=work.trained_tokens / seconds,
            padding_share=1 - work.tokens / work.slots if work.slots else None,
            mfu=mfu,
        )
