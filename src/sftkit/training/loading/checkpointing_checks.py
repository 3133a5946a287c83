"""Check the settings of gradient checkpointing before a model is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig

if TYPE_CHECKING:
    from transformers import TrainingArguments

_KEY = "gradient_checkpointing_kwargs"
_OFFLOAD, _EVERY = "offload", "every_n_layers"
_OF_TORCH = frozenset({"use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop"})
"""Arguments of `torch.utils.checkpoint.checkpoint` that a configuration can hold."""


def checkpointing_problems(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    """Yield a sentence for each setting of gradient checkpointing that cannot be used here."""
    given: Mapping[str, Any] = getattr(arguments, _KEY, None) or {}
    known = sorted({*_OF_TORCH, *_of_transformers()})
    offloads = "activation_offloading" if config.activation_offloading else f"{_KEY}: {_OFFLOAD}"
    for key in given:
        if key == "context_fn":
            yield (
                f"{_KEY}: context_fn is a function, which a configuration cannot hold; {_EVERY} chooses the layers that"
                " are checkpointed"
            )
        elif key in (_OFFLOAD, _EVERY) and key not in known:
            yield f"{offloads if key == _OFFLOAD else f'{_KEY}: {key}'} needs a newer transformers; remove it"
        elif key not in known:
            yield f"{_KEY}: {key} is unknown; the keys are {', '.join(known)}"
    layers = given.get(_EVERY, 1)
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        yield f"{_KEY}: {_EVERY} must be a whole number, 1 or more, not {layers!r}"
    if given.get(_OFFLOAD) and not arguments.gradient_checkpointing:
        yield f"{offloads} moves what gradient checkpointing saves; set gradient_checkpointing=true"


def lacking_accelerator(config: TrainConfig, arguments: TrainingArguments) -> Iterator[str]:
    """Yield a sentence if activations should leave a device that the run does not have."""
    given: Mapping[str, Any] = getattr(arguments, _KEY, None) or {}
    if given.get(_OFFLOAD) and arguments.device.type == "cpu":
        name = "activation_offloading" if config.activation_offloading else f"{_KEY}: {_OFFLOAD}"
        yield f"{name} needs a GPU; without one, activations are in main memory already"


def _of_transformers() -> frozenset[str]:
    """The arguments that the installed transformers takes besides those of torch."""
    from transformers import PreTrainedModel

    enable: Any = getattr(PreTrainedModel, "activation_checkpointing_enable", None)
    return frozenset({_OFFLOAD, _EVERY} & inspect.signature(enable).parameters.keys()) if enable else frozenset()
