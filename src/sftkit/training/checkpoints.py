"""Which checkpoint a run goes on from."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sftkit.errors import TrainingError
from sftkit.training.distributed import warn_once

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
_STATE = "trainer_state.json"  # the Trainer writes it last: a checkpoint without it is not whole
_NONE = ("", "false", "no", "none")
_LAST = ("true", "yes", "last", "latest")


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """The checkpoint that `resume_from_checkpoint` asks for: a path, or the last whole one of `output_dir`.

    Raises:
        TrainingError: the path is no checkpoint.
    """
    asked = str(arguments.resume_from_checkpoint or "")
    if asked.lower() in _NONE:
        return None
    if asked.lower() in _LAST:
        found = _last_whole(Path(str(arguments.output_dir)))
        if found is None:
            warn_once(_log, f"{arguments.output_dir} holds no checkpoint to resume from: the run starts anew")
        return found
    path = Path(asked).expanduser()
    if not (path / _STATE).is_file():
        raise TrainingError(f"resume_from_checkpoint: {asked} is not a checkpoint (it has no {_STATE})")
    return str(path)


def _last_whole(folder: Path) -> str | None:
    if not folder.is_dir():
        return None
    steps = [(int(match[1]), path) for path in folder.iterdir() if (match := _CHECKPOINT.match(path.name))]
    return next((str(path) for _, path in sorted(steps, reverse=True) if (path / _STATE).is_file()), None)
