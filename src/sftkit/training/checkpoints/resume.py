"""Checkpoints: when one is whole, which one a run goes on from, and which are kept.

The Trainer writes a checkpoint file by file. A seal is written when all processes are done with it and everything is on
disk: a checkpoint without a seal, or with a file that is not as long as its seal says, was cut short by a kill and
counts for nothing. Older checkpoints are deleted only after that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.errors import TrainingError
from sftkit.training.checkpoints.run_identity import identity_differences
from sftkit.training.checkpoints.seal import SEAL_NAME, TRAINER_STATE_NAME, RunState, read_seal, resumable_checkpoints
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from transformers import TrainingArguments


_log = logging.getLogger(__name__)


_NONE = ("false", "no", "none")
_LAST = ("true", "yes", "last", "latest")


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a run goes on from, and what was kept with it (None for one of another tool)."""

    checkpoint: Path
    state: RunState | None


def find_resume_point(arguments: TrainingArguments, identity: Mapping[str, Any]) -> ResumePoint | None:
    """The checkpoint to go on from, by `resume_from_checkpoint`; None to start anew.

    One without the state of the optimizer (`save_only_model`) is never gone on from: its losses would be others.
    Not given: the newest whole checkpoint of this very run in `output_dir`, so that the command of a run that was
    killed continues it. True or `last`: the newest whole one, of whatever run. A path: that one. False: none.

    Raises:
        TrainingError: the path is no checkpoint, or none that is whole.
    """
    asked = str(arguments.resume_from_checkpoint or ("" if arguments.resume_from_checkpoint is None else "false"))
    if asked.lower() in _NONE:
        return None
    folder = Path(str(arguments.output_dir))
    if asked.lower() in _LAST:
        newest = next(resumable_checkpoints(folder), None)
        if newest is None:
            warn_on_main_process(_log, f"{folder} holds no checkpoint to resume from: the run starts anew")
            return None
        _warn_of_differences(newest[0], newest[1].identity, identity)
        return ResumePoint(newest[0], newest[1].state)
    if asked:
        return _given(Path(asked).expanduser(), asked, identity)
    return _own(folder, identity)


def _own(folder: Path, identity: Mapping[str, Any]) -> ResumePoint | None:
    others: list[tuple[Path, list[str]]] = []
    for path, sealed in resumable_checkpoints(folder):
        differences = identity_differences(sealed.identity, identity)
        if not differences:
            warn_on_main_process(_log, f"the run goes on from {path} (resume_from_checkpoint=false would start anew)")
            return ResumePoint(path, sealed.state)
        others.append((path, differences))
    if others:
        path, differences = others[0]
        warn_on_main_process(
            _log,
            f"{path} is of another run ({', '.join(differences)}): this run starts anew; "
            "resume_from_checkpoint=true would go on from it all the same",
        )
    return None


def _given(path: Path, asked: str, identity: Mapping[str, Any]) -> ResumePoint:
    if not (path / TRAINER_STATE_NAME).is_file():
        raise TrainingError(f"resume_from_checkpoint: {asked} is not a checkpoint (it has no {TRAINER_STATE_NAME})")
    sealed = read_seal(path)
    if sealed is not None:
        if not sealed.resumable:
            raise TrainingError(
                f"resume_from_checkpoint: {asked} holds the model alone (save_only_model=true); "
                "give it as model_name_or_path to start a run from its weights"
            )
        _warn_of_differences(path, sealed.identity, identity)
        return ResumePoint(path, sealed.state)
    if (path / SEAL_NAME).exists():
        raise TrainingError(f"resume_from_checkpoint: {asked} is not whole: files are missing or cut short")
    return ResumePoint(path, None)  # another tool's, which has no seal


def _warn_of_differences(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    differences = identity_differences(theirs, ours)
    if differences:
        warn_on_main_process(
            _log, f"{path} is of a run with other settings ({', '.join(differences)}); it is gone on from as asked"
        )
