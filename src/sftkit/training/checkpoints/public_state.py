"""Keeps the path of the output directory out of `trainer_state.json`, if it came from the environment."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from transformers import TrainerState

from sftkit.training.arguments.public_values import PublicValues


def leave_out_path(state: TrainerState, output_dir: str, public: PublicValues) -> None:
    """Write a state without the path of its best checkpoint if that must not be written, and find the checkpoint again.

    Args:
        state: the state of a run that begins or resumes; changed in place.
        output_dir: of the run.
        public: what must not be written.
    """
    if public.text(output_dir) == output_dir:
        return
    best = Path(output_dir) / f"checkpoint-{state.best_global_step}"
    if state.best_model_checkpoint is None and state.best_global_step is not None and best.is_dir():
        state.best_model_checkpoint = str(best)
    # The Trainer sets the path and writes the state in the same method, so that only the writing can be replaced.
    state.save_to_json = partial(_save, state)  # type: ignore[method-assign]


def _save(state: TrainerState, path: str) -> None:
    best, state.best_model_checkpoint = state.best_model_checkpoint, None
    try:
        TrainerState.save_to_json(state, path)
    finally:
        state.best_model_checkpoint = best
