"""The callback that seals checkpoints, and takes up where a resumed one left off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.training.checkpoints.seal import RunState, delete_old_checkpoints, seal_checkpoint

if TYPE_CHECKING:
    from sftkit.training.trainer import SftTrainer


class CheckpointCallback(TrainerCallback):
    """Seals every checkpoint when all processes have written their part, then deletes what is over the limit."""

    def __init__(
        self, trainer: SftTrainer, identity: Mapping[str, Any], limit: int | None, resumed: RunState | None
    ) -> None:
        self._trainer = trainer
        self._identity = identity
        self._limit = limit
        self._resumed = resumed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the run_state of the run that is resumed."""
        if self._resumed is not None:
            self._trainer.restore_state(self._resumed)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seal the checkpoint that the Trainer has just written; every process calls it."""
        run_state = self._trainer.run_state()
        if dist.is_initialized():
            dist.barrier()
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir))
            seal_checkpoint(
                folder / f"checkpoint-{state.global_step}",
                self._identity,
                run_state,
                resumable=not args.save_only_model,
            )
            delete_old_checkpoints(folder, self._limit, self._identity, state.best_model_checkpoint)
        if dist.is_initialized():
            dist.barrier()
