"""Let several processes train parameters that a batch may not use."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.training.distributed import weights_are_sharded
from sftkit.training.multimodal.text_use import is_routed_expert

if TYPE_CHECKING:
    from transformers import TrainingArguments

_KEY = "ddp_find_unused_parameters"


def find_unused_parameters(
    model: Any, unused: Collection[int], config: TrainConfig, arguments: TrainingArguments
) -> None:
    """Set `ddp_find_unused_parameters` for a model with parameters that a batch may not use, unless the config sets it.

    An expert that no token of a process is sent to gets no gradient there, and the other processes would wait for it.
    (Experts that are one tensor always get one.)

    Args:
        model: with adapters added and weights frozen.
        unused: ids of parameters that a few tokens gave no gradient.
        config: the run.
        arguments: are changed.
    """
    if arguments.world_size == 1 or weights_are_sharded(arguments) or config.training_arguments.get(_KEY) is not None:
        return
    trained = [(name, values) for name, values in model.named_parameters() if values.requires_grad]
    if any(is_routed_expert(name) or id(values) in unused for name, values in trained):
        arguments.ddp_find_unused_parameters = True
