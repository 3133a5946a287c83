"""How fast a run is: tokens a second, the share of padding, and how much of the hardware's arithmetic is used."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.metrics.flops import TrainingCost


@dataclass(frozen=True)
class Throughput:
    """Rates over a stretch of time.

    padding_share: padding among all slots, 0 to 1; None where nothing went through. mfu: model FLOPs utilisation, the
    operations the model needs over those the hardware could have done, 0 to 1; None where either is not known.
    """

    tokens_per_second: float
    trained_tokens_per_second: float
    padding_share: float | None
    mfu: float | None

    def log_entries(self) -> dict[str, float]:
        """The rates as they stand in a log event; what is not known is left out."""
        named = {
            "tokens_per_second": self.tokens_per_second,
            "trained_tokens_per_second": self.trained_tokens_per_second,
            "padding_share": self.padding_share,
            "mfu": self.mfu,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class ThroughputMeter:
    """Turns work and seconds into rates.

    cost: of the model (`flops.training_cost`). peak: operations a second of all devices of the run together
    (`devices.peak_flops` times their number). None where not known.
    """

    cost: TrainingCost | None = None
    peak_flops: float | None = None

    def measure(self, work: WorkCounts, seconds: float) -> Throughput:
        """The rates of some work done in so many seconds."""
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
