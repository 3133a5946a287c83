"""Seal checkpoints, to distinguish complete ones from those that a kill interrupted.

The Trainer writes a checkpoint file by file, and a kill can leave any part of it. Writing one takes four steps:

1. `begin_checkpoint` removes any existing checkpoint of that name, its seal first, and puts the file `UNFINISHED_NAME`
   into a new directory.
2. The Trainer, in every process, writes its files.
3. When all processes are done, the main one calls `seal_checkpoint`: it flushes every file to disk, then writes the
   seal, atomically, with the size of each file in bytes.
4. `delete_old_checkpoints` deletes checkpoints above the limit, again their seals first (`removal.py`).

A checkpoint is complete if and only if it has a seal and every file has the size recorded there (`read_seal`). This
holds after a kill at any moment: before step 3 ends there is no seal, and from step 3 on every file is on disk. Because
step 4 comes last, there is always a complete checkpoint once one has been written.

The newest checkpoint is the one with the highest step, as sealed, of the last attempt. An attempt begins when a run
does not resume from the newest checkpoint. Times and names do not count: clocks of nodes differ, and copying changes
both.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sftkit.storage.files import atomic_replace, file_size, sync_file
from sftkit.storage.training_files import SEAL_NAME, UNFINISHED_NAME
from sftkit.training.checkpoints.removal import free_place, remove_checkpoint
from sftkit.training.checkpoints.run_identity import identity_differences
from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.metrics.nonfinite_losses import NonfiniteLosses

_log = logging.getLogger(__name__)

TRAINER_STATE_NAME = "trainer_state.json"
"""The Trainer's own record, which every checkpoint has."""

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")


@dataclass(frozen=True)
class RunState:
    """State saved with a checkpoint, so that a resumed run logs the same values as an uninterrupted one."""

    loss_since_log: float
    """Sum of the losses of the steps since the last log event."""

    last_logged_step: int
    """Step of the last log event."""

    total_loss: float
    """Sum of the losses of all steps up to that event."""

    work: WorkCounts
    """Work done so far."""

    nonfinite: NonfiniteLosses = field(default_factory=NonfiniteLosses)
    """Losses so far that are not finite."""

    aux_loss: float = 0.0
    """Sum of the auxiliary losses of the steps since the last log event."""

    parts: Sequence[Sequence[float]] = ()
    """Sums of the sources and kinds since the last log event, as in `PartSums`; empty if there are none."""


@dataclass(frozen=True)
class Seal:
    """The content of the file that makes a checkpoint complete."""

    files: Mapping[str, int]
    """Path of every other file, relative to the checkpoint -> its size in bytes."""

    identity: Mapping[str, Any]
    """Identity of the run, see `run_identity`."""

    state: RunState

    resumable: bool
    """Whether it has the state of the optimizer."""

    attempt: int
    """How many times runs into the same directory did not resume from its newest checkpoint."""

    step: int
    """The step after which it was written, whatever the directory is called now."""


def begin_checkpoint(folder: Path) -> None:
    """Create an empty directory for a checkpoint. Removes an existing checkpoint of that name, and moves others away.

    Raises:
        OSError: it cannot be removed or created.
    """
    free_place(folder)
    folder.mkdir(parents=True)
    (folder / UNFINISHED_NAME).touch()


def seal_checkpoint(
    folder: Path, identity: Mapping[str, Any], state: RunState, *, resumable: bool, attempt: int = 0
) -> None:
    """Declare a checkpoint complete: flush every file to disk, then write the seal.

    Raises:
        OSError: a file cannot be written.
    """
    files = {}
    for path in _files(folder):
        sync_file(path)
        files[path.relative_to(folder).as_posix()] = path.stat().st_size
    content = {
        "files": files,
        "identity": identity,
        "progress": _state_to_json(state),
        "resumable": resumable,
        "attempt": attempt,
        "step": _step_in_name(folder),
    }
    with atomic_replace(folder / SEAL_NAME) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / UNFINISHED_NAME).unlink(missing_ok=True)


def read_seal(folder: Path) -> Seal | None:
    """The seal of a complete checkpoint; None for any other directory."""
    try:
        content = json.loads((folder / SEAL_NAME).read_text(encoding="utf-8"))
        sealed = Seal(
            files={str(name): int(size) for name, size in content["files"].items()},
            identity=content["identity"],
            state=_state_from_json(content["progress"]),
            resumable=bool(content["resumable"]),
            attempt=int(content.get("attempt", 0)),  # earlier versions wrote neither this
            step=int(content.get("step", _step_in_name(folder))),  # nor this
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return sealed if all(file_size(folder / name) == size for name, size in sealed.files.items()) else None


def delete_old_checkpoints(folder: Path, limit: int | None, identity: Mapping[str, Any], best: str | None) -> None:
    """Delete unfinished checkpoints that kills left, and the oldest complete ones of a run above the limit.

    Args:
        folder: directory of the checkpoints. Those of other runs are kept.
        limit: how many complete checkpoints are kept; None for all.
        identity: identity of the run.
        best: path of the best checkpoint, which is kept too.
    """
    for path in folder.glob(f"checkpoint-*/{UNFINISHED_NAME}"):
        if not (path.parent / SEAL_NAME).exists():
            remove_checkpoint(path.parent)
    if not limit or limit < 1:
        return
    complete = [path for path, sealed in _complete(folder) if identity_differences(sealed.identity, identity) == []]
    for path in complete[limit:]:
        if best is None or path.resolve() != Path(best).resolve():
            remove_checkpoint(path)


def resumable_checkpoints(folder: Path) -> Iterator[tuple[Path, Seal]]:
    """The complete checkpoints of a directory that have the state of the optimizer, newest first."""
    warned = False
    for path, sealed in _complete(folder):
        if sealed.resumable:
            yield path, sealed
        elif not warned:
            warned = True
            warn_on_main_process(_log, f"{path} holds only the model (save_only_model=true): no run can resume from it")


def next_attempt(folder: Path, resumed: Path | None) -> int:
    """The number of the attempt that begins, for the seals of its checkpoints.

    Args:
        folder: directory of the checkpoints.
        resumed: the checkpoint that the run resumes from; None if it starts from the beginning.
    """
    for newest, sealed in _complete(folder):
        is_continued = resumed is not None and resumed.resolve() == newest.resolve()
        return sealed.attempt if is_continued else sealed.attempt + 1
    return 0


def _complete(folder: Path) -> list[tuple[Path, Seal]]:
    """The complete checkpoints of a directory, newest first."""
    if not folder.is_dir():
        return []
    candidates = [path for path in folder.iterdir() if _CHECKPOINT.match(path.name)]
    found = [(path, sealed) for path in candidates if (sealed := read_seal(path)) is not None]
    return sorted(found, key=lambda each: (each[1].attempt, each[1].step, each[0].name), reverse=True)


def _step_in_name(folder: Path) -> int:
    match = _CHECKPOINT.match(folder.name)
    return int(match[1]) if match else 0


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in (SEAL_NAME, UNFINISHED_NAME)
    )


def _state_to_json(state: RunState) -> dict[str, Any]:
    """The keys are part of the file format: checkpoints of earlier versions must stay readable."""
    return {
        "loss": state.loss_since_log,
        "logged": state.last_logged_step,
        "total": state.total_loss,
        "work": asdict(state.work),
        "nonfinite": asdict(state.nonfinite),
        "auxiliary": state.aux_loss,
        "parts": state.parts,
    }


def _state_from_json(content: Mapping[str, Any]) -> RunState:
    nonfinite = NonfiniteLosses(**content.get("nonfinite", {}))  # checkpoints of earlier versions have neither this
    auxiliary = float(content.get("auxiliary", 0.0))  # nor this
    parts = tuple(map(tuple, content.get("parts", ())))  # nor this
    work = WorkCounts(**content["work"])
    return RunState(content["loss"], content["logged"], content["total"], work, nonfinite, auxiliary, parts)
