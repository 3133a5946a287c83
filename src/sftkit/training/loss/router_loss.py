"""The auxiliary loss of mixtures of experts, over all tokens of a step.

The load-balancing loss of Switch Transformer (https://arxiv.org/abs/2101.03961, equations 4 to 6) is
E * sum_i f_i * P_i over E experts: f_i is the share of tokens that are sent to expert i, P_i the mean probability that
the router gives it. Because this is a product of means, the mean over micro-batches is not the loss of the whole batch:
the smaller a micro-batch, the more is asked of each single text to use all experts (https://arxiv.org/abs/2501.11873).
The models of transformers compute it for each micro-batch.

Here f_i is counted over the step first, in all micro-batches of all processes. It has no gradient, and with a fixed f_i
the loss is a sum over tokens, to which every micro-batch adds its part. Counting takes another forward pass, without
gradients and output head, if a process has several micro-batches in a step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import reduce

from sftkit.core.rows import ATTENTION_MASK, LABELS
from sftkit.errors import ConfigError, TrainingError
from sftkit.training.data.collation import LOGITS_TO_KEEP, SHIFT_LABELS, CollatedBatch
from sftkit.training.distributed import weights_are_sharded
from sftkit.training.mixed_precision import mixed_precision
from sftkit.training.trials.runs import evaluation_mode

if TYPE_CHECKING:
    from transformers import TrainingArguments

KEY = "router_aux_loss_coef"

_COEFFICIENTS = (KEY, "aux_loss_coef")
_SWITCH = "output_router_logits"
_CHOSEN = "num_experts_per_tok"
_LOSS_FUNCTION = "load_balancing_loss_func"
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the value of the model
_TRIED_TOKENS = 8
_TOLERANCE_16_BITS = 0.1  # a choice between experts that are equal in 16 bits can fall either way


def router_arguments(model: Any, enabled: bool) -> dict[str, bool]:
    """The argument with which a model returns the logits of its routers, or leaves the auxiliary loss out.

    Args:
        model: possibly with adapters.
        enabled: whether the logits are wanted.
    """
    return {_SWITCH: enabled} if enabled or _is_on(_without_adapters(model)) else {}


def make_router_loss(model: Any, coefficient: float | None, arguments: TrainingArguments) -> RouterLoss | None:
    """The auxiliary loss of a run; None without one.

    The model is run on a few tokens to see whether its loss can be computed here, unless its weights are sharded.

    Args:
        model: possibly with adapters, on the device it trains on.
        coefficient: factor of the loss; None for what the config of the model says.
        arguments: of the run.

    Raises:
        TrainingError: a coefficient is given, but the model computes no auxiliary loss, or one of another form.
        ConfigError: checkpointing would keep the gradient of the loss from the routers.
    """
    base = _without_adapters(model)
    known = hasattr(sys.modules[type(base).__module__], _LOSS_FUNCTION)
    if coefficient and not known:
        raise TrainingError(f"{KEY}: {type(base).__name__} computes no auxiliary loss; remove {KEY}")
    if coefficient is None:
        coefficient = _own_coefficient(base) if known and _is_on(base) else 0.0
    if not coefficient or not arguments.do_train:
        return None
    checkpointing: Any = arguments.gradient_checkpointing_kwargs or {}  # also holds what is given by its newer name
    if arguments.gradient_checkpointing and checkpointing.get("use_reentrant"):
        raise ConfigError(
            f"use_reentrant: reentrant checkpointing loses the gradient of the auxiliary loss; set use_reentrant=false,"
            f" or {KEY}=0 to train without this loss"
        )
    loss = RouterLoss(base, coefficient)
    if not weights_are_sharded(arguments):
        with evaluation_mode(base, mixed_precision(arguments)):
            loss.try_out()
    return loss


class RouterLoss:
    """The auxiliary loss of the micro-batches of this process.

    Call `begin_step` before a step, and for each of its micro-batches `count` before and `of_batch` after its forward
    pass.
    """

    def __init__(self, base: Any, coefficient: float) -> None:
        """Set up the loss.

        Args:
            base: the model, without adapters.
            coefficient: factor of the loss.
        """
        self.coefficient = coefficient
        self._base = base
        self._total: Any = 0.0  # what this process added since the last log event, without the coefficient
        self._last_log = 0  # step of that event
        self._batches: Sequence[CollatedBatch] = ()
        self._load: torch.Tensor | None = None
        self._chosen = _chosen_experts(base)
        self._is_confirmed = False  # whether the model itself computes the same loss

    def try_out(self) -> None:
        """Run the model on a few tokens and compare its own auxiliary loss.

        Raises:
            TrainingError: it returns no logits of routers, or its loss is another one.
        """
        try:
            ids = torch.arange(_TRIED_TOKENS, device=self._base.device)[None]
            outputs = self._base(input_ids=ids, use_cache=False, **{_SWITCH: True})
        except IndexError as error:  # transformers takes the first of no logits
            raise self._without_logits() from error
        self._measure(outputs, None, _TRIED_TOKENS)

    def begin_step(self, batches: Sequence[CollatedBatch]) -> None:
        """Set the micro-batches of this process in the step that begins."""
        self._batches, self._load = batches, None

    def count(
        self,
        model: torch.nn.Module,
        prepare: Callable[[CollatedBatch], Mapping[str, Any]],
    ) -> None:
        """Count the tokens of each expert in the step, unless it is known or a single micro-batch will tell.

        The random state stays as it is, so dropout and noise will be the same in training.

        Args:
            model: as it is trained: wrapped for several processes, and in training mode.
            prepare: copies a micro-batch to the device.
        """
        if self._load is not None or len(self._batches) < 2:
            return
        device = next(self._base.parameters()).device
        others = [device] if device.type not in ("cpu", "mps") else []
        load: Any = 0
        with torch.no_grad(), torch.random.fork_rng(others, device_type=device.type if others else "cuda"):
            for batch in self._batches:
                inputs = {name: value for name, value in prepare(batch).items() if name not in (LABELS, SHIFT_LABELS)}
                if LOGITS_TO_KEEP in inputs:
                    inputs[LOGITS_TO_KEEP] = inputs[LOGITS_TO_KEEP][:1]
                outputs = model(**inputs, **router_arguments(self._base, True))
                load = load + self._measure(outputs, inputs.get(ATTENTION_MASK), batch.counts.tokens).load
        self._load = reduce(load, "sum")

    def of_batch(self, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> torch.Tensor:
        """The part of a micro-batch in the auxiliary loss of the step, with the coefficient.

        Args:
            outputs: of the model, with logits of routers.
            inputs: the micro-batch, a `CollatedBatch`.

        Raises:
            TrainingError: the model returns none, or its own loss cannot be reproduced from them.
        """
        assert isinstance(inputs, CollatedBatch), "micro-batches come from the feed"
        measured = self._measure(outputs, inputs.get(ATTENTION_MASK), inputs.counts.tokens)
        if self._load is None:
            self._load = reduce(measured.load, "sum")
        loss = measured.loss(self._load)
        self._total = self._total + loss.detach().double()
        return self.coefficient * loss

    def since_log(self) -> float:
        """The sum over the steps since the last log event, without the coefficient; every process must call it."""
        total = torch.as_tensor(self._total, dtype=torch.float64, device=self._base.device)
        return float(reduce(total, "sum"))

    def log_entries(self, step: int) -> dict[str, float]:
        """What to log after a step: the mean since the last log event. Every process must call it."""
        mean = self.since_log() / max(step - self._last_log, 1)
        self._total, self._last_log = 0.0, step
        return {"aux_loss": mean}

    def restore(self, total: float, last_log: int, processes: int) -> None:
        """Continue with the sum since the last log event, at step `last_log`, of a run that this one resumes."""
        self._total, self._last_log = total / processes, last_log

    @contextmanager
    def without_own_loss(self) -> Iterator[None]:
        """Keep the model from adding an auxiliary loss to its loss itself, within the block."""
        owners = _owners(self._base)
        values = [getattr(owner, name) for owner, name in owners]
        for owner, name in owners:
            setattr(owner, name, 0.0)
        try:
            yield
        finally:
            for (owner, name), value in zip(owners, values, strict=True):
                setattr(owner, name, value)

    def _measure(self, outputs: Mapping[str, Any], mask: torch.Tensor | None, tokens: int) -> _Measured:
        logits = outputs.get("router_logits")
        if not logits:
            raise self._without_logits()
        if not self._is_confirmed and not _is_as_in_model(outputs, mask, self._chosen):
            raise TrainingError(
                f"{KEY}: {type(self._base).__name__} computes its auxiliary loss in a way that cannot be divided into"
                f" micro-batches; set {KEY}=0 to train without it"
            )
        self._is_confirmed = True
        if not tokens:  # of a process without rows: one token that is in no row
            mask = torch.zeros(1)
        return _measure(logits, mask, self._chosen)

    def _without_logits(self) -> TrainingError:
        return TrainingError(
            f"{KEY}: this {type(self._base).__name__} has no router whose load could be balanced; set {KEY}=0 to train"
            " without this loss"
        )


@dataclass(frozen=True)
class _Measured:
    """What routers did with some tokens."""

    load: torch.Tensor
    """Tokens sent to each expert, over all layers, and last the tokens times the layers; shape (experts + 1,)."""

    probabilities: torch.Tensor
    """Sum over tokens and layers of the probability of each expert, with a gradient; shape (experts,)."""

    def loss(self, load: torch.Tensor) -> torch.Tensor:
        """Part of these tokens in the loss of a batch, given what all its tokens together add to the load."""
        count = load[-1].clamp(min=1)
        return len(self.probabilities) * (load[:-1] / count * (self.probabilities / count)).sum()


def _measure(logits: Sequence[torch.Tensor], mask: torch.Tensor | None, chosen: int) -> _Measured:
    """Add up over the layers, as transformers does, in float32.

    Args:
        logits: of each layer's router, shape (tokens, experts).
        mask: 1 for tokens, 0 for padding; None without padding.
        chosen: to how many experts a token is sent.
    """
    device = logits[0].device
    load: Any = 0
    summed: Any = 0
    for layer in logits:
        probabilities = layer.to(device).float().softmax(-1)
        experts = probabilities.topk(chosen, -1).indices
        weight = torch.ones(1, device=device) if mask is None else mask.reshape(-1).to(device, torch.float32)
        weight = weight.expand(len(probabilities))
        sent = torch.zeros(probabilities.shape[1] + 1, device=device)
        sent = sent.index_add(0, experts.flatten(), weight.repeat_interleave(chosen))
        sent[-1] = weight.sum()
        load = load + sent
        summed = summed + (probabilities * weight[:, None]).sum(0)
    return _Measured(load, summed)


def _is_as_in_model(outputs: Mapping[str, Any], mask: torch.Tensor | None, chosen: int) -> bool:
    """Whether the auxiliary loss of a micro-batch has the same value here as in the model."""
    logits, theirs = outputs["router_logits"], outputs.get("aux_loss")
    if theirs is None:
        return False
    try:
        measured = _measure([layer.detach() for layer in logits], mask, chosen)
    except (RuntimeError, IndexError):  # logits of another form
        return False
    tolerance = _TOLERANCE.get(logits[0].dtype, _TOLERANCE_16_BITS)
    difference = (measured.loss(measured.load) - theirs.to(measured.load.device)).abs()
    return bool(difference <= tolerance * theirs.abs()) or not bool(torch.isfinite(theirs))


def _without_adapters(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _settings(base: Any) -> Any:
    config = base.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _is_on(base: Any) -> bool:
    return bool(getattr(base.config, _SWITCH, False) or getattr(_settings(base), _SWITCH, False))


def _owners(base: Any) -> list[tuple[Any, str]]:
    """Objects from which the model may read its coefficient, each with the name that it has there."""
    return [
        (owner, name)
        for owner in {id(owner): owner for owner in (base, base.config, _settings(base))}.values()
        for name in _COEFFICIENTS
        if isinstance(getattr(owner, name, None), int | float)
    ]


def _chosen_experts(base: Any) -> int:
    return int(getattr(base, _CHOSEN, 0) or getattr(_settings(base), _CHOSEN, 2))


def _own_coefficient(base: Any) -> float:
    return next((float(getattr(owner, name)) for owner, name in _owners(base)), 0.0)
