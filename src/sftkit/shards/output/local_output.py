"""A local output directory: shards are renamed into place."""

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

_PATH_IS_TAKEN = (errno.EISDIR, errno.EEXIST)


class LocalOutput(Output[Path]):
    """An output directory in a local file system. The lock is a file lock, which ends with the process."""

    def check_free(self, *, overwrite: bool) -> None:
        """As `Output.check_free`; also refuses a file."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"output_dir {self.path}: is a file, not a directory")
        super().check_free(overwrite=overwrite)

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[LocalOutput]:
        """As `Output.open`; a directory that was created for the run is removed again if it stays empty."""
        self.check_free(overwrite=overwrite)
        existed = self.path.is_dir()
        if not self._stages_here:
            with self._name_key_in_errors("staging_dir", self.units.path):
                make_directory(self.units.path)
        with self._name_key_in_errors("output_dir", self.path), hold_lock(self.staging / LOCK_NAME, self.path):
            self.check_free(overwrite=overwrite)  # another run may have finished since the first check
            self._remove_unfinished()
            self.shard_folder.mkdir(parents=True)
            make_directory(self.units.path)
            try:
                with nullcontext() if self._stages_here else self._name_key_in_errors("staging_dir", self.units.path):
                    yield self
            except BaseException:
                self._log_remaining_units()
                raise
            else:
                self._remove_used_units()
            finally:
                self.units.remove_unfinished()
                self._remove_unfinished()
                (self.staging / LOCK_NAME).unlink(missing_ok=True)
                for folder in (self.staging, *(() if existed else (self.path,))):
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()

    def finish_cleanup(self) -> None:
        """As `Output.finish_cleanup`."""
        if not self.staging.is_dir() or (self.units.count() and not (self.staging / JOURNAL_NAME).exists()):
            return  # nothing there, or only units that are kept on purpose
        with self._name_key_in_errors("output_dir", self.path), hold_lock(self.staging / LOCK_NAME, self.path):
            self._remove_unfinished()
            self._remove_used_units()
            (self.staging / LOCK_NAME).unlink(missing_ok=True)
            if not any(self.staging.iterdir()):
                self.staging.rmdir()

    def _remove_used_units(self) -> None:
        """Remove the staged units unless they are to be kept, and then the journal: it marks the cleanup as pending."""
        for path in [] if self._keeps_units else list(self.staging.iterdir()):
            if path.name not in (LOCK_NAME, JOURNAL_NAME):
                _remove(path)
        (self.staging / JOURNAL_NAME).unlink(missing_ok=True)

    @contextmanager
    def _name_key_in_errors(self, key: str, path: AnyPath) -> Iterator[None]:
        """Turn an `OSError` about a file below `path` into an `OutputError` that names the config key of the path."""
        try:
            yield
        except OSError as error:
            if error.filename is not None and not str(error.filename).startswith(str(path)):
                raise
            target = error.filename2 or error.filename  # a rename has two names
            hint = f" ({target} is in the way; move it)" if error.errno in _PATH_IS_TAKEN else ""
            raise OutputError(f"{key} {path}: cannot be written: {error_reason(error)}{hint}") from None

    def _remove_unfinished(self) -> None:
        """Remove unfinished files of the data set, and everything in `.staging` but staged units, lock and journal."""
        for name in (QUARANTINE_NAME, CARD_NAME, MANIFEST_NAME):
            temporary_path(self.path / name).unlink(missing_ok=True)
        for path in list(self.staging.iterdir()):
            kept = path.name in (LOCK_NAME, JOURNAL_NAME, QUARANTINE_NAME)
            if not kept and not is_unit_file(path.name) and not _is_below(self.units.path, path):
                _remove(path)

    def _is_in_staging(self, path: AnyPath) -> bool:
        return _is_below(path, self.staging)

    def _names(self) -> Sequence[str]:
        try:
            return sorted(path.name for path in self.path.iterdir()) if self.path.is_dir() else []
        except OSError as error:
            raise OutputError(f"output_dir {self.path}: cannot be read: {error.strerror}") from None

    def _existing(self, names: Sequence[str]) -> Sequence[str]:
        return [name for name in names if (self.path / name).is_file()]

    def _check_lock(self) -> None:
        """Do nothing: nobody can take over a file lock while this process lives."""

    def _move_into_place(self, names: Sequence[str]) -> None:
        for name in names:
            (self.shard_folder / name).replace(self.path / name)


def _remove(path: Path) -> None:
    """Remove a file or folder; a worker of a killed run may still be writing to it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_below(path: AnyPath, folder: Path) -> bool:
    return isinstance(path, Path) and path.resolve().is_relative_to(folder.resolve())
