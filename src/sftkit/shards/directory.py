"""An output directory: what it may hold before a run, what stands in it meanwhile, and how it becomes a data set.

Everything is written below `.staging` and moved into place when it is whole; the manifest comes last. What is being
moved is written down first, so that after a kill in the middle the next run knows these files as its own. Staged units
may stand elsewhere, in a directory of the user's own, which other output directories share.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from sftkit.errors import OutputError
from sftkit.rows import BadRow
from sftkit.shards.beside import (
    CARD_NAME,
    JOURNAL_NAME,
    QUARANTINE_NAME,
    STAGING_NAME,
    quarantine_sha256,
    write_beside,
    write_quarantine,
)
from sftkit.shards.locking import locked
from sftkit.shards.manifest import MANIFEST_NAME, Manifest, read_manifest
from sftkit.shards.unit_store import UnitStore, is_staged
from sftkit.storage.files import aside, make_folder, size_of, write_text
from sftkit.storage.paths import AnyPath
from sftkit.storage.retrying import reason_of

_log = logging.getLogger(__name__)

_IN_THE_WAY = (errno.EISDIR, errno.EEXIST)
LOCK_NAME = "lock"


class OutputDirectory:
    """The directory that a run writes its data set to.

    staging_dir: where staged units stand; nothing of what is whole there is ever removed. Without it they stand in
    `.staging`, where keep_staging keeps them after a run. unfinished: where the shards of a run stand until all are
    written; each run has its own, for a worker may outlive for a moment the run that it worked for.
    """

    def __init__(self, path: Path, staging_dir: AnyPath | None = None, *, keep_staging: bool = False) -> None:
        self.path = path
        run = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.units = UnitStore(staging_dir or self.staging, run)
        self.unfinished = self.staging / f"run-{run}"
        self._keep_staging = keep_staging or (staging_dir is not None and _is_below(staging_dir, self.staging))

    @property
    def staging(self) -> Path:
        """Where all stands that is no part of a data set."""
        return self.path / STAGING_NAME

    def manifest(self) -> Manifest | None:
        """The manifest of the data set that the directory holds, or None."""
        return read_manifest(self.path)

    def holds(self, manifest: Manifest) -> bool:
        """Whether every shard of a manifest is there, as long as it should be, and its quarantine."""
        shards = [shard for split in manifest.splits.values() for shard in split.shards]
        whole = all(size_of(self.path / Path(shard.file).name) == shard.bytes for shard in shards)
        return whole and quarantine_sha256(self.path) == manifest.files.get(QUARANTINE_NAME)

    def check_free(self, *, overwrite: bool) -> None:
        """Raise `OutputError` when writing here would mix with, or take the place of, what is here already."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"output_dir {self.path}: is a file, not a directory")
        if self.manifest() is not None:
            if not overwrite:
                raise OutputError(
                    f"output_dir {self.path}: holds another data set; choose another directory, or say overwrite=true"
                )
            return
        ours = self._half_published()
        foreign = next((path for path in self._listing() if _is_in_the_way(path) and path.name not in ours), None)
        if foreign is not None:
            raise OutputError(
                f"output_dir {self.path}: holds {foreign.name}, which is not of sftkit; choose an empty directory"
            )

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[OutputDirectory]:
        """Prepare the directory for a run, and keep other runs out of it.

        What a run leaves unfinished is cleared away. Staged units go once the run is done; if it fails, or is ended,
        they stay for the next one, which goes on from them.

        Raises:
            OutputError: it holds another data set, another run is writing there, or it cannot be written.
        """
        self.check_free(overwrite=overwrite)
        existed = self.path.is_dir()
        if not _is_below(self.units.path, self.staging):
            with self._writing("staging_dir", self.units.path):
                make_folder(self.units.path)
        with self._writing("output_dir", self.path), locked(self.staging / LOCK_NAME, self.path):
            self.check_free(overwrite=overwrite)  # another run may have ended meanwhile
            self._clear_unfinished()
            self.unfinished.mkdir(parents=True)
            make_folder(self.units.path)
            elsewhere = not _is_below(self.units.path, self.staging)
            try:
                with self._writing("staging_dir", self.units.path) if elsewhere else nullcontext():
                    yield self
            except BaseException:
                self._tell_what_stays()
                raise
            else:
                self._clear_finished()
            finally:
                self.units.sweep()
                self._clear_unfinished()
                (self.staging / LOCK_NAME).unlink(missing_ok=True)
                for folder in (self.staging, *(() if existed else (self.path,))):
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()

    def tidy(self) -> None:
        """Finish what a run left to do that was killed when its data set was complete."""
        if not self.staging.is_dir() or (self.units.count() and not (self.staging / JOURNAL_NAME).exists()):
            return  # nothing there, or units that were to be kept
        with self._writing("output_dir", self.path), locked(self.staging / LOCK_NAME, self.path):
            self._clear_unfinished()
            self._clear_finished()
            (self.staging / LOCK_NAME).unlink(missing_ok=True)
            if not any(self.staging.iterdir()):
                self.staging.rmdir()

    def _clear_finished(self) -> None:
        """Remove the staged units that are not to be kept; the journal last, which says that this is to be done."""
        for path in [] if self._keep_staging else list(self.staging.iterdir()):
            if path.name not in (LOCK_NAME, JOURNAL_NAME):
                _remove(path)
        (self.staging / JOURNAL_NAME).unlink(missing_ok=True)

    def _tell_what_stays(self) -> None:
        staged = self.units.count() if _is_below(self.units.path, self.staging) else 0
        if staged:
            what, them = ("unit stays", "it") if staged == 1 else ("units stay", "them")
            place = self.units.path
            _log.warning("%d tokenized %s in %s: the same command goes on from %s", staged, what, place, them)

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
            raise OutputError(f"{key} {path}: cannot be written: {reason_of(error)}{there}") from None

    def _clear_unfinished(self) -> None:
        """Leave nothing but staged units in `.staging`, and nothing beside the data set that was to be part of it."""
        for name in (QUARANTINE_NAME, CARD_NAME, MANIFEST_NAME):
            aside(self.path / name).unlink(missing_ok=True)
        for path in list(self.staging.iterdir()):
            told = path.name in (LOCK_NAME, JOURNAL_NAME, QUARANTINE_NAME)
            if not told and not is_staged(path.name) and not _is_below(self.units.path, path):
                _remove(path)

    @property
    def shard_folder(self) -> Path:
        """Where the shards are written, to be moved into place when all of them are there."""
        return self.unfinished

    def tell_bad_rows(self, bad: Collection[tuple[str, BadRow]]) -> Path:
        """Write the quarantined rows of a run that fails to a file, whose path is given back; the quarantine of a data
        set that is here is left alone.
        """
        folder = self.path if self.manifest() is None else self.staging
        write_quarantine(folder / QUARANTINE_NAME, bad)
        return folder / QUARANTINE_NAME

    def publish(self, manifest: Manifest, bad: Collection[tuple[str, BadRow]]) -> Manifest:
        """Move the finished shards into place and write the manifest, which makes them a data set. The manifest that
        was written is given back: it names the files beside the shards, too.

        The names are written down before the first is moved: a run that is killed between leaves files that the next
        run knows as its own.
        """
        names = [shard.file for split in manifest.splits.values() for shard in split.shards]
        journal = [*names, *self._half_published(), *self._withdrawn()]
        write_text(self.staging / JOURNAL_NAME, json.dumps(journal))
        (self.path / MANIFEST_NAME).unlink(missing_ok=True)
        for name in journal:
            (self.path / name).unlink(missing_ok=True)
        for name in names:
            (self.unfinished / name).replace(self.path / name)
        complete = replace(manifest, files=write_beside(self.path, manifest, bad))
        write_text(self.path / MANIFEST_NAME, complete.to_json())
        return complete

    def _withdrawn(self) -> list[str]:
        """Names of the files of the data set that is here and gives way."""
        old = self.manifest()
        shards = [shard for split in old.splits.values() for shard in split.shards] if old is not None else []
        return self._files_here([shard.file for shard in shards])

    def _half_published(self) -> list[str]:
        """Names of the files here that a run was moving into place when it was killed."""
        try:
            names = json.loads((self.staging / JOURNAL_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return []
        return self._files_here([*names, CARD_NAME]) if isinstance(names, list) else []

    def _files_here(self, names: Sequence[object]) -> list[str]:
        """Those among some names, which may be anybody's, that files in this directory have."""
        plain = (Path(name).name for name in names if isinstance(name, str))
        return [name for name in plain if (self.path / name).is_file()]

    def _listing(self) -> list[Path]:
        try:
            return sorted(self.path.iterdir()) if self.path.is_dir() else []
        except OSError as error:
            raise OutputError(f"output_dir {self.path}: cannot be read: {error.strerror}") from None


def _remove(path: Path) -> None:
    """Remove a file or a folder, even while a worker of a run that was killed still moves about in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_below(path: AnyPath, folder: Path) -> bool:
    return isinstance(path, Path) and path.resolve().is_relative_to(folder.resolve())


def _is_in_the_way(path: Path) -> bool:
    return path.suffix == ".parquet" or path.name == CARD_NAME
