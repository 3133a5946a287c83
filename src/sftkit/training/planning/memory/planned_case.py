"""One way to do a run, whose memory can be estimated for several batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from sftkit.config.commands import TrainConfig
from sftkit.core.error_text import single_line
from sftkit.training.data.collation import CollatedBatch, Collator, FlatCollator
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.distributed import uses_deepspeed
from sftkit.training.loss.batch_loss import BatchLoss
from sftkit.training.loss.choose_chunks import planned_chunk_size
from sftkit.training.loss.chunked_model import use_chunked_loss
from sftkit.training.mixed_precision import mixed_precision
from sftkit.training.models.run_tokenizer import RunTokenizer
from sftkit.training.models.sequence_separation import boundary_encoder_for
from sftkit.training.planning.memory.byte_timeline import ByteTimeline, Kind
from sftkit.training.planning.memory.memory_use import MemoryUse
from sftkit.training.planning.memory.optimizer_states import is_paged, optimizer_maker, table_bytes
from sftkit.training.planning.memory.planned_attention import set_planned_attention, simplified
from sftkit.training.planning.memory.rough_activations import rough_activations
from sftkit.training.planning.memory.sharding import Sharding, gathered_bytes
from sftkit.training.planning.memory.step_trial import StepTrial
from sftkit.training.planning.memory.stored_weights import quantized_bits, quantized_weights, weight_bytes
from sftkit.training.planning.outline import outline

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _States:
    """The states of an optimizer, in bytes of all parameters, if they are not sharded."""

    kept: float
    most: float
    """While it computes."""

    saved: float | None
    """In a checkpoint: also those that are in main memory meanwhile; None if their size is not known."""


class PlannedCase:
    """A run with certain settings: its model, optimizer and sharding."""

    def __init__(
        self,
        config: TrainConfig,
        arguments: TrainingArguments,
        tokenizer: RunTokenizer,
        collate: Collator,
        sharding: Sharding,
    ) -> None:
        """Outline the model again, with the attention and the loss of the run.

        Args:
            config: the run.
            arguments: its training arguments.
            tokenizer: of the run.
            collate: makes its micro-batches.
            sharding: how processes divide weights, gradients and states.

        Raises:
            TrainingError: the model cannot be outlined, or adapters cannot be added.
        """
        outlined = outline(config, arguments, tokenizer)
        precision = mixed_precision(arguments)
        sharded = bool(sharding.name)
        base = outlined.model.get_base_model() if outlined.adapters else outlined.model
        self.attention = set_planned_attention(base, config, arguments, shards_weights=sharded)
        chunk = planned_chunk_size(base, config, arguments, outlined.capabilities, shards_weights=sharded)
        if chunk is not None:
            use_chunked_loss(base, chunk, sums_loss=outlined.capabilities.sums_loss)
        if isinstance(collate, FlatCollator):
            collate = replace(collate, boundaries=boundary_encoder_for(base))
        self.sharding = sharding
        self.rough = ""
        self._timelines: dict[tuple[int, ...], ByteTimeline] = {}
        self._base = base
        self._config = config
        self._arguments = arguments
        self._collate = collate
        self._chunk = chunk
        self._trial = StepTrial(
            outlined.model,
            arguments,
            BatchLoss(outlined.capabilities.sums_loss, chunk),
            autocast=None if sharded else precision,
        )
        # In mixed precision, accelerate keeps what FSDP trains in float32, and DeepSpeed everything in 16 bits.
        self._deepspeed = precision is not None and sharded and uses_deepspeed(arguments)
        stored = precision if self._deepspeed else None
        self._trained = torch.float32 if precision is not None and sharded and not self._deepspeed else None
        self._weights = weight_bytes(self._trial.model, config, stored, self._trained)
        if precision is not None and sharded:
            self._trial.set_dtypes(None, torch.float32)
        self._states = self._measure_states()
        if precision is not None and sharded:
            self._trial.set_dtypes(precision, precision)
        self._gathered = gathered_bytes(self._trial.model) if sharding.gathers else 0
        self._dequantized = self._largest_dequantized()

    @property
    def can_checkpoint(self) -> bool:
        """Whether the model supports gradient checkpointing."""
        return bool(getattr(self._base, "supports_gradient_checkpointing", False))

    @property
    def all_states(self) -> int | None:
        """Bytes of the optimizer states of all processes, also in main memory; None if their size is not known."""
        return None if self._states.saved is None else round(self._states.saved)

    @property
    def all_gradients(self) -> int:
        """Bytes of the gradients of all trained weights that a device keeps."""
        size = {id(values): values.numel() * (self._trained or values.dtype).itemsize for values in self._trial.trained}
        return round(sum(size.values()) * self.sharding.gradients)

    def batch(self, sequences: Sequence[TokenSequences]) -> CollatedBatch:
        """A micro-batch as the model gets it."""
        return simplified(self._collate(sequences), self._base, self.attention)

    def use(
        self,
        sequences: Sequence[TokenSequences],
        *,
        checkpointing: bool,
        accumulates: bool | None = None,
        sharding: Sharding | None = None,
    ) -> MemoryUse:
        """What the run needs for a micro-batch.

        Args:
            sequences: of the micro-batch.
            checkpointing: whether with gradient checkpointing.
            accumulates: whether a step has several micro-batches; None for as many as the run has.
            sharding: over another number of processes; None for that of this case.
        """
        sharding = sharding or self.sharding
        if accumulates is None:
            accumulates = self._arguments.gradient_accumulation_steps > 1
        timeline = self._timeline(sequences, checkpointing=checkpointing, accumulates=accumulates)
        ratio = 1.0 if self._trained is None else self._trained.itemsize / self._trial.trained[0].element_size()
        live = timeline.peak(sharding.gradients * ratio)
        gradients = self.all_gradients / self.sharding.gradients if self.sharding.gradients else 0.0
        copies = gradients if sharding.copies_gradients else 0.0
        weights = self._weights * sharding.weights + self._gathered
        states = self._states.kept * sharding.states
        activations = live.others + live.logits + self._dequantized
        step = gradients * sharding.gradients + self._states.most * sharding.states - self._gathered
        if step > live.gradients + activations + states:  # the step of the optimizer needs more than the passes
            return MemoryUse(
                weights=round(weights - self._gathered),
                gradients=round(gradients * sharding.gradients + copies),
                states=round(self._states.most * sharding.states),
                activations=0,
                logits=0,
            )
        return MemoryUse(
            weights=round(weights),
            gradients=round(live.gradients + copies),
            states=round(states),
            activations=round(activations),
            logits=round(live.logits),
        )

    def _timeline(self, sequences: Sequence[TokenSequences], *, checkpointing: bool, accumulates: bool) -> ByteTimeline:
        key = (*map(id, sequences), checkpointing, accumulates)
        if key not in self._timelines:
            self._timelines[key] = self._run(
                self.batch(sequences), checkpointing=checkpointing, accumulates=accumulates
            )
        return self._timelines[key]

    def _run(self, batch: CollatedBatch, *, checkpointing: bool, accumulates: bool) -> ByteTimeline:
        if not self.rough:
            try:
                return self._trial.micro_batch(batch, checkpointing=checkpointing, accumulates=accumulates)
            except Exception as error:  # models can read values, or make tensors whose shapes depend on values
                self.rough = single_line(error) or type(error).__name__
                _log.info("the model cannot be run without values: %s", self.rough)
        model = self._trial.model
        precision = mixed_precision(self._arguments)
        pairs = batch.counts.squared_lengths if self.attention == "eager" else 0
        found = rough_activations(
            model.config.get_text_config(),
            batch.counts,
            precision.itemsize if precision is not None else model.dtype.itemsize,
            checkpointing=checkpointing,
            chunk=self._chunk,
            eager_pairs=pairs,
        )
        accumulated = sum(values.numel() * values.element_size() for values in self._trial.trained) * accumulates
        return ByteTimeline(
            [(Kind.GRADIENT, accumulated), (Kind.OTHER, round(found.others)), (Kind.LOGITS, round(found.logits))]
        )

    def _measure_states(self) -> _States:
        """The states of the optimizer; with DeepSpeed in mixed precision, with a copy of the weights in float32."""
        trial, model = self._trial, self._trial.model
        copies = 4.0 * sum(values.numel() for values in trial.trained) if self._deepspeed else 0.0
        name = str(getattr(self._arguments.optim, "value", self._arguments.optim))
        of_table = table_bytes(name, model, trial.trained)
        if of_table is not None:
            on_device = copies + (0.0 if is_paged(name) else of_table)
            return _States(on_device, on_device, copies + of_table)
        make: Callable[..., Any] = optimizer_maker(self._arguments, model)
        try:
            timeline = trial.optimizer_step(make)
        except Exception as error:  # optimizers can read values, or need a package or a GPU
            _log.info("the optimizer cannot be run without values: %s", single_line(error))
            return _States(copies, copies, saved=None)
        kept = timeline.left + copies
        return _States(kept, timeline.peak().total + copies, saved=kept)

    def _largest_dequantized(self) -> int:
        """The largest quantized weight as it is multiplied."""
        if quantized_bits(self._config, self._trial.model) is None:
            return 0
        sizes = [values.numel() * values.element_size() for values in quantized_weights(self._trial.model).values()]
        return max(sizes, default=0)
