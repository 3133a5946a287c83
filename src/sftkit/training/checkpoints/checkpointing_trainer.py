"""The part of the Trainer that writes checkpoints and loads them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sftkit.training.checkpoints.saved_weights import load_converted_weights
from sftkit.training.checkpoints.seal import begin_checkpoint
from sftkit.training.optimization.optimizing_trainer import OptimizingTrainer


class CheckpointingTrainer(OptimizingTrainer):
    """A transformers Trainer whose checkpoints are sealed, and hold the whole model when they are loaded."""

    finish_model: Callable[[Path], None] | None = None
    """Completes the model in a directory after it was saved; set when checkpoints are done, for the final model."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, complete it, and upload it if that is configured. Every process must call it."""
        super().save_model(output_dir, _internal_call=True)
        if self.finish_model is not None and self.is_world_process_zero():
            self.finish_model(Path(output_dir or str(self.args.output_dir)))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)  # which saves it again

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights of the checkpoint that the run resumes from."""
        if not (self._loads_by_name() and load_converted_weights(self.model, Path(resume_from_checkpoint))):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """Load the weights of the best checkpoint."""
        best = Path(str(self.state.best_model_checkpoint))
        if not (self._loads_by_name() and load_converted_weights(self.model, best)):
            super()._load_best_model()

    def _loads_by_name(self) -> bool:
        """Whether the Trainer loads a whole model by the names of its weights; adapters and shards it does not."""
        return not (self.is_fsdp_enabled or self.is_deepspeed_enabled or hasattr(self.model, "peft_config"))

    def _run_epoch(self, *arguments: Any, **settings: Any) -> None:
        """Skip the epoch of a run that resumed after its last step; the Trainer would run one more step first."""
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **settings)  # type: ignore[no-untyped-call]  # transformers leaves it untyped

    def _save_checkpoint(self, *arguments: Any) -> None:
        """Write a checkpoint into an empty directory; `CheckpointCallback` seals it afterwards."""
        if self.is_world_process_zero():
            begin_checkpoint(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(*arguments)
