"""A local output directory: shards are renamed into place."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePath

from sftkit.errors import OutputError
from sftkit.shards.manifest import Manifest
from sftkit.shards.output.base_output import LOCK_NAME, Output, is_foreign_row_list
from sftkit.shards.output.leftovers import (
    RUN_MARK,
    is_regular,
    is_run_folder,
    remove_empty_folders,
    remove_if_empty,
    remove_unfinished,
    remove_units,
)
from sftkit.storage.dataset_files import JOURNAL_NAME, ROW_LIST_NAMES, STAGING_NAME, is_unit_file, template_date_in
from sftkit.storage.file_lock import hold_lock
from sftkit.storage.files import atomic_replace, files_below, make_directory
from sftkit.storage.paths import AnyPath
from sftkit.storage.retry import error_reason

_log = logging.getLogger(__name__)

_PATH_IS_TAKEN = (errno.EISDIR, errno.EEXIST)
_MAX_NAMED = 5


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
            remove_unfinished(self.staging, self.path)
            make_directory(self.units.path)
            try:
                self.shard_folder.mkdir(parents=True)
                (self.shard_folder / RUN_MARK).touch()
                with nullcontext() if self._stages_here else self._name_key_in_errors("staging_dir", self.units.path):
                    yield self
            except BaseException:
                self._log_remaining_units()
                raise
            else:
                self._remove_used_units()
            finally:
                self.units.remove_unfinished()
                remove_unfinished(self.staging, self.path)
                (self.staging / LOCK_NAME).unlink(missing_ok=True)
                for folder in (self.staging, *(() if existed else (self.path,))):
                    remove_if_empty(folder)
            self._warn_of_foreign_files()

    def finish_cleanup(self) -> None:
        """As `Output.finish_cleanup`."""
        if not self._has_unfinished_cleanup():
            return
        with self._name_key_in_errors("output_dir", self.path), hold_lock(self.staging / LOCK_NAME, self.path):
            remove_unfinished(self.staging, self.path)
            self._remove_used_units()
            (self.staging / LOCK_NAME).unlink(missing_ok=True)
            remove_if_empty(self.staging)

    def _has_unfinished_cleanup(self) -> bool:
        """Return whether there is a journal, or nothing but what a run leaves that was killed at the very end."""
        if not self.staging.is_dir() or self._has_foreign_lock() or self._has_foreign_journal():
            return False
        names = [path.name for path in self.staging.iterdir()]
        only_ours = all(name == LOCK_NAME or is_run_folder(name) for name in names)
        return JOURNAL_NAME in names or (only_ours and bool(names or not self.staging.is_symlink()))

    def _remove_used_units(self) -> None:
        """Remove the staged units unless they are to be kept, and then the journal: it marks the cleanup as pending."""
        self._remove_unlisted()
        if not self._keeps_units:
            remove_units(self.staging, self._used_keys)
            for place in (self.staging / name for name in ROW_LIST_NAMES):
                if not is_foreign_row_list(place):
                    place.unlink(missing_ok=True)
        (self.staging / JOURNAL_NAME).unlink(missing_ok=True)

    def _warn_of_foreign_files(self) -> None:
        """Name what stays in `.staging` because no run has made it."""
        left = list(self.staging.iterdir()) if self.staging.is_dir() else []
        units = [path for path in left if is_unit_file(path.name) or template_date_in(path) is not None]
        kept = units if self._keeps_units else []
        ours = {*kept, *(path for path in left if _is_below(self.units.path, path))}
        foreign = sorted(path.name for path in left if path not in ours)
        if foreign:
            names = ", ".join(foreign[:_MAX_NAMED]) + (", ..." if len(foreign) > _MAX_NAMED else "")
            _log.warning("%s: sftkit did not make %s, and leaves it as it is", self.staging, names)

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

    def _foreign_files(self, manifest: Manifest | None) -> Iterator[str]:
        yield from super()._foreign_files(manifest)
        if self._has_foreign_lock():
            yield f"{STAGING_NAME}/{LOCK_NAME}"

    def _has_foreign_lock(self) -> bool:
        """Return whether there is a file with the name of the lock that no run has made: those of runs are empty."""
        lock = self.staging / LOCK_NAME
        return lock.is_symlink() or (lock.exists() and not (is_regular(lock) and lock.stat().st_size == 0))

    def _has_foreign_journal(self) -> bool:
        journal = self.staging / JOURNAL_NAME
        return journal.is_symlink() or journal.is_dir() or super()._has_foreign_journal()

    def _is_in_staging(self, path: AnyPath) -> bool:
        return _is_below(path, self.staging)

    def _names(self) -> Sequence[str]:
        try:
            direct = sorted(path.name for path in self.path.iterdir()) if self.path.is_dir() else []
            below = [f"{folder}/{name}" for folder in self._folders for name in files_below(self.path / folder)]
        except OSError as error:
            raise OutputError(f"output_dir {self.path}: cannot be read: {error.strerror}") from None
        return [*direct, *below]

    def _foreign_folders(self) -> Iterator[str]:
        for name in self._folders:
            folder = self.path / name
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                yield name
            else:
                links = (each for each in files_below(folder) if (folder / each).is_symlink())
                yield from (f"{name}/{each}" for each in links if (folder / each).is_dir())

    def _existing(self, names: Sequence[str]) -> Sequence[str]:
        return [name for name in names if (self.path / name).is_file()]

    def _check_lock(self) -> None:
        """Do nothing: nobody can take over a file lock while this process lives."""

    def _remove_shards(self, names: Sequence[str]) -> None:
        # What a link leads to is not ours.
        own = [
            name for name in names if not any((self.path / each).is_symlink() for each in PurePath(name).parents[:-1])
        ]
        super()._remove_shards(own)
        remove_empty_folders(self.path, own)

    def _move_into_place(self, names: Sequence[str]) -> None:
        for name in names:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                (self.shard_folder / name).replace(self.path / name)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with atomic_replace(self.path / name, self.run) as temporary:  # `.staging` is a link to another disk
                    shutil.copyfile(self.shard_folder / name, temporary)


def _is_below(path: AnyPath, folder: Path) -> bool:
    return isinstance(path, Path) and path.resolve().is_relative_to(folder.resolve())
