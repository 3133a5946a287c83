"""Where a run writes its data set, whatever kind of place that is: what is there before, and how it becomes a data set.

Everything is written below `.staging` and put into place when it is whole; the manifest comes last. What is being put
into place is written down first, so that after a kill in the middle the next run knows these files as its own, and
readers refuse them.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from sftkit.core.row_log import BadRow
from sftkit.errors import OutputError
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.shards.output.side_files import quarantine_sha256, write_quarantine, write_side_files
from sftkit.shards.staging.unit_store import UnitStore
from sftkit.storage.dataset_files import CARD_NAME, JOURNAL_NAME, MANIFEST_NAME, QUARANTINE_NAME, STAGING_NAME
from sftkit.storage.files import file_sizes, read_bytes, remove, write_text
from sftkit.storage.paths import AnyPath, RemotePath

_log = logging.getLogger(__name__)

P = TypeVar("P", Path, RemotePath)

LOCK_NAME = "lock"


class Output(ABC, Generic[P]):
    """The place of a data set.

    staging_dir: where staged units stand; nothing of what is whole there is ever removed. Without it they stand in
    `.staging`, where keep_staging keeps them after a run. shard_folder: where the shards of a run stand until all are
    written; each run has its own, for a worker may outlive for a moment the run that it worked for.
    """

    def __init__(self, path: P, staging_dir: AnyPath | None = None, *, keep_staging: bool = False) -> None:
        run = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.path: P = path
        self.staging: P = path / STAGING_NAME
        self.units = UnitStore(staging_dir or self.staging, run)
        self.shard_folder: P = self.staging / f"run-{run}"
        self._stages_here = self._is_ours(self.units.path)
        self._keeps_units = keep_staging or (staging_dir is not None and self._stages_here)

    def manifest(self) -> Manifest | None:
        """The manifest of the data set that is here, or None."""
        return read_manifest(self.path)

    def contains(self, manifest: Manifest) -> bool:
        """Whether every shard of a manifest is here, as long as it should be, and its quarantine."""
        there = file_sizes(self.path)
        whole = all(there.get(PurePosixPath(shard.file).name) == shard.bytes for shard in manifest.shards)
        return whole and quarantine_sha256(self.path) == manifest.files.get(QUARANTINE_NAME)

    @abstractmethod
    def open(self, *, overwrite: bool) -> AbstractContextManager[Output[P]]:
        """Prepare for a run, and keep other runs out.

        What a run leaves unfinished is cleared away. Staged units go once the run is done; if it fails, or is ended,
        they stay for the next one, which goes on from them.

        Raises:
            OutputError: it holds another data set, another run is writing here, or it cannot be written.
        """

    @abstractmethod
    def finish_cleanup(self) -> None:
        """Finish what a run left to do that was killed when its data set was complete."""

    def check_free(self, *, overwrite: bool) -> None:
        """Raise `OutputError` when writing here would mix with, or take the place of, what is here already."""
        if self.manifest() is not None:
            if not overwrite:
                raise OutputError(
                    f"output_dir {self.path}: holds another data set; choose another directory, or say overwrite=true"
                )
            return
        ours = _half_published(self.staging)
        in_the_way = (name for name in self._names() if name.endswith(".parquet") or name == CARD_NAME)
        foreign = next((name for name in in_the_way if name not in ours), None)
        if foreign is not None:
            raise OutputError(
                f"output_dir {self.path}: holds {foreign}, which is not of sftkit; choose an empty directory"
            )

    def save_bad_rows(self, bad: Collection[tuple[str, BadRow]]) -> P:
        """Write the quarantined rows of a run that fails to a file, whose path is given back; the quarantine of a data
        set that is here is left alone.
        """
        folder = self.path if self.manifest() is None else self.staging
        place: P = folder / QUARANTINE_NAME
        write_quarantine(place, bad)
        return place

    def publish(self, manifest: Manifest, bad: Collection[tuple[str, BadRow]]) -> Manifest:
        """Put the finished shards into place and write the manifest, which makes them a data set. The manifest that
        was written is given back: it names the files beside the shards, too.

        Raises:
            OutputError: another run has taken over meanwhile; what it made is left alone.
        """
        names = _shard_names(manifest)
        others = self._files_among([*_half_published(self.staging), *_shard_names(self.manifest())])
        journal = list(dict.fromkeys(chain(names, others)))
        self._check_ours()
        write_text(self.staging / JOURNAL_NAME, json.dumps(journal))
        remove(self.path / MANIFEST_NAME)
        remove(*(self.path / name for name in journal))
        self._put_into_place(names)
        complete = replace(manifest, files=write_side_files(self.path, manifest, bad))
        self._check_ours()
        write_text(self.path / MANIFEST_NAME, complete.to_json())
        return complete

    @abstractmethod
    def _is_ours(self, place: AnyPath) -> bool:
        """Whether a place is `.staging`, or below it."""

    @abstractmethod
    def _names(self) -> Sequence[str]:
        """Names of what is right here."""

    @abstractmethod
    def _files_among(self, names: Sequence[str]) -> Sequence[str]:
        """Those of some names that files have here, as far as this has to be known to remove them."""

    @abstractmethod
    def _check_ours(self) -> None:
        """Raise `OutputError` when another run has taken over."""

    @abstractmethod
    def _put_into_place(self, names: Sequence[str]) -> None:
        """Let the shards of these names, which stand in the shard folder, stand here."""

    def _tell_what_stays(self) -> None:
        try:
            staged = self.units.count() if self._stages_here else 0
        except OSError:
            return  # what made the run fail is told already
        if staged:
            what, them = ("unit stays", "it") if staged == 1 else ("units stay", "them")
            place = self.units.path
            _log.warning("%d tokenized %s in %s: the same command goes on from %s", staged, what, place, them)


def _shard_names(manifest: Manifest | None) -> list[str]:
    return _plain(shard.file for shard in manifest.shards) if manifest is not None else []


def _half_published(staging: AnyPath) -> list[str]:
    """Names of the files that a run was putting into place, or was to take away, when it was killed."""
    try:
        names = json.loads(read_bytes(staging / JOURNAL_NAME))
    except (OSError, ValueError, RecursionError):
        return []
    return _plain([*names, CARD_NAME]) if isinstance(names, list) else []


def _plain(names: Iterable[object]) -> list[str]:
    """Some names, which may be anybody's, as names of files right here."""
    plain = (PurePosixPath(name).name for name in names if isinstance(name, str))
    return [name for name in plain if name not in ("", "..")]
