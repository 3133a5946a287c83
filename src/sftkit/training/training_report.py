"""What a run did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftkit.training.metrics.hardware import peak_memory

if TYPE_CHECKING:
    from sftkit.training.trainer import SftTrainer


@dataclass(frozen=True)
class TrainingReport:
    """What a run did.

    steps: optimizer steps, those before a resumed checkpoint included. epochs: likewise.
    first_loss, last_loss, eval_loss, eval_perplexity: as logged; None where none was.
    seconds: time in the training loop. tokens, trained_tokens: over all processes and epochs, of this run alone.
    padding_share, mfu: see `throughput.Throughput`. peak_memory: bytes, of the GPU's memory when `on_gpu`.
    """

    steps: int
    epochs: float
    first_loss: float | None
    last_loss: float | None
    eval_loss: float | None
    eval_perplexity: float | None
    seconds: float
    tokens: int
    trained_tokens: int
    padding_share: float | None
    mfu: float | None
    peak_memory: int
    on_gpu: bool
    output_dir: Path


def make_report(trainer: SftTrainer, seconds: float) -> TrainingReport:
    """The report of a run that is done; every process must call it."""
    work = trainer.work()
    rates = trainer.meter.measure(work, seconds)
    device = trainer.args.device
    return TrainingReport(
        steps=trainer.state.global_step,
        epochs=float(trainer.state.epoch or 0),
        first_loss=next(iter(_logged(trainer, "loss")), None),
        last_loss=next(reversed(_logged(trainer, "loss")), None),
        eval_loss=next(reversed(_logged(trainer, "eval_loss")), None),
        eval_perplexity=next(reversed(_logged(trainer, "eval_perplexity")), None),
        seconds=seconds,
        tokens=work.tokens,
        trained_tokens=work.trained_tokens,
        padding_share=rates.padding_share,
        mfu=rates.mfu,
        peak_memory=peak_memory(device),
        on_gpu=device.type == "cuda",
        output_dir=Path(str(trainer.args.output_dir)),
    )


def _logged(trainer: SftTrainer, key: str) -> list[float]:
    return [float(entry[key]) for entry in trainer.state.log_history if key in entry]
