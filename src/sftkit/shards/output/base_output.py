"""The output directory: what it may hold before a run, and how a run publishes its data set there.

A directory of a complete data set:

    train-00000-of-00003.parquet, ...   the Parquet shards
    mds/, jsonl/, ...                   the shards in other formats, if any (`output_format`)
    quarantine.jsonl                    the rows that could not be used, if any
    dropped.jsonl                       the rows that rules of the config removed, if any
    README.md                           the data set card
    manifest.json                       written last; its presence means that the data set is complete

While a run works, and where staged units are kept, there is also `.staging/`:

    lock                                held by the run that writes here
    unit-*.arrow                        staged units
    run-*/                              the shards of one run until they are published, and the run's mark
    publishing.json                     the journal: present from the start of publication until the cleanup after it

Both directories may be links, and may hold files of others. Only files that a run of sftkit has made are removed:
`leftovers.py` tells which.
"""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from sftkit.errors import OutputError
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.shards.output.leftovers import run_folder_name, run_name
from sftkit.shards.output.side_files import RowList, row_list_sha256, write_row_list, write_side_files
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.storage.dataset_files import (
    CARD_NAME,
    JOURNAL_NAME,
    MANIFEST_NAME,
    ROW_LIST_NAMES,
    STAGING_NAME,
    is_format_file,
    is_row_list,
    names_in_journal,
    names_of_shards,
)
from sftkit.storage.files import file_sizes, remove, write_text
from sftkit.storage.paths import AnyPath, RemotePath

_log = logging.getLogger(__name__)

P = TypeVar("P", Path, RemotePath)

LOCK_NAME = "lock"


class Output(ABC, Generic[P]):
    """The output directory of a run.

    A run opens the directory, writes its shards to `shard_folder`, and publishes them:

        with output.open(overwrite=False):
            ...  # write the shards below output.shard_folder
            output.publish(manifest, {QUARANTINE_NAME: bad_rows, DROPPED_NAME: dropped_rows})

    Several files cannot be replaced atomically, so publication uses a journal. `publish` (1) lists the new shards and
    the files that they replace in the journal, (2) removes the old manifest, then the old files, (3) moves the new
    shards into place, (4) writes the files beside them, and (5) writes the new manifest. `open` then (6) removes the
    staged units, and the journal last.

    `publish_beside` adds shards to a data set, whose own shards stay: the journal lists the new shards only, and the
    old manifest is valid until the new one replaces it. A run that is killed before leaves the old data set, and
    perhaps new shards that no manifest lists; the next run removes or replaces them.

    A run that is killed before (2) leaves any existing data set untouched. Killed from (2) to (5) it leaves a journal
    and no manifest: readers refuse the directory, and the next run recognizes the files in the journal as partly
    published, replaces them, and resumes from the staged units. Killed after (5) it leaves a complete data set, of
    which the next run only finishes the cleanup (`finish_cleanup`).

    Args:
        path: the output directory.
        staging_dir: a directory for staged units that other runs may share; complete units in it are never removed.
            By default they are in `.staging`.
        keep_staging: keep the units in `.staging` after the run.
        folders: names of the folders in it that the run writes shards to.
    """

    def __init__(
        self, path: P, staging_dir: AnyPath | None = None, *, keep_staging: bool = False, folders: Sequence[str] = ()
    ) -> None:
        self.run = run_name()
        """Names this run; part of its temporary file names."""
        self.path: P = path
        self.staging: P = path / STAGING_NAME
        self.units = UnitStore(staging_dir or self.staging, self.run)
        """The staged units."""
        self.shard_folder: P = self.staging / run_folder_name(self.run)
        """Where shards are written. Each run has its own: a worker may briefly outlive the run that started it."""
        self._folders = folders
        self._stages_here = self._is_in_staging(self.units.path)
        self._used_keys: Collection[str] = ()
        self._keeps_units = keep_staging or (staging_dir is not None and self._stages_here)

    def manifest(self) -> Manifest | None:
        """Return the manifest of the data set in the directory, None when there is none.

        Raises:
            OutputError: there is a manifest that cannot be read.
        """
        return read_manifest(self.path)

    def contains(self, manifest: Manifest) -> bool:
        """Return whether every shard of a manifest is here with its size, and the lists of rows with their sha256."""
        sizes = file_sizes(self.path)
        complete = all(sizes.get(PurePosixPath(shard.file).name) == shard.bytes for shard in manifest.shards)
        files = [(PurePosixPath(file.file), file.bytes) for file in manifest.format_files if is_format_file(file.file)]
        below = {folder: file_sizes(self.path / str(folder)) for folder in {path.parent for path, _ in files}}
        complete &= len(files) == len(manifest.format_files)
        complete &= all(below[path.parent].get(path.name) == size for path, size in files)
        return complete and all(row_list_sha256(self.path, name) == manifest.files.get(name) for name in ROW_LIST_NAMES)

    def has_shards(self, manifest: Manifest) -> bool:
        """Return whether every shard of a manifest is here with its size."""
        sizes = file_sizes(self.path)
        return all(sizes.get(PurePosixPath(shard.file).name) == shard.bytes for shard in manifest.shards)

    @abstractmethod
    def open(self, *, overwrite: bool) -> AbstractContextManager[Output[P]]:
        """Lock the directory and prepare it for a run.

        Leftovers of interrupted runs are removed at the start, and those of this run at the end. Staged units are
        removed after success; after a failure they stay, and the next run resumes from them.

        Args:
            overwrite: allow replacing another data set.

        Raises:
            OutputError: the directory holds another data set or foreign files, another run is writing to it, or it
                cannot be written.
        """

    @abstractmethod
    def finish_cleanup(self) -> None:
        """Remove what is left of a run that was killed after it had published its data set."""

    def check_free(self, *, overwrite: bool) -> None:
        """Check that a run may write here.

        Raises:
            OutputError: there is another data set (unless `overwrite`), or a file that no data set of ours owns and
                that would become part of one.
        """
        manifest = self.manifest()
        if manifest is not None and not overwrite:
            raise OutputError(
                f"output_dir {self.path}: holds another data set; choose another directory, or set overwrite=true"
            )
        foreign = next(self._foreign_files(manifest), None)
        if foreign is not None:
            raise OutputError(
                f"output_dir {self.path}: holds {foreign}, which sftkit did not write; choose an empty directory"
            )

    def _foreign_files(self, manifest: Manifest | None) -> Iterator[str]:
        """Yield the names of files that a run would replace, or make part of its data set, but no run has made."""
        journal = names_in_journal(self.staging)
        ours = set(journal or ())
        if journal is not None:
            ours.add(CARD_NAME)
        yield from self._foreign_folders()
        taken = [
            name
            for name in self._names()
            if name.endswith(".parquet") or "/" in name or name in (CARD_NAME, MANIFEST_NAME)
        ]
        yield from (name for name in taken if manifest is None and name not in ours)
        for name in ROW_LIST_NAMES:
            if is_foreign_row_list(self.path / name):
                yield name
            if is_foreign_row_list(self.staging / name):
                yield f"{STAGING_NAME}/{name}"
        if self._has_foreign_journal():
            yield f"{STAGING_NAME}/{JOURNAL_NAME}"

    def _has_foreign_journal(self) -> bool:
        """Return whether something has the name of the journal that no run has made."""
        return JOURNAL_NAME in file_sizes(self.staging) and names_in_journal(self.staging) is None

    def save_rows(self, name: str, rows: RowList) -> P:
        """Write the quarantined or dropped rows of a failing run and return the path of the file.

        It is written to `.staging` if there is a data set here, whose own lists are not touched.
        """
        folder = self.path if self.manifest() is None else self.staging
        target: P = folder / name
        write_row_list(target, rows, self.run)
        return target

    def publish(self, manifest: Manifest, lists: Mapping[str, RowList], used_keys: Collection[str] = ()) -> Manifest:
        """Turn the finished shards in `shard_folder` into the data set of the directory.

        Args:
            manifest: describes the shards.
            lists: the quarantined and the dropped rows, by the names of their files.
            used_keys: the keys of the staged units that the shards were made from.

        Returns:
            The manifest as written, which also lists the files beside the shards.

        Raises:
            OutputError: another run has taken over the directory, whose files are not touched; or a file that no run
                has made has the name of a new shard.
        """
        names = _shard_names_in(manifest)
        interrupted: list[str] | None = names_in_journal(self.staging)
        ours = [*([] if interrupted is None else [*interrupted, CARD_NAME]), *_shard_names_in(self.manifest())]
        journal = list(dict.fromkeys(chain(names, self._existing(ours))))
        self._check_lock()
        foreign = next((name for name in self._names() if name in set(names) - set(ours)), None)
        if foreign is not None:
            raise OutputError(f"output_dir {self.path}: holds {foreign}, which sftkit did not write; move it")
        write_text(self.staging / JOURNAL_NAME, json.dumps(journal), self.run)
        remove(self.path / MANIFEST_NAME)
        self._remove_shards(journal)
        self._move_into_place(names)
        complete = replace(manifest, files=write_side_files(self.path, manifest, lists, self.run))
        self._check_lock()
        write_text(self.path / MANIFEST_NAME, complete.to_json(), self.run)
        self._used_keys = frozenset(used_keys)
        return complete

    def publish_beside(
        self, manifest: Manifest, lists: Mapping[str, RowList], used_keys: Collection[str] = ()
    ) -> Manifest:
        """Add the finished shards in `shard_folder` to the data set of the directory.

        Args:
            manifest: describes the data set with the new shards.
            lists: all its quarantined and dropped rows, by the names of their files.
            used_keys: the keys of the staged units that the new shards were made from.

        Raises:
            OutputError: another run has taken over the directory, or a file has the name of a new shard.
        """
        old: set[str] = set(_shard_names_in(self.manifest()))
        names: list[str] = [name for name in _shard_names_in(manifest) if name not in old]
        interrupted: list[str] = names_in_journal(self.staging) or []
        self._check_lock()
        foreign = next((name for name in self._names() if name in set(names) - set(interrupted)), None)
        if foreign is not None:
            raise OutputError(f"output_dir {self.path}: holds {foreign}, which sftkit did not write; move it")
        journal = list(dict.fromkeys([*names, *(name for name in interrupted if name not in old)]))
        write_text(self.staging / JOURNAL_NAME, json.dumps(journal), self.run)
        self._remove_shards(self._existing(journal))
        self._move_into_place(names)
        complete = replace(manifest, files=write_side_files(self.path, manifest, lists, self.run))
        self._check_lock()
        write_text(self.path / MANIFEST_NAME, complete.to_json(), self.run)
        self._used_keys = frozenset(used_keys)
        return complete

    def _remove_unlisted(self) -> None:
        """Remove shards in the journal that the manifest does not list: an interrupted addition has left them."""
        manifest = self.manifest()
        if manifest is None:
            return
        listed = set(_shard_names_in(manifest))
        left = [name for name in names_in_journal(self.staging) or [] if name not in listed]
        self._remove_shards(self._existing(left))

    @abstractmethod
    def _is_in_staging(self, path: AnyPath) -> bool:
        """Return whether a path is `.staging` or below it."""

    def _foreign_folders(self) -> Iterator[str]:
        """Yield the names of the run's folders that something else has: a file, or a link to another place."""
        yield from ()

    def _remove_shards(self, names: Sequence[str]) -> None:
        """Remove files of shards; missing ones are ignored."""
        remove(*(self.path / name for name in names))

    @abstractmethod
    def _names(self) -> Sequence[str]:
        """Return the names of the files in the directory itself, and of those in the run's folders, with slashes."""

    @abstractmethod
    def _existing(self, names: Sequence[str]) -> Sequence[str]:
        """Return those of the names that have to be removed to free them: where files exist, or may exist."""

    @abstractmethod
    def _check_lock(self) -> None:
        """Raise `OutputError` when another run has taken over the lock."""

    @abstractmethod
    def _move_into_place(self, names: Sequence[str]) -> None:
        """Move or copy shards of these names from `shard_folder` to the directory."""

    def _log_remaining_units(self) -> None:
        try:
            count = self.units.count() if self._stages_here else 0
        except OSError:
            return  # the error that ended the run is already reported
        if count:
            what, them = ("unit stays", "it") if count == 1 else ("units stay", "them")
            _log.warning("%d tokenized %s in %s: the same command resumes from %s", count, what, self.units.path, them)


def _shard_names_in(manifest: Manifest | None) -> list[str]:
    """Return the names of shards in a manifest, which may be a stranger's; all lead to files in its directory."""
    if manifest is None:
        return []
    return names_of_shards([*(shard.file for shard in manifest.shards), *(file.file for file in manifest.format_files)])


def is_foreign_row_list(place: AnyPath) -> bool:
    """Return whether something has the name of a list of removed rows and is none."""
    if isinstance(place, Path) and not place.is_file():
        return os.path.lexists(place)
    try:
        return not is_row_list(place)
    except FileNotFoundError:
        return False
    except OSError:
        return True
