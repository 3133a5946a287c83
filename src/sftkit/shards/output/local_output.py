"""A local output directory: shards are renamed into place.

Staged units may stand elsewhere, in a directory of the user's own, which other output directories share.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from sftkit.errors import OutputError
from sftkit.shards.output.base_output import LOCK_NAME, Output
from sftkit.shards.staging.unit_store import is_unit_file
from sftkit.storage.dataset_files import CARD_NAME, JOURNAL_NAME, MANIFEST_NAME, QUARANTINE_NAME
from sftkit.storage.file_lock import hold_lock
from sftkit.storage.files import make_directory, temporary_path
from sftkit.storage.paths import AnyPath
from sftkit.storage.retry import error_reason

_IN_THE_WAY = (errno.EISDIR, errno.EEXIST)


class LocalOutput(Output[Path]):
    """The directory that a run writes its data set to."""

    def check_free(self, *, overwrite: bool) -> None:
        """Raise `OutputError` when writing here would mix with, or take the place of, what is here already."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"output_dir {self.path}: is a file, not a directory")
        super().check_free(overwrite=overwrite)

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[LocalOutput]:
        """As `Output.open`; a directory that was made for the run, and in which nothing is left, goes again."""
        self.check_free(overwrite=overwrite)
        existed = self.path.is_dir()
        if not self._stages_here:
            with self._writing("staging_dir", self.units.path):
                make_directory(self.units.path)
        with self._writing("output_dir", self.path), hold_lock(self.staging / LOCK_NAME, self.path):
            self.check_free(overwrite=overwrite)  # another run may have ended meanwhile
            self._clear_unfinished()
            self.shard_folder.mkdir(parents=True)
            make_directory(self.units.path)
            try:
                with nullcontext() if self._stages_here else self._writing("staging_dir", self.units.path):
                    yield self
            except BaseException:
                self._tell_what_stays()
                raise
            else:
                self._clear_finished()
            finally:
                self.units.remove_unfinished()
                self._clear_unfinished()
                (self.staging / LOCK_NAME).unlink(missing_ok=True)
                for folder in (self.staging, *(() if existed else (self.path,))):
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()

    def finish_cleanup(self) -> None:
        """Finish what a run left to do that was killed when its data set was complete."""
        if not self.staging.is_dir() or (self.units.count() and not (self.staging / JOURNAL_NAME).exists()):
            return  # nothing there, or units that were to be kept
        with self._writing("output_dir", self.path), hold_lock(self.staging / LOCK_NAME, self.path):
            self._clear_unfinished()
            self._clear_finished()
            (self.staging / LOCK_NAME).unlink(missing_ok=True)
            if not any(self.staging.iterdir()):
                self.staging.rmdir()

    def _clear_finished(self) -> None:
        """Remove the staged units that are not to be kept; the journal last, which says that this is to be done."""
        for path in [] if self._keeps_units else list(self.staging.iterdir()):
            if path.name not in (LOCK_NAME, JOURNAL_NAME):
                _remove(path)
        (self.staging / JOURNAL_NAME).unlink(missing_ok=True)

    @contextmanager
    def _writing(self, key: str, path: AnyPath) -> Iterator[None]:
        """What the system says of a file below a path, as one sentence that names the key the path was given by."""
        try:
            yield
        except OSError as error:
            if error.filename is not None and not str(error.filename).startswith(str(path)):
                raise
            place = error.filename2 or error.filename  # of two names, where something was to be moved
            there = f" ({place} is in the way; move it)" if error.errno in _IN_THE_WAY else ""
            raise OutputError(f"{key} {path}: cannot be written: {error_reason(error)}{there}") from None

    def _clear_unfinished(self) -> None:
        """Leave nothing but staged units in `.staging`, and nothing beside the data set that was to be part of it."""
        for name in (QUARANTINE_NAME, CARD_NAME, MANIFEST_NAME):
            temporary_path(self.path / name).unlink(missing_ok=True)
        for path in list(self.staging.iterdir()):
            told = path.name in (LOCK_NAME, JOURNAL_NAME, QUARANTINE_NAME)
            if not told and not is_unit_file(path.name) and not _is_below(self.units.path, path):
                _remove(path)

    def _is_ours(self, place: AnyPath) -> bool:
        return _is_below(place, self.staging)

    def _names(self) -> Sequence[str]:
        try:
            return sorted(path.name for path in self.path.iterdir()) if self.path.is_dir() else []
        except OSError as error:
            raise OutputError(f"output_dir {self.path}: cannot be read: {error.strerror}") from None

    def _files_among(self, names: Sequence[str]) -> Sequence[str]:
        return [name for name in names if (self.path / name).is_file()]

    def _check_ours(self) -> None:
        """The lock is the system's: nobody takes it over while this process lives."""

    def _put_into_place(self, names: Sequence[str]) -> None:
        for name in names:
            (self.shard_folder / name).replace(self.path / name)


def _remove(path: Path) -> None:
    """Remove a file or a folder, even while a worker of a run that was killed still moves about in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_below(path: AnyPath, folder: Path) -> bool:
    return isinstance(path, Path) and path.resolve().is_relative_to(folder.resolve())
