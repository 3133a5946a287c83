"""An output directory below a URL. Nothing can be renamed there: when all shards are written, below `.staging`, the
store copies them to their names, and the manifest, which comes last, makes a data set of them.

While they are copied a journal below `.staging` names them and there is no manifest: so readers refuse what is there,
and the next run knows the files of one that was killed as its own. A data set that gives way stays until then.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

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
from sftkit.shards.directory import LOCK_NAME
from sftkit.shards.lease import Lease, leased
from sftkit.shards.manifest import MANIFEST_NAME, Manifest, read_manifest
from sftkit.shards.unit_store import UnitStore, is_staged
from sftkit.storage.files import copy, make_folder, read_bytes, remove, sizes_below, sizes_in, write_text
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.retrying import reason_of

_log = logging.getLogger(__name__)

_COPIES = 16  # at the same time; the store does the work


class RemoteDirectory:
    """The place below a URL that a run writes its data set to; as `OutputDirectory` for local ones.

    staging_dir: where staged units stand; nothing of what is whole there is ever removed. Without it they stand in
    `.staging`, where keep_staging keeps them after a run.
    """

    def __init__(self, path: RemotePath, staging_dir: AnyPath | None = None, *, keep_staging: bool = False) -> None:
        self.path = path
        run = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.units = UnitStore(staging_dir or self.staging, run)
        self._unfinished = self.staging / f"run-{run}"
        self._keeps = keep_staging or staging_dir is not None
        self._lease: Lease | None = None

    @property
    def staging(self) -> RemotePath:
        """Where all stands that is no part of a data set."""
        return self.path / STAGING_NAME

    def manifest(self) -> Manifest | None:
        """The manifest of the data set that is here, or None."""
        return read_manifest(self.path)

    def holds(self, manifest: Manifest) -> bool:
        """Whether every shard of a manifest is here, as long as it should be, and its quarantine."""
        with self._told():
            there = sizes_in(self.path)
            shards = [shard for split in manifest.splits.values() for shard in split.shards]
            whole = all(there.get(shard.file) == shard.bytes for shard in shards)
            return whole and quarantine_sha256(self.path) == manifest.files.get(QUARANTINE_NAME)

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[RemoteDirectory]:
        """Prepare for a run, and keep other runs out.

        Raises:
            OutputError: it holds another data set, another run is writing here, or it cannot be written.
        """
        with self._told(), leased(self.staging / LOCK_NAME, self.path) as self._lease:
            self._check_free(overwrite=overwrite)
            self._clear_unfinished(sizes_below(self.staging))
            make_folder(self.units.path)
            try:
                yield self
            except BaseException:
                self._tell_what_stays()
                raise
            else:
                self._clear_finished()
            finally:
                self.units.sweep()
                with suppress(OSError):  # the next run does it, and what made this one fail is to be told
                    mine = f"{self._unfinished.name}/"
                    self._clear_unfinished([name for name in sizes_below(self.staging) if name.startswith(mine)])

    def tidy(self) -> None:
        """Finish what a run left to do that was killed when its data set was complete."""
        with self._told():
            if JOURNAL_NAME in sizes_in(self.staging):
                with leased(self.staging / LOCK_NAME, self.path):
                    self._clear_finished()

    @property
    def shard_folder(self) -> RemotePath:
        """Where the shards are written, to be copied into place when all of them are there; each run has its own."""
        return self._unfinished

    def tell_bad_rows(self, bad: Collection[tuple[str, BadRow]]) -> RemotePath:
        """Write the quarantined rows of a run that fails to a file, whose path is given back; the quarantine of a data
        set that is here is left alone.
        """
        folder = self.path if self.manifest() is None else self.staging
        write_quarantine(folder / QUARANTINE_NAME, bad)
        return folder / QUARANTINE_NAME

    def publish(self, manifest: Manifest, bad: Collection[tuple[str, BadRow]]) -> Manifest:
        """Copy the finished shards into place and write the manifest, which makes them a data set. The manifest that
        was written is given back: it names the files beside the shards, too.

        Raises:
            OutputError: another run has taken over meanwhile; what it made is left alone.
        """
        assert self._lease is not None, "published while it is open"
        names = [shard.file for split in manifest.splits.values() for shard in split.shards]
        old = self.manifest()
        withdrawn = [shard.file for split in old.splits.values() for shard in split.shards] if old is not None else []
        others = dict.fromkeys(name for name in (*self._half_published(), *withdrawn) if name not in names)
        self._lease.check()
        write_text(self.staging / JOURNAL_NAME, json.dumps([*names, *others]))
        remove(self.path / MANIFEST_NAME)
        remove(*(self.path / name for name in others))
        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(lambda name: copy(self._unfinished / name, self.path / name), names))
        complete = replace(manifest, files=write_beside(self.path, manifest, bad))
        self._lease.check()
        write_text(self.path / MANIFEST_NAME, complete.to_json())
        return complete

    def _check_free(self, *, overwrite: bool) -> None:
        """Raise `OutputError` when writing here would mix with, or take the place of, what is here already."""
        if self.manifest() is not None:
            if not overwrite:
                raise OutputError(
                    f"output_dir {self.path}: holds another data set; choose another directory, or say overwrite=true"
                )
            return
        ours = {*self._half_published(), CARD_NAME if self._half_published() else ""}
        there = [name for name in sizes_in(self.path) if name.endswith(".parquet") or name == CARD_NAME]
        foreign = next((name for name in there if name not in ours), None)
        if foreign is not None:
            raise OutputError(
                f"output_dir {self.path}: holds {foreign}, which is not of sftkit; choose an empty directory"
            )

    def _half_published(self) -> list[str]:
        """Names of shards that a run was writing here, or was to take away, when it was killed."""
        try:
            names = json.loads(read_bytes(self.staging / JOURNAL_NAME))
        except (FileNotFoundError, ValueError, RecursionError):
            return []
        return [name for name in names if isinstance(name, str) and "/" not in name] if isinstance(names, list) else []

    def _clear_unfinished(self, names: Iterable[str]) -> None:
        """Leave nothing but staged units, the lock and the journal, of some names below `.staging`."""
        kept = (LOCK_NAME, JOURNAL_NAME)
        remove(*(self.staging / name for name in names if name not in kept and not is_staged(name)))

    def _clear_finished(self) -> None:
        """Remove the staged units that are not to be kept; the journal last, which says that this is to be done."""
        if not self._keeps:
            remove(*(self.staging / name for name in sizes_in(self.staging) if is_staged(name)))
        remove(self.staging / JOURNAL_NAME)

    def _tell_what_stays(self) -> None:
        try:
            staged = self.units.count() if self.units.path == self.staging else 0
        except OSError:
            return  # what made the run fail is told already
        if staged:
            what, them = ("unit stays", "it") if staged == 1 else ("units stay", "them")
            place = self.units.path
            _log.warning("%d tokenized %s in %s: the same command goes on from %s", staged, what, place, them)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What a store says of a file below the path, as one sentence that names the key the path was given by."""
        try:
            yield
        except OSError as error:
            place, staging = str(error.filename or ""), self.units.path
            if place.startswith(str(self.path)):
                raise OutputError(f"output_dir {self.path}: cannot be read or written: {reason_of(error)}") from None
            if place.startswith(str(staging)):
                raise OutputError(f"staging_dir {staging}: cannot be read or written: {reason_of(error)}") from None
            if place and not place.startswith((tempfile.gettempdir(), "/proc/self/fd")):
                raise
            here = f"files for it are written to {tempfile.gettempdir()} first (TMPDIR)"
            raise OutputError(f"output_dir {self.path}: cannot be written: {reason_of(error)}; {here}") from None
