"""Removes checkpoints: only those that carry a mark of sftkit, only their own files, and nothing through a link."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from sftkit.storage.training_files import SEAL_NAME, UNFINISHED_NAME
from sftkit.training.distributed import warn_on_main_process

_log = logging.getLogger(__name__)


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint. It stops being complete first, and an interrupted removal can be repeated.

    Of a complete checkpoint, the files that its seal names are removed. An unfinished one was empty when it was marked,
    so all of its files are its own. What cannot be removed stays, such as links and files of others.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    seal, mark = folder / SEAL_NAME, folder / UNFINISHED_NAME
    was_complete = seal.is_file() and not seal.is_symlink()
    if was_complete:
        seal.replace(mark)  # which then says what may be removed
    if mark.is_symlink() or not mark.is_file():
        return
    own = _names_in(mark)
    for place, _, names in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in names):
            is_own = own is None or path.relative_to(folder).as_posix() in own
            if path != mark and is_own and not path.is_symlink():
                with suppress(OSError):
                    path.unlink()
        with suppress(OSError):
            Path(place).rmdir()
    if [path.name for path in folder.iterdir()] == [UNFINISHED_NAME]:
        mark.unlink()
        folder.rmdir()
    elif was_complete:
        warn_on_main_process(_log, f"{folder}: files that do not belong to this checkpoint stay there")


def free_place(folder: Path) -> None:
    """Remove the checkpoint at a path, and move away what is not one: the path is free afterwards.

    Raises:
        OSError: it cannot be removed or moved.
    """
    remove_checkpoint(folder)
    if os.path.lexists(folder):
        numbers = range(1, 1_000_000)
        kept = next(path for n in numbers if not os.path.lexists(path := folder.with_name(f"kept-{n}-{folder.name}")))
        folder.rename(kept)
        warn_on_main_process(_log, f"{folder} is no checkpoint of sftkit; it is now {kept}")


def _names_in(mark: Path) -> Collection[str] | None:
    """Return the files that the seal in a mark names; None if there is no seal in it, but nothing at all."""
    text = mark.read_bytes()
    if not text:
        return None
    try:
        return frozenset(json.loads(text)["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
