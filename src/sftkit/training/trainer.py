"""The transformers Trainer with sftkit's micro-batches, loss, evaluation and measurements."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.trainer_callback import PrinterCallback

from sftkit.training.checkpoints.checkpointing_trainer import CheckpointingTrainer
from sftkit.training.checkpoints.seal import RunState
from sftkit.training.data.collation import CollatedBatch
from sftkit.training.data.data_loader import MicroBatchLoader
from sftkit.training.data.feed import Feed, rows_per_micro_batch
from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.distributed import keep_float32_losses
from sftkit.training.loss.batch_loss import BatchLoss, ComputedLoss
from sftkit.training.loss.router_loss import RouterLoss
from sftkit.training.metrics.evaluation_metrics import evaluation_metrics
from sftkit.training.metrics.evaluation_sums import sum_losses
from sftkit.training.metrics.loss_parts import PartSums
from sftkit.training.metrics.loss_totals import part_entries
from sftkit.training.metrics.nonfinite_losses import NonfiniteLosses
from sftkit.training.metrics.step_measures import MeasuringTrainer
from sftkit.training.metrics.throughput import ThroughputMeter
from sftkit.training.models.embedding_noise import EmbeddingNoise
from sftkit.training.multimodal.processor_files import copy_processor_files
from sftkit.training.optimization.learning_rates import RateRule
from sftkit.training.tensor_parallel import data_processes, sum_over_rows

_NO_STEP = 1 << 62

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments


class SftTrainer(MeasuringTrainer, CheckpointingTrainer):
    """A transformers Trainer that trains on the micro-batches of a `Feed`.

    The loss of a step is the mean over its trained tokens: the sum of their cross entropies divided by N, the number of
    trained tokens in all micro-batches of all processes in the step. If the tokens have weights, it is the weighted
    mean: each cross entropy is multiplied by its weight, and N is the sum of the weights.

    1. Before a step, `_get_num_items_in_batch` adds up the trained tokens of the step over all processes: N.
    2. `compute_loss` gives the sum of the cross entropies of one micro-batch, divided by N (`BatchLoss`).
    3. The Trainer adds up the gradients of the micro-batches of a process. DDP and FSDP average the gradients of the P
       processes, which divides their sum by P, so `compute_loss` multiplies by P.

    The gradient is therefore that of the mean over the trained tokens of the step, however its rows are divided into
    micro-batches. (With `average_tokens_across_devices=false`, N counts only the tokens of the process itself, and the
    mean is over processes.)

    A resumed run logs what an uninterrupted one would: `run_state` and `restore_state` carry over the sums of losses
    and work from which logged values are computed.
    """

    loss_is_scaled_for_ga = True  # tells the Trainer not to divide the loss by the number of accumulation steps

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        feed: Feed,
        loss: BatchLoss,
        router_loss: RouterLoss | None,
        tokenizer: PreTrainedTokenizerBase,
        callbacks: list[TrainerCallback],
        meter: ThroughputMeter,
        rates: Sequence[RateRule] = (),
        processor_files: Sequence[Path] = (),
    ) -> None:
        """Set up the trainer.

        Args:
            model: the model, possibly with adapters.
            arguments: training arguments of the run.
            feed: its micro-batches.
            loss: computes the loss of a micro-batch.
            router_loss: the auxiliary loss of a mixture of experts, added to the loss in training.
            tokenizer: is saved with the model.
            callbacks: are added to those of the Trainer.
            meter: computes the logged rates.
            rates: parameters with learning rates of their own.
            processor_files: are saved with the model, too.
        """
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=feed.train,
            eval_dataset=feed.evaluation or None,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)  # printing is left to the listener of the run
        if self.is_fsdp_enabled:
            keep_float32_losses(self.accelerator.state.fsdp_plugin)
        self._feed = feed
        self.meter = meter
        self._processor_files = processor_files
        self.nonfinite = NonfiniteLosses()  # of this process
        self._loss = loss
        parts = feed.train.parts if feed.train is not None else None
        self._parts = None if parts is None else PartSums(parts, arguments.device)  # since the last log event
        self._weighted = feed.train is not None and feed.train.weighted
        self.rates = rates
        alpha, self.neftune_noise_alpha = self.neftune_noise_alpha, None  # the hook of transformers is not used
        self._noise = EmbeddingNoise(alpha, model) if alpha is not None and arguments.do_train else None
        self._router_loss = router_loss
        self._work = WorkCounts()  # of this process, in this run
        # Of all processes, before the checkpoint that the run resumed from.
        self._work_before = WorkCounts()
        self._total_loss_before = 0.0
        # Time and work of all processes at the last log event.
        self._last_log: float | None = None
        self._last_work = WorkCounts()

    def get_train_dataloader(self) -> MicroBatchLoader:
        """Micro-batches of the training split for this process."""
        return self._feed.train_loader(rows_per_micro_batch(self.args, self._train_batch_size))

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Run one forward and backward pass over a micro-batch, and count its work."""
        if self._last_log is None:
            self._last_log = time.perf_counter()  # rates are measured from the first step on
        assert isinstance(inputs, CollatedBatch), "micro-batches come from the feed"
        self._work += inputs.counts
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not bool(torch.isfinite(loss).all()):
            self.nonfinite.add(self.state.global_step + 1)
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The share of a micro-batch in the mean over the trained tokens of the step, times the number of processes."""
        items = torch.as_tensor(1 if num_items_in_batch is None else num_items_in_batch, device=self.args.device)
        assert isinstance(inputs, CollatedBatch), "micro-batches come from the feed"
        processes = data_processes(self.args)
        if self._router_loss is not None:
            self._router_loss.count(model, self._prepare_inputs)
            inputs = self._prepare_inputs(inputs)
        smoothing = self.args.label_smoothing_factor
        computed = self._loss(model, self.model, inputs, items, smoothing, self._router_loss)
        if self._parts is not None and computed.of_tokens is not None and inputs.details is not None:
            self._parts.add(computed.of_tokens, inputs.details, items)
        loss = computed.total
        if self.args.average_tokens_across_devices:
            loss = loss * processes
        if self._router_loss is not None:
            loss = loss + self._router_loss.of_batch(computed.outputs, inputs).to(loss.device) * processes
        return (loss, None) if return_outputs else loss

    def _prepare_inputs(self, inputs: Any) -> CollatedBatch:
        """Copy a micro-batch to the device, and prepare for a run of the model on it."""
        assert isinstance(inputs, CollatedBatch), "micro-batches come from the feed"
        if self._noise is not None:
            self._noise.prepare(inputs)
        details = None if inputs.details is None else inputs.details.to(self.args.device)
        return CollatedBatch(super()._prepare_inputs(inputs), inputs.counts, details)

    def prepare_for_evaluation(self) -> None:
        """Prepare the model for `evaluate` without training; mixed precision and sharding are set up here."""
        if self.is_fsdp_enabled:
            self.model = self.model_wrapped = self.accelerator.prepare(self.model)
        else:
            self.model = self.accelerator.prepare_model(self.model, evaluation_mode=True)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Compute the mean loss over the trained tokens of what is evaluated, together and of each data set.

        If the tokens have weights, it is the weighted mean, as in training.
        """
        start = time.perf_counter()
        model = self.model_wrapped if self.is_deepspeed_enabled else self.model
        assert isinstance(model, torch.nn.Module)
        training = model.training
        model.eval()
        rows = rows_per_micro_batch(self.args, self.args.eval_batch_size)
        loaders = {name: self._feed.evaluation_loader(name, rows) for name in self._feed.evaluation}
        parts = {name: rows.parts for name, rows in self._feed.evaluation.items() if rows.parts is not None}
        one = torch.ones((), device=self.args.device)

        def loss_of(batch: CollatedBatch) -> tuple[CollatedBatch, ComputedLoss]:
            prepared = self._prepare_inputs(batch)
            return prepared, self._loss(model, self.model, prepared, one)

        with torch.no_grad():
            sums = sum_losses(loaders, parts, loss_of, self._sum, one.device)
        model.train(training)
        metrics = evaluation_metrics(sums, time.perf_counter() - start, metric_key_prefix)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an event; to those with a training loss, add the rates since the last one."""
        if self._last_log is not None and "loss" in logs:
            work, now = self.work(), time.perf_counter()
            logs |= self.meter.measure(work - self._last_work, now - self._last_log).log_entries()
            self._last_work, self._last_log = work, now
        if "loss" in logs and self._router_loss is not None:
            logs |= self._router_loss.log_entries(self.state.global_step)
        if "loss" in logs and self._parts is not None:
            logs |= part_entries(self._parts.totals(self._sum(self._parts.values)))
            self._parts.clear()
        if "loss" in logs and self.nonfinite_losses().since_log:
            # The Trainer leaves out such losses (logging_nan_inf_filter): its sums would never be finite again.
            logs["loss"], self.nonfinite.since_log = math.nan, False
        if "train_loss" in logs:  # the Trainer averages only over the steps of this run
            steps = self.state.global_step - self._initial_global_step
            logs["train_loss"] = (self._total_loss_before + logs["train_loss"] * steps) / max(self.state.global_step, 1)
            if self.nonfinite_losses().first_step:
                logs["train_loss"] = math.nan
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Floating-point operations of a micro-batch, which the Trainer adds up in `total_flos`."""
        if self.meter.cost is None or not isinstance(inputs, CollatedBatch):
            return 0
        counts = inputs.counts
        return int(self.meter.cost.flops(counts.tokens, counts.head_positions, counts.squared_lengths))

    def work(self) -> WorkCounts:
        """Work of all processes in this run; every process must call it."""
        counts = torch.tensor(astuple(self._work), dtype=torch.int64, device=self.args.device)
        return WorkCounts(*self._sum(counts).tolist())

    def trained_tokens_of_parts(self) -> dict[str, int]:
        """Trained tokens of each source and kind, of all processes in this run; every process must call it."""
        return {} if self._parts is None else self._parts.trained_tokens(self._sum)

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add up values over all processes that compute different rows; every process must call it."""
        return sum_over_rows(self.accelerator, self.args, values)

    def nonfinite_losses(self) -> NonfiniteLosses:
        """Losses of all processes that are not finite; every process must call it, and then knows of all of them."""
        mine = self.nonfinite
        if self.args.world_size > 1:
            steps = (-mine.first_step or -_NO_STEP, mine.last_step, mine.in_a_row, int(mine.since_log))
            found = torch.tensor(steps, dtype=torch.int64, device=self.args.device)
            first, last, in_a_row, since_log = self.accelerator.gather(found).view(-1, len(steps)).amax(0).tolist()
            self.nonfinite = NonfiniteLosses(0 if -first == _NO_STEP else -first, last, in_a_row, bool(since_log))
        return self.nonfinite

    def run_state(self) -> RunState:
        """The state to save with a checkpoint; every process must call it."""
        loss = self.accelerator.reduce(self._tr_loss.clone().double(), "mean")
        total = self._total_loss_before + self._total_loss_scalar
        parts = None if self._parts is None else self._sum(self._parts.values).tolist()
        return RunState(
            loss_since_log=float(loss),
            last_logged_step=self._globalstep_last_logged,
            total_loss=total,
            work=self._work_before + self.work(),
            nonfinite=self.nonfinite_losses(),
            aux_loss=self._router_loss.since_log() if self._router_loss is not None else 0.0,
            parts=parts or (),
        )

    def restore_state(self, state: RunState) -> None:
        """Restore the state saved with the checkpoint that the run resumes from."""
        self._tr_loss += state.loss_since_log
        self._globalstep_last_logged = state.last_logged_step
        if self._router_loss is not None:
            self._router_loss.restore(state.aux_loss, state.last_logged_step, self.args.world_size)
        if self._parts is not None and state.parts and self.is_world_process_zero():
            self._parts.restore(state.parts)
        self._total_loss_before = state.total_loss
        self._work_before = state.work
        self.nonfinite = replace(state.nonfinite)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        copy_processor_files(self._processor_files, output_dir or str(self.args.output_dir))

    def _get_num_items_in_batch(self, batch_samples: list[CollatedBatch], device: torch.device) -> torch.Tensor:
        """Trained tokens of the step, or the sum of their weights; called by the Trainer before each step.

        1 instead of 0: a step can consist of unusable rows only, and then has a loss of 0.
        """
        if self._router_loss is not None:
            self._router_loss.begin_step(batch_samples)
        if self._weighted:
            items = torch.tensor(sum(batch.loss_weight for batch in batch_samples), dtype=torch.float32, device=device)
        else:
            items = torch.tensor(sum(batch.counts.trained_tokens for batch in batch_samples), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            items = self._sum(items)
        return torch.where(items > 0, items, 1)
