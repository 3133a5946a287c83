"""The callback that seals checkpoints and restores the state of a resumed run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftkit.training.arguments.public_values import PublicValues
from sftkit.training.checkpoints.public_state import leave_out_path
from sftkit.training.checkpoints.resume import ResumePoint
from sftkit.training.checkpoints.seal import delete_old_checkpoints, next_attempt, seal_checkpoint

if TYPE_CHECKING:
    from sftkit.training.trainer import SftTrainer


class CheckpointCallback(TrainerCallback):
    """Seals each checkpoint once all processes have written their part, then deletes those above the limit.

    Every process must have one: computing the state of the run and the barriers are collective operations. The main
    process alone seals and deletes, between two barriers, so that a seal never covers a file that another process is
    still writing, and no process starts the next step before the checkpoint is complete.
    """

    def __init__(
        self,
        trainer: SftTrainer,
        identity: Mapping[str, Any],
        limit: int | None,
        resumed: ResumePoint | None,
        public: PublicValues,
    ) -> None:
        """Set up the callback.

        Args:
            trainer: the trainer of the run.
            identity: identity of the run, see `run_identity`.
            limit: how many checkpoints of this run are kept (`save_total_limit`); None for all.
            resumed: the checkpoint that the run resumes from; None if it starts from the beginning.
            public: what must not be written.
        """
        self._public = public
        self._trainer = trainer
        self._identity = identity
        self._limit = limit
        self._resumed = resumed
        self._attempt = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the state of the resumed run."""
        checkpoint, run_state = (self._resumed.checkpoint, self._resumed.state) if self._resumed else (None, None)
        self._attempt = next_attempt(Path(str(args.output_dir)), checkpoint)
        leave_out_path(state, str(args.output_dir), self._public)
        if run_state is not None:
            self._trainer.restore_state(run_state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seal the checkpoint that the Trainer has just written."""
        run_state = self._trainer.run_state()
        if dist.is_initialized():
            dist.barrier()
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir))
            checkpoint = folder / f"checkpoint-{state.global_step}"
            resumable = not args.save_only_model
            seal_checkpoint(checkpoint, self._identity, run_state, resumable=resumable, attempt=self._attempt)
            delete_old_checkpoints(folder, self._limit, self._identity, state.best_model_checkpoint)
        if dist.is_initialized():
            dist.barrier()
