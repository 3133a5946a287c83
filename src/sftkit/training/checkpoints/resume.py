"""Choose the checkpoint that a run resumes from.

Only complete checkpoints with the state of the optimizer qualify (`seal.py`). Without instructions, a run resumes only
from a checkpoint of the same run: one whose identity (`run_identity.py`) is equal, so that the resumed run sees the
losses of an uninterrupted one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.words import FALSE_WORDS, TRUE_WORDS
from sftkit.errors import TrainingError
from sftkit.storage.training_files import SEAL_NAME
from sftkit.training.checkpoints.run_identity import identity_differences
from sftkit.training.checkpoints.seal import (
    TRAINER_STATE_NAME,
    RunState,
    read_seal,
    resumable_checkpoints,
)
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

_NONE = (*FALSE_WORDS, "none")
_LAST = (*TRUE_WORDS, "last", "latest")


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a run resumes from."""

    checkpoint: Path

    state: RunState | None
    """State saved with it; None for a checkpoint that another program wrote."""


def find_resume_point(arguments: TrainingArguments, identity: Mapping[str, Any]) -> ResumePoint | None:
    """The checkpoint to resume from, as `resume_from_checkpoint` says; None to start from the beginning.

    - Not given: the newest complete checkpoint of the same run in `output_dir`, so that rerunning the command of a
      killed run continues it.
    - true or `last`: the newest complete checkpoint in `output_dir`, of whatever run.
    - A path: that checkpoint.
    - false: none.

    A checkpoint without the state of the optimizer (`save_only_model`) is never used: the losses would differ.

    Args:
        arguments: `output_dir` and `resume_from_checkpoint` of the run.
        identity: identity of the run.

    Raises:
        TrainingError: the path is not a checkpoint, or not a complete one.
    """
    given = arguments.resume_from_checkpoint
    wanted = "" if given is None else str(given or "false")
    if wanted.lower() in _NONE:
        return None
    folder = Path(str(arguments.output_dir))
    if wanted.lower() in _LAST:
        newest = next(resumable_checkpoints(folder), None)
        if newest is None:
            warn_on_main_process(_log, f"{folder} has no checkpoint to resume from: the run starts from the beginning")
            return None
        _warn_of_differences(newest[0], newest[1].identity, identity)
        return ResumePoint(newest[0], newest[1].state)
    if wanted:
        return _at_path(Path(wanted).expanduser(), wanted, identity)
    return _newest_of_run(folder, identity)


def _newest_of_run(folder: Path, identity: Mapping[str, Any]) -> ResumePoint | None:
    others: list[tuple[Path, list[str]]] = []
    for path, sealed in resumable_checkpoints(folder):
        differences = identity_differences(sealed.identity, identity)
        if not differences:
            warn_on_main_process(
                _log,
                f"the run resumes from {path}; set resume_from_checkpoint=false to start from the beginning",
            )
            return ResumePoint(path, sealed.state)
        others.append((path, differences))
    if others:
        path, differences = others[0]
        warn_on_main_process(
            _log,
            f"{path} belongs to another run ({', '.join(differences)}): this run starts from the beginning; "
            "set resume_from_checkpoint=true to resume from it anyway",
        )
    return None


def _at_path(path: Path, given: str, identity: Mapping[str, Any]) -> ResumePoint:
    if not (path / TRAINER_STATE_NAME).is_file():
        raise TrainingError(f"resume_from_checkpoint: {given} is not a checkpoint (it has no {TRAINER_STATE_NAME})")
    sealed = read_seal(path)
    if sealed is not None:
        if not sealed.resumable:
            raise TrainingError(
                f"resume_from_checkpoint: {given} holds only the model (save_only_model=true); "
                "give it as model_name_or_path to start a run from its weights"
            )
        _warn_of_differences(path, sealed.identity, identity)
        return ResumePoint(path, sealed.state)
    if (path / SEAL_NAME).exists():
        raise TrainingError(
            f"resume_from_checkpoint: {given} is incomplete (files are missing or truncated); use another checkpoint"
        )
    return ResumePoint(path, None)  # written by another program, which does not seal checkpoints


def _warn_of_differences(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    differences = identity_differences(theirs, ours)
    if differences:
        warn_on_main_process(
            _log,
            f"{path} belongs to a run with other settings ({', '.join(differences)}); resuming from it as requested",
        )
