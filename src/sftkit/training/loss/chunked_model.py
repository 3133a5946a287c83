"""Let a model compute its loss in chunks, through its own output head and whatever it does to the logits.

A causal language model is a decoder, which gives hidden states, and a head, which makes logits of those at chosen
positions: a linear map, and in some models a bias, scaling or a cap. Here the model's own `forward` is run on a
decoder that returns hidden states computed before. So the head needs no list of architectures; a probe compares the
result with the model's.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from sftkit.core.rows import LABELS
from sftkit.errors import TrainingError
from sftkit.training.data.collation import LOGITS_TO_KEEP, SHIFT_LABELS
from sftkit.training.loss.chunks import Head, chunked_cross_entropy, replaced_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LABEL_SMOOTHING = "label_smoothing"
"""Argument of the model for the share of the target that is spread over the vocabulary."""

LABEL_WEIGHTS = "label_weights"
"""Argument of the model for the weight of each label in the loss, float32, of the shape of `shift_labels`."""

TOKEN_LOSSES = "token_losses"
"""Output of the model if it is given weights: the cross entropy of each label, without its weight and gradients."""

_ITEMS = "num_items_in_batch"
_TOLERANCE = 2e-2  # of the largest logit, in 16 bits
_ROUTERS = "router_logits"
_HIDDEN = "last_hidden_state"


class ChunkedForward:
    """The `forward` of a model that computes the loss of a batch with `logits_to_keep` in chunks.

    Batches without labels, and those that fit into one chunk, are given to the model unchanged.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chunk_size: int,
        *,
        sums_loss: bool = True,
        decoder: Any = None,
        compare: bool = False,
    ) -> None:
        """Keep the model's own forward.

        Args:
            model: a causal language model.
            chunk_size: positions whose logits exist at a time.
            sums_loss: whether the model's own loss can be used for a batch that fits into one chunk.
            decoder: the module that gives the hidden states; None for the first of `decoder_candidates`.
            compare: compare the first logits of the first batch with those of the model; for a model that could not be
                probed.
        """
        self._forward: Callable[..., Any] = model.forward
        self._decoder = decoder_candidates(model)[0] if decoder is None else decoder
        self._model = model
        self._chunk_size = chunk_size
        self._sums_loss = sums_loss
        self._compare = compare

    def __call__(self, **inputs: Any) -> Any:
        """Run the model.

        Returns:
            Its output, with the loss, and with the logits of the first chosen position only.

        Raises:
            TrainingError: the model computes logits in a way that cannot be divided into chunks.
        """
        smoothing, weights = inputs.pop(LABEL_SMOOTHING, 0.0), inputs.pop(LABEL_WEIGHTS, None)
        labels, positions = inputs.get(SHIFT_LABELS), inputs.get(LOGITS_TO_KEEP)
        if labels is None or not torch.is_tensor(positions):
            return self._forward(**inputs)
        if labels.numel() <= self._chunk_size and self._sums_loss and not smoothing and weights is None:
            return self._forward(**inputs)
        items = inputs[_ITEMS]
        rest = {name: value for name, value in inputs.items() if name not in (LABELS, SHIFT_LABELS, _ITEMS)}
        outputs, decoded = self._decoded(rest | {LOGITS_TO_KEEP: positions[: 1 + self._compare]})
        hidden = _hidden_states(decoded)[:, positions]
        # The decoder does not run again, so its other arguments do not matter.
        of_chunk = rest | {LOGITS_TO_KEEP: 0}

        def head(chunk: torch.Tensor) -> torch.Tensor:
            with replaced_forward(self._decoder, lambda *_arguments, **_given: _with_hidden_states(decoded, chunk)):
                logits: torch.Tensor = self._forward(**of_chunk).logits
            return logits

        if self._compare and len(positions) > 1:
            _compare(head, hidden, outputs.logits, type(self._model).__name__)
            self._compare = False
        columns = max(1, self._chunk_size // len(labels))
        linear = self._model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        total, of_tokens = chunked_cross_entropy(head, hidden, labels, columns, smoothing, linear, weights)
        outputs.loss = total / items.to(total.device)
        if of_tokens is not None:
            outputs[TOKEN_LOSSES] = of_tokens
        return outputs

    def _decoded(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """The output of the model, and that of its decoder."""
        decoded: list[Any] = []
        decode = self._decoder.forward

        def recording(*arguments: Any, **given: Any) -> Any:
            decoded.append(decode(*arguments, **given))
            return decoded[-1]

        with replaced_forward(self._decoder, recording):
            outputs = self._forward(**inputs)
        [only] = decoded
        return outputs, only


def use_chunked_loss(
    model: PreTrainedModel, chunk_size: int, *, sums_loss: bool = True, decoder: Any = None, compare: bool = False
) -> None:
    """Replace the `forward` of a model by one that computes the loss in chunks; see `ChunkedForward`."""
    chunked = ChunkedForward(model, chunk_size, sums_loss=sums_loss, decoder=decoder, compare=compare)
    signature = inspect.signature(type(model).forward)
    names = list(signature.parameters)[1:]

    def forward(_model: Any, *arguments: Any, **given: Any) -> Any:
        return chunked(**dict(zip(names, arguments, strict=False)), **given)

    forward.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect, and by `generate`
    model.__dict__["forward"] = MethodType(forward, model)


def decoder_candidates(model: PreTrainedModel) -> list[Any]:
    """The modules that may be the decoder of a model, which its `forward` calls; the usual one first.

    Some models call a part of what transformers takes for their decoder (OPT), or have no name for it (Llama 4).
    """
    inner = getattr(model, "model", None)
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    found = (model.base_model, decoder, inner, getattr(inner, "decoder", None))
    modules = {id(module): module for module in found if isinstance(module, torch.nn.Module) and module is not model}
    return list(modules.values())


def _compare(head: Head, hidden: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    with torch.no_grad():
        difference = (head(hidden[:, :1]).float() - expected[:, :1].float()).abs().max()
    if not bool(difference <= _TOLERANCE * expected.float().abs().max()):
        raise TrainingError(
            f"loss_chunk_size: {name} does not compute the logits of a position from its hidden state alone; remove"
            " loss_chunk_size"
        )


def _hidden_states(decoded: Any) -> torch.Tensor:
    states: torch.Tensor = decoded[_HIDDEN] if isinstance(decoded, dict) else decoded[0]
    return states


def _with_hidden_states(decoded: Any, hidden: torch.Tensor) -> Any:
    """The output of a decoder with other hidden states."""
    if isinstance(decoded, dict):
        changed = copy.copy(decoded)
        changed[_HIDDEN] = hidden
        if _ROUTERS in changed:
            changed[_ROUTERS] = None  # a mixture of experts would compute its auxiliary loss for every chunk
        return changed
    return (hidden, *decoded[1:])
