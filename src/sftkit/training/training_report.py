"""The figures of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sftkit.training.metrics.evaluation_metrics import set_of_metric
from sftkit.training.metrics.hardware import peak_memory
from sftkit.training.metrics.nonfinite_losses import NonfiniteLosses

_LOSS_OF_PART = "loss/"

if TYPE_CHECKING:
    from sftkit.training.trainer import SftTrainer


@dataclass(frozen=True)
class PartReport:
    """The figures of one source, or of one kind of tokens. Losses are None if none were logged."""

    loss: float | None = None
    """In the last log event of training with such tokens."""

    eval_loss: float | None = None
    """Of the last evaluation."""

    eval_perplexity: float | None = None
    """Of the last evaluation."""

    trained_tokens: int = 0
    """Of all processes and epochs, in this run only."""


@dataclass(frozen=True)
class TrainingReport:
    """The figures of a finished run. Losses are None if none were logged."""

    steps: int
    """Optimizer steps, including those before the checkpoint that the run resumed from."""

    epochs: float
    """Epochs, including those before the checkpoint that the run resumed from."""

    nonfinite: NonfiniteLosses
    """Losses that were not finite (NaN or infinite)."""

    first_loss: float | None
    last_loss: float | None

    eval_loss: float | None
    """Of the last evaluation."""

    eval_perplexity: float | None
    """Of the last evaluation."""

    seconds: float
    """Time in the training loop."""

    tokens: int
    """Of all processes and epochs, in this run only."""

    trained_tokens: int
    """Of all processes and epochs, in this run only."""

    padding_share: float | None
    """See `Throughput`."""

    mfu: float | None
    """See `Throughput`."""

    peak_memory: int
    """Bytes, on the GPU if `on_gpu`."""

    on_gpu: bool
    output_dir: Path

    stopped_early: str | None = None
    """Why the run ended before its last step (`early_stopping_patience`); None if it did not."""

    eval_losses: Mapping[str, float] = field(default_factory=dict)
    """Of each data set in the last evaluation, by name; empty if only the validation split was evaluated."""

    parts: Mapping[str, PartReport] = field(default_factory=dict)
    """Of each source and kind of tokens, by its name in the log (`source/math`, `reasoning`); empty if the data do not
    tell them."""

    @property
    def diverged_at(self) -> int | None:
        """The step since which no loss was finite, so that the weights are of no use; None if the last one is."""
        if self.nonfinite.last_step < max(self.steps, 1):
            return None
        return self.nonfinite.last_step - self.nonfinite.in_a_row + 1


def make_report(trainer: SftTrainer, seconds: float, stopped_early: str | None = None) -> TrainingReport:
    """The report of a finished run; every process must call it."""
    work = trainer.work()
    rates = trainer.meter.measure(work, seconds)
    device = trainer.args.device
    return TrainingReport(
        steps=trainer.state.global_step,
        epochs=float(trainer.state.epoch or 0),
        nonfinite=trainer.nonfinite_losses(),
        first_loss=next(iter(_logged(trainer, "loss")), None),
        last_loss=next(reversed(_logged(trainer, "loss")), None),
        eval_loss=next(reversed(_logged(trainer, "eval_loss")), None),
        eval_perplexity=next(reversed(_logged(trainer, "eval_perplexity")), None),
        eval_losses=_losses_of_sets(trainer),
        parts=_parts(trainer),
        seconds=seconds,
        tokens=work.tokens,
        trained_tokens=work.trained_tokens,
        padding_share=rates.padding_share,
        mfu=rates.mfu,
        peak_memory=peak_memory(device),
        on_gpu=device.type == "cuda",
        output_dir=Path(str(trainer.args.output_dir)),
        stopped_early=stopped_early,
    )


def _losses_of_sets(trainer: SftTrainer) -> dict[str, float]:
    last = next((entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry), {})
    return {name: float(last[key]) for key in last if (name := set_of_metric(key)) is not None}


def _parts(trainer: SftTrainer) -> dict[str, PartReport]:
    """Each part with a loss in the log; sources come first."""
    counts, history = trainer.trained_tokens_of_parts(), trainer.state.log_history
    evaluated = next((entry for entry in reversed(history) if "eval_loss" in entry), {})
    trained = {key: float(entry[key]) for entry in history for key in entry if key.startswith(_LOSS_OF_PART)}
    names = [key.removeprefix("eval_").removeprefix(_LOSS_OF_PART) for key in (*trained, *evaluated)
             if key.removeprefix("eval_").startswith(_LOSS_OF_PART)]  # fmt: skip
    return {
        name: PartReport(
            trained.get(f"loss/{name}"),
            evaluated.get(f"eval_loss/{name}"),
            evaluated.get(f"eval_perplexity/{name}"),
            counts.get(name, 0),
        )
        for name in sorted(dict.fromkeys(names), key=lambda name: not name.startswith("source/"))
    }


def _logged(trainer: SftTrainer, key: str) -> list[float]:
    return [float(entry[key]) for entry in trainer.state.log_history if key in entry]
