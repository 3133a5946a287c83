"""The transformers Trainer, fed by `Feed`: the mean over the trained tokens of the global batch, and counts of work."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from sftkit.core.rows import IGNORE_INDEX, LABELS
from sftkit.training.checkpoints.seal import RunState, begin_checkpoint
from sftkit.training.data.collation import SHIFT_LABELS, CollatedBatch
from sftkit.training.data.data_loader import MicroBatchLoader
from sftkit.training.data.feed import Feed, rows_per_micro_batch
from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.metrics.throughput import ThroughputMeter
from sftkit.training.models.cross_entropy import summed_cross_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments


class SftTrainer(Trainer):
    """Trains on micro-batches of a `Feed`; `work` counts those of this process, in this run."""

    loss_is_scaled_for_ga = True  # read by the Trainer: every loss here is over the whole global batch

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        feed: Feed,
        sums_loss: bool,
        tokenizer: PreTrainedTokenizerBase,
        callbacks: list[TrainerCallback],
        meter: ThroughputMeter,
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=feed.train,
            eval_dataset=feed.evaluation,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)  # who listens to the run prints what it wants
        if self.is_fsdp_enabled:
            _keep_losses_whole(self.accelerator.state.fsdp_plugin)
        self._feed = feed
        self.meter = meter
        self._sums_loss = sums_loss
        self._work = WorkCounts()
        self._before = WorkCounts()
        self._total_before = 0.0
        self._last_log: float | None = None
        self._last_work = WorkCounts()

    def get_train_dataloader(self) -> MicroBatchLoader:
        """Micro-batches of the training split, for this process."""
        return self._feed.train_loader(rows_per_micro_batch(self.args, self._train_batch_size))

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """One forward and backward pass over a micro-batch; counts its work."""
        if self._last_log is None:
            self._last_log = time.perf_counter()  # the first step begins here, not when the model was loaded
        assert isinstance(inputs, CollatedBatch), "micro-batches come from the feed"
        self._work += inputs.counts
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The share of a micro-batch in the mean over the trained tokens of the global batch.

        Gradients are averaged over the processes, so it is multiplied by their number.
        """
        items = torch.as_tensor(1 if num_items_in_batch is None else num_items_in_batch)
        loss = self._loss(model, inputs, items, self.args.label_smoothing_factor)
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The mean loss over all trained tokens of the validation split, and its exponential, the perplexity."""
        start = time.perf_counter()
        model = self.model_wrapped if self.is_deepspeed_enabled else self.model
        assert isinstance(model, torch.nn.Module)
        training = model.training
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        one = torch.ones((), device=self.args.device)
        with torch.no_grad():
            for batch in self._feed.evaluation_loader(rows_per_micro_batch(self.args, self.args.eval_batch_size)):
                trained = batch.counts.trained_tokens
                loss = self._loss(model, self._prepare_inputs(batch), one, 0.0)
                sums += torch.tensor([float(loss) if trained else 0.0, trained], device=sums.device)
        model.train(training)
        total, trained_tokens = self.accelerator.reduce(sums, "sum").tolist()
        mean = total / max(trained_tokens, 1)
        seconds = time.perf_counter() - start
        metrics = {
            f"{metric_key_prefix}_loss": mean,
            f"{metric_key_prefix}_perplexity": math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf,
            f"{metric_key_prefix}_runtime": seconds,
            f"{metric_key_prefix}_trained_tokens_per_second": trained_tokens / max(seconds, 1e-9),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an event; those of training also with the work of a second since the last one."""
        if self._last_log is not None and "loss" in logs:
            work, now = self.work(), time.perf_counter()
            logs |= self.meter.measure(work - self._last_work, now - self._last_log).log_entries()
            self._last_work, self._last_log = work, now
        if "train_loss" in logs:  # the Trainer's is of the steps since the run was resumed
            steps = self.state.global_step - self._initial_global_step
            logs["train_loss"] = (self._total_before + logs["train_loss"] * steps) / max(self.state.global_step, 1)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Operations that a micro-batch needs; the Trainer adds them up to `total_flos`."""
        if self.meter.cost is None or not isinstance(inputs, CollatedBatch):
            return 0
        counts = inputs.counts
        return int(self.meter.cost.flops(counts.tokens, counts.head_positions, counts.squared_lengths))

    def work(self) -> WorkCounts:
        """The work of all processes together in this run; every process must call it."""
        counts = torch.tensor(astuple(self._work), dtype=torch.int64, device=self.args.device)
        return WorkCounts(*self.accelerator.reduce(counts, "sum").tolist())

    def run_state(self) -> RunState:
        """What is to be kept with a checkpoint; every process must call it."""
        loss = self.accelerator.reduce(self._tr_loss.clone().double(), "mean")
        total = self._total_before + self._total_loss_scalar
        return RunState(float(loss), self._globalstep_last_logged, total, self._before + self.work())

    def restore_state(self, state: RunState) -> None:
        """Take up what was kept with the checkpoint that the run resumes from."""
        self._tr_loss += state.loss_since_log
        self._globalstep_last_logged = state.last_logged_step
        self._total_before = state.total_loss
        self._before = state.work

    def _loss(
        self, model: torch.nn.Module, inputs: Mapping[str, Any], items: torch.Tensor, smoothing: float
    ) -> torch.Tensor:
        """Sum of the losses of a batch over `items`: by the model itself, so that its own (fused) loss is used."""
        items = items.to(self.args.device)
        if self._sums_loss and not smoothing:
            outputs = model(**inputs, num_items_in_batch=items)
            loss: torch.Tensor = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
            return loss
        rest = {name: value for name, value in inputs.items() if name not in (LABELS, SHIFT_LABELS)}
        labels = inputs.get(SHIFT_LABELS)
        if labels is None:
            labels = functional.pad(inputs[LABELS], (0, 1), value=IGNORE_INDEX)[..., 1:]
        outputs = model(**rest)
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        return summed_cross_entropy(logits, labels, items, smoothing)

    def _run_epoch(self, *arguments: Any, **settings: Any) -> None:
        """Nothing, for a run that was resumed at its end: the Trainer looks only after a step whether it is done."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **settings)  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _save_checkpoint(self, *arguments: Any) -> None:
        """Write a checkpoint into a directory of its own, which stays unsealed until `CheckpointKeeper` seals it."""
        if self.is_world_process_zero():
            begin_checkpoint(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(*arguments)

    def _get_num_items_in_batch(self, batch_samples: list[CollatedBatch], device: torch.device) -> torch.Tensor:
        """Trained tokens of the global batch; the Trainer asks for it before each step.

        At least 1: a step may consist of rows that were left out, and has then a loss of 0.
        """
        items = torch.tensor(sum(batch.counts.trained_tokens for batch in batch_samples), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            items = self.accelerator.reduce(items, "sum")
        return items.clamp(min=1)


def _keep_losses_whole(plugin: Any) -> None:
    """With FSDP2, accelerate rounds what the model returns, losses included, to 16 bits, and sums gradients in them."""
    if plugin.fsdp_version == 2 and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, output_dtype=None, reduce_dtype=torch.float32
        )


_LARGEST_EXPONENT = math.log(1.7e308)
