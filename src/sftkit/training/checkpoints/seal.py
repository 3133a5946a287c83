"""Seals: which checkpoints are complete, and what was saved with them."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.storage.files import atomic_replace, file_size, sync_file
from sftkit.training.checkpoints.run_identity import identity_differences
from sftkit.training.data.work_counts import WorkCounts
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class RunState:
    """What is kept with a checkpoint, so that a resumed run logs what the run would have logged.

    loss: sum of the losses of the steps since the last log event. logged: step of that event. total: sum of the losses
    of all steps before it. work: done so far.
    """

    loss_since_log: float
    last_logged_step: int
    total_loss: float
    work: WorkCounts


_log = logging.getLogger(__name__)


def _state_to_json(state: RunState) -> dict[str, Any]:
    """The keys are part of the file format: checkpoints of earlier versions must stay readable."""
    return {
        "loss": state.loss_since_log,
        "logged": state.last_logged_step,
        "total": state.total_loss,
        "work": asdict(state.work),
    }


def _state_from_json(content: Mapping[str, Any]) -> RunState:
    return RunState(content["loss"], content["logged"], content["total"], WorkCounts(**content["work"]))


SEAL_NAME = "sftkit_checkpoint.json"


UNFINISHED_NAME = "sftkit_unfinished"
"""Stands in a checkpoint from before its first file is written until its seal is."""


_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")


TRAINER_STATE_NAME = "trainer_state.json"


@dataclass(frozen=True)
class Seal:
    """What makes a checkpoint whole, and says what it is of.

    files: every other file below it, with its bytes. identity: see `identity.run_identity`. progress: of the run.
    resumable: whether it has the state of the optimizer. sealed_at: when, in nanoseconds.
    """

    files: Mapping[str, int]
    identity: Mapping[str, Any]
    state: RunState
    resumable: bool
    sealed_at: int


def begin_checkpoint(folder: Path) -> None:
    """Make room for a checkpoint that is about to be written: what stood there under its name is whole no more.

    Raises:
        OSError: it cannot be removed, or the directory not be made.
    """
    if folder.is_dir():
        (folder / SEAL_NAME).unlink(missing_ok=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / UNFINISHED_NAME).touch()


def seal_checkpoint(folder: Path, identity: Mapping[str, Any], state: RunState, *, resumable: bool) -> None:
    """Declare a checkpoint whole: bring every file to disk, then write the seal.

    Raises:
        OSError: it cannot be written.
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
        "sealed_at": time.time_ns(),
    }
    with atomic_replace(folder / SEAL_NAME) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / UNFINISHED_NAME).unlink(missing_ok=True)


def read_seal(folder: Path) -> Seal | None:
    """The seal of a checkpoint that is whole, else None."""
    try:
        content = json.loads((folder / SEAL_NAME).read_text(encoding="utf-8"))
        sealed = Seal(
            files={str(name): int(size) for name, size in content["files"].items()},
            identity=content["identity"],
            state=_state_from_json(content["progress"]),
            resumable=bool(content["resumable"]),
            sealed_at=int(content["sealed_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return sealed if all(file_size(folder / name) == size for name, size in sealed.files.items()) else None


def delete_old_checkpoints(folder: Path, limit: int | None, identity: Mapping[str, Any], best: str | None) -> None:
    """Delete what kills left unfinished, and all but the newest `limit` whole checkpoints of a run, and the best."""
    for path in folder.glob(f"checkpoint-*/{UNFINISHED_NAME}"):
        if not (path.parent / SEAL_NAME).exists():
            shutil.rmtree(path.parent, ignore_errors=True)
    if not limit or limit < 1:
        return
    whole = [path for path, sealed in _whole(folder) if identity_differences(sealed.identity, identity) == []]
    for path in whole[limit:]:
        if best is None or path.resolve() != Path(best).resolve():
            (path / SEAL_NAME).unlink(missing_ok=True)  # from here on it is not whole, however far deleting it comes
            shutil.rmtree(path, ignore_errors=True)


def resumable_checkpoints(folder: Path) -> Iterator[tuple[Path, Seal]]:
    """The whole checkpoints of a directory that can be gone on from, newest first."""
    without = False
    for path, sealed in _whole(folder):
        if sealed.resumable:
            yield path, sealed
        elif not without:
            without = True
            warn_on_main_process(_log, f"{path} holds the model alone (save_only_model=true): no run can go on from it")


def _whole(folder: Path) -> list[tuple[Path, Seal]]:
    """The whole checkpoints of a directory, the one that was sealed last first."""
    if not folder.is_dir():
        return []
    places = [path for path in folder.iterdir() if _CHECKPOINT.match(path.name)]
    found = [(path, sealed) for path in places if (sealed := read_seal(path)) is not None]
    return sorted(found, key=lambda each: -each[1].sealed_at)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in (SEAL_NAME, UNFINISHED_NAME)
    )
