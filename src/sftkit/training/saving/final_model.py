"""Save the model at the end of a run, and mark checkpoints of adapters with the base that they belong to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.config.commands import TrainConfig
from sftkit.storage.adapter_files import open_adapter, write_merged_first
from sftkit.storage.model_location import model_location
from sftkit.training.adapters.adapter_choice import adapters_to_merge, uses_adapters
from sftkit.training.adapters.converted_adapters import InitialWeights, convert_for_original_base
from sftkit.training.arguments.public_values import PublicValues
from sftkit.training.saving.saved_dtype import save_as

if TYPE_CHECKING:
    from sftkit.training.trainer import SftTrainer


def save_final_model(trainer: SftTrainer, config: TrainConfig, initial: InitialWeights | None) -> None:
    """Save the whole model, even if it is sharded by FSDP, to `output_dir` and to `save_model_dir`.

    Every process must call it.

    Args:
        trainer: of the run, at its end.
        config: has the directories and the data type.
        initial: the weights that adapters began with, if these were taken out of the base.
    """
    if trainer.is_fsdp_enabled:
        # The launcher can ask for sharded checkpoints; with that setting, the Trainer would not save a model at all.
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.finish_model = partial(_finish, config=config, initial=initial)
    if config.save_model_dir is not None:
        trainer.save_model(str(Path(config.save_model_dir).expanduser()), _internal_call=True)
    trainer.save_model()
    trainer.save_state()


class AdapterBaseCallback(TrainerCallback):
    """Writes into each checkpoint of an adapter what was merged into its base, before the checkpoint is sealed."""

    def __init__(self, config: TrainConfig) -> None:
        """Set up the callback for a run."""
        self._config = config

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Complete the checkpoint that the Trainer has just written."""
        if state.is_world_process_zero:
            _record_base(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", self._config)


def _finish(folder: Path, config: TrainConfig, initial: InitialWeights | None) -> None:
    _record_base(folder, config)
    if initial is not None:
        convert_for_original_base(folder, initial)
    if config.save_dtype is not None:
        save_as(folder, getattr(torch, config.save_dtype))


def _record_base(folder: Path, config: TrainConfig) -> None:
    if not uses_adapters(config) or not adapters_to_merge(config):
        return
    public = PublicValues.of(config)
    merged = []
    for name in adapters_to_merge(config):
        place = Path(model_location(name))
        shown = public.text(name)
        is_own = shown == name and place.is_dir()  # a relative path would only be right here
        merged.append((str(place.resolve()) if is_own else shown, open_adapter(name).digest))
    write_merged_first(folder, merged)
