"""Run a model with its adapters once, before the first step."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sftkit.errors import TrainingError
from sftkit.training.distributed import warn_on_main_process, weights_are_sharded
from sftkit.training.multimodal.text_use import trace_text_use

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)


def check_adapters(model: Any, arguments: TrainingArguments) -> None:
    """Find out whether a model still computes with adapters in it, and freeze those that nothing uses.

    Several processes would wait for the gradients of adapters that nothing uses.

    Args:
        model: with adapters, on the device it trains on. With sharded weights, nothing is checked.
        arguments: of the run.

    Raises:
        TrainingError: it raises an error where it did not without adapters.
    """
    if weights_are_sharded(arguments):
        return
    try:
        unused = trace_text_use(model).unused
    except TrainingError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise TrainingError(
            f"lora_target_modules: with these adapters, the model does not compute any more ({reason}); name the "
            "modules that cannot have one in lora_exclude_modules"
        ) from error
    found = [(name, values) for name, values in model.named_parameters() if name in unused and values.requires_grad]
    for _, values in found:
        values.requires_grad_(False)
    if found:
        warn_on_main_process(
            _log,
            f"LoRA: the model ignores {len(found)} tensors that were to be trained, such as {found[0][0]}: they stay "
            "as they are; name their modules in lora_exclude_modules",
        )
