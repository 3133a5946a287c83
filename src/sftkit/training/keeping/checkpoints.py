"""Checkpoints: when one is whole, which one a run goes on from, and which are kept.

The Trainer writes a checkpoint file by file. A seal is written when all processes are done with it and everything is on
disk: a checkpoint without a seal, or with a file that is not as long as its seal says, was cut short by a kill and
counts for nothing. Older checkpoints are deleted only after that.
"""

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

from sftkit.errors import TrainingError
from sftkit.storage.files import replacing, size_of, sync_file
from sftkit.training.distributed import warn_once
from sftkit.training.keeping.progress import Progress
from sftkit.training.measuring.work import WorkCounts

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

SEAL_NAME = "sftkit_checkpoint.json"
UNFINISHED_NAME = "sftkit_unfinished"
"""Stands in a checkpoint from before its first file is written until its seal is."""

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
_STATE = "trainer_state.json"
_NONE = ("false", "no", "none")
_LAST = ("true", "yes", "last", "latest")


@dataclass(frozen=True)
class Seal:
    """What makes a checkpoint whole, and says what it is of.

    files: every other file below it, with its bytes. identity: see `identity.run_identity`. progress: of the run.
    resumable: whether it has the state of the optimizer. sealed_at: when, in nanoseconds.
    """

    files: Mapping[str, int]
    identity: Mapping[str, Any]
    progress: Progress
    resumable: bool
    sealed_at: int


@dataclass(frozen=True)
class Resumption:
    """The checkpoint that a run goes on from, and what was kept with it (None for one of another tool)."""

    checkpoint: Path
    progress: Progress | None


def clear_for(folder: Path) -> None:
    """Make room for a checkpoint that is about to be written: what stood there under its name is whole no more.

    Raises:
        OSError: it cannot be removed, or the directory not be made.
    """
    if folder.is_dir():
        (folder / SEAL_NAME).unlink(missing_ok=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / UNFINISHED_NAME).touch()


def seal(folder: Path, identity: Mapping[str, Any], progress: Progress, *, resumable: bool) -> None:
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
        "progress": asdict(progress),
        "resumable": resumable,
        "sealed_at": time.time_ns(),
    }
    with replacing(folder / SEAL_NAME) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / UNFINISHED_NAME).unlink(missing_ok=True)


def read_seal(folder: Path) -> Seal | None:
    """The seal of a checkpoint that is whole, else None."""
    try:
        content = json.loads((folder / SEAL_NAME).read_text(encoding="utf-8"))
        kept = content["progress"]
        sealed = Seal(
            files={str(name): int(size) for name, size in content["files"].items()},
            identity=content["identity"],
            progress=Progress(**{**kept, "work": WorkCounts(**kept["work"])}),
            resumable=bool(content["resumable"]),
            sealed_at=int(content["sealed_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return sealed if all(size_of(folder / name) == size for name, size in sealed.files.items()) else None


def resumption(arguments: TrainingArguments, identity: Mapping[str, Any]) -> Resumption | None:
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
        newest = next(_resumable(folder), None)
        if newest is None:
            warn_once(_log, f"{folder} holds no checkpoint to resume from: the run starts anew")
            return None
        _warn_of_differences(newest[0], newest[1].identity, identity)
        return Resumption(newest[0], newest[1].progress)
    if asked:
        return _given(Path(asked).expanduser(), asked, identity)
    return _own(folder, identity)


def rotate(folder: Path, limit: int | None, identity: Mapping[str, Any], best: str | None) -> None:
    """Delete what kills left unfinished, and all but the newest `limit` whole checkpoints of a run, and the best."""
    for path in folder.glob(f"checkpoint-*/{UNFINISHED_NAME}"):
        if not (path.parent / SEAL_NAME).exists():
            shutil.rmtree(path.parent, ignore_errors=True)
    if not limit or limit < 1:
        return
    whole = [path for path, sealed in _whole(folder) if _differences(sealed.identity, identity) == []]
    for path in whole[limit:]:
        if best is None or path.resolve() != Path(best).resolve():
            (path / SEAL_NAME).unlink(missing_ok=True)  # from here on it is not whole, however far deleting it comes
            shutil.rmtree(path, ignore_errors=True)


def _own(folder: Path, identity: Mapping[str, Any]) -> Resumption | None:
    others: list[tuple[Path, list[str]]] = []
    for path, sealed in _resumable(folder):
        differences = _differences(sealed.identity, identity)
        if not differences:
            warn_once(_log, f"the run goes on from {path} (resume_from_checkpoint=false would start anew)")
            return Resumption(path, sealed.progress)
        others.append((path, differences))
    if others:
        path, differences = others[0]
        warn_once(
            _log,
            f"{path} is of another run ({', '.join(differences)}): this run starts anew; "
            "resume_from_checkpoint=true would go on from it all the same",
        )
    return None


def _given(path: Path, asked: str, identity: Mapping[str, Any]) -> Resumption:
    if not (path / _STATE).is_file():
        raise TrainingError(f"resume_from_checkpoint: {asked} is not a checkpoint (it has no {_STATE})")
    sealed = read_seal(path)
    if sealed is not None:
        if not sealed.resumable:
            raise TrainingError(
                f"resume_from_checkpoint: {asked} holds the model alone (save_only_model=true); "
                "give it as model_name_or_path to start a run from its weights"
            )
        _warn_of_differences(path, sealed.identity, identity)
        return Resumption(path, sealed.progress)
    if (path / SEAL_NAME).exists():
        raise TrainingError(f"resume_from_checkpoint: {asked} is not whole: files are missing or cut short")
    return Resumption(path, None)  # another tool's, which has no seal


def _warn_of_differences(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    differences = _differences(theirs, ours)
    if differences:
        warn_once(
            _log, f"{path} is of a run with other settings ({', '.join(differences)}); it is gone on from as asked"
        )


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What two runs differ in, in words."""
    plain = json.loads(json.dumps(ours))  # as it is read back
    names = sorted({*theirs, *plain})
    return [
        f"{name}: {_short(theirs.get(name))}, now {_short(plain.get(name))}"
        for name in names
        if theirs.get(name) != plain.get(name)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _resumable(folder: Path) -> Iterator[tuple[Path, Seal]]:
    """The whole checkpoints of a directory that can be gone on from, newest first."""
    without = False
    for path, sealed in _whole(folder):
        if sealed.resumable:
            yield path, sealed
        elif not without:
            without = True
            warn_once(_log, f"{path} holds the model alone (save_only_model=true): no run can go on from it")


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
