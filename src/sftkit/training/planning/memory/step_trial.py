"""Run one training step on tensors without values, and record its memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sftkit.training.data.collation import CollatedBatch
from sftkit.training.loss.batch_loss import BatchLoss
from sftkit.training.models.model_loading import embedding_rows
from sftkit.training.planning.memory.byte_timeline import ByteRecorder, ByteTimeline
from sftkit.training.planning.memory.valueless_model import tensors_of, without_values
from sftkit.training.planning.memory.valueless_operations import fused_attention, grouped_experts

if TYPE_CHECKING:
    from transformers import TrainingArguments

_SETTINGS, _FUNCTION = "gradient_checkpointing_kwargs", "_gradient_checkpointing_func"
_EVERY, _OFFLOAD = "every_n_layers", "offload"


class StepTrial:
    """A model whose steps are run without values.

    The model, its loss and its gradient checkpointing are those of the run, so that any architecture is counted as it
    is. What is counted is what torch allocates for tensors, on the device that the run would have.
    """

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        loss: BatchLoss,
        *,
        autocast: torch.dtype | None,
    ) -> None:
        """Prepare the model for trials.

        Args:
            model: of the run, on torch's device `meta`; its tensors are replaced.
            arguments: of the run.
            loss: computes the loss of the run.
            autocast: data type of mixed precision; None if everything is computed in the data type of the weights.
        """
        self.model = model
        self._arguments = arguments
        self._loss = loss
        self._autocast = autocast
        self._vocabulary = embedding_rows(model)
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.set_dtypes(None, None)

    def set_dtypes(self, stored: torch.dtype | None, trained: torch.dtype | None) -> None:
        """Change the data types of parameters, see `without_values`."""
        without_values(self.model, self._mode, stored, trained)

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that are trained."""
        return [values for values in self.model.parameters() if values.requires_grad]

    def micro_batch(self, batch: CollatedBatch, *, checkpointing: bool, accumulates: bool) -> ByteTimeline:
        """Run the model forward and backward.

        Args:
            batch: a micro-batch.
            checkpointing: whether with gradient checkpointing.
            accumulates: whether there are gradients of earlier micro-batches from the start.

        Returns:
            What exists beside the weights.
        """
        with self._set_up(), self._checkpointing(checkpointing):
            inputs, items = _batch_without_values(batch), torch.empty((), dtype=torch.int64)
            recorder = ByteRecorder(tensors_of(self.model), self._vocabulary)
            if accumulates:
                self._make_gradients(recorder)
            with fused_attention(), grouped_experts(), recorder:
                self._loss_of(inputs, items).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            timeline = recorder.timeline(values.grad for values in self.trained if values.grad is not None)
            self._forget_gradients()
        return timeline

    def optimizer_step(self, make: Any) -> ByteTimeline:
        """Run the first step of an optimizer.

        Args:
            make: given the trained parameters, returns the optimizer.

        Returns:
            What exists beside weights and gradients: the states of the optimizer stay until the end.
        """
        with self._set_up():
            self._make_gradients(None)
            recorder = ByteRecorder([*tensors_of(self.model), *(each.grad for each in self.trained)])  # type: ignore[list-item]  # made above
            with recorder:
                optimizer = make(self.trained)
                optimizer.step()
                timeline = recorder.timeline()
            self._forget_gradients()
        return timeline

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        training = self.model.training
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng())
            stack.enter_context(torch.enable_grad())
            stack.enter_context(self._mode)
            self.model.train()
            try:
                yield
            finally:
                self.model.train(training)

    @contextmanager
    def _checkpointing(self, wanted: bool) -> Iterator[None]:
        if not wanted:
            yield
            return
        given = dict(getattr(self._arguments, _SETTINGS, None) or {})
        layers, offload = given.pop(_EVERY, 1), given.pop(_OFFLOAD, False)
        extra = {_EVERY: layers} if layers != 1 else {}  # older versions of transformers do not take it
        with _without_future_warnings():
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=given or None, **extra)
        for module in self.model.modules() if offload else ():
            if hasattr(module, _FUNCTION):
                setattr(module, _FUNCTION, partial(_offloading, getattr(module, _FUNCTION)))
        try:
            yield
        finally:
            with _without_future_warnings():
                self.model.gradient_checkpointing_disable()
            self.model.disable_input_require_grads()  # of embeddings, which checkpointing needs

    def _loss_of(self, inputs: CollatedBatch, items: torch.Tensor) -> torch.Tensor:
        """The loss of a micro-batch in the precision of the run."""
        from accelerate.utils.operations import convert_outputs_to_fp32

        run: Any = self.model
        mixed: Any = nullcontext()
        if self._autocast is not None:
            mixed = torch.autocast("cpu", self._autocast)
            run = convert_outputs_to_fp32(self.model)
        with mixed:
            return self._loss(run, self.model, inputs, items, self._arguments.label_smoothing_factor).total

    def _make_gradients(self, recorder: ByteRecorder | None) -> None:
        for values in self.trained:
            values.grad = torch.empty_like(values)
            if recorder is not None:
                recorder.record(values.grad)

    def _forget_gradients(self) -> None:
        for values in self.model.parameters():
            values.grad = None


def _batch_without_values(batch: CollatedBatch) -> CollatedBatch:
    def new(values: torch.Tensor) -> torch.Tensor:
        return torch.empty(values.shape, dtype=values.dtype)

    inputs = {name: new(value) if torch.is_tensor(value) else value for name, value in batch.items()}
    known = batch.details
    details = known and replace(known, parts=new(known.parts), weights=new(known.weights), trained=new(known.trained))
    return CollatedBatch(inputs, batch.counts, details)


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """The methods about checkpointing have new names in newer versions of transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _offloading(checkpoint: Callable[..., Any], *arguments: Any, **given: Any) -> Any:
    """Run checkpointing with what it saves moved to main memory, and back when it is needed."""
    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: (saved.shape, saved.dtype), lambda kept: torch.empty(kept[0], dtype=kept[1])
    ):
        return checkpoint(*arguments, **given)
