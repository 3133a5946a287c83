"""An output directory below a URL. Nothing can be renamed there: the store copies shards to their names."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from sftkit.errors import OutputError
from sftkit.shards.manifest import Manifest
from sftkit.shards.output.base_output import LOCK_NAME, Output
from sftkit.shards.staging.unit_store import is_unit_file
from sftkit.storage.dataset_files import JOURNAL_NAME
from sftkit.storage.files import copy, file_sizes, file_sizes_recursive, make_directory, remove
from sftkit.storage.lease_lock import Lease, hold_lease
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.retry import error_reason

_COPIES = 16  # at the same time; the store does the work


class RemoteOutput(Output[RemotePath]):
    """The place below a URL that a run writes its data set to."""

    _lease: Lease | None = None

    def contains(self, manifest: Manifest) -> bool:
        """As `Output.contains`; what the store says is told in a sentence."""
        with self._told():
            return super().contains(manifest)

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[RemoteOutput]:
        """As `Output.open`; the lock has to be held on to."""
        with self._told(), hold_lease(self.staging / LOCK_NAME, self.path) as self._lease:
            self.check_free(overwrite=overwrite)
            self._clear_unfinished(file_sizes_recursive(self.staging))
            make_directory(self.units.path)
            try:
                yield self
            except BaseException:
                self._tell_what_stays()
                raise
            else:
                self._clear_finished()
            finally:
                self.units.remove_unfinished()
                with suppress(OSError):  # the next run does it, and what made this one fail is to be told
                    mine = f"{self.shard_folder.name}/"
                    self._clear_unfinished(
                        [name for name in file_sizes_recursive(self.staging) if name.startswith(mine)]
                    )

    def finish_cleanup(self) -> None:
        """Finish what a run left to do that was killed when its data set was complete."""
        with self._told():
            if JOURNAL_NAME in file_sizes(self.staging):
                with hold_lease(self.staging / LOCK_NAME, self.path):
                    self._clear_finished()

    def _is_ours(self, place: AnyPath) -> bool:
        return str(place) == str(self.staging) or str(place).startswith(f"{self.staging}/")

    def _names(self) -> Sequence[str]:
        return list(file_sizes(self.path))

    def _files_among(self, names: Sequence[str]) -> Sequence[str]:
        return names

    def _check_ours(self) -> None:
        assert self._lease is not None, "published while it is open"
        self._lease.check()

    def _put_into_place(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(lambda name: copy(self.shard_folder / name, self.path / name), names))

    def _clear_unfinished(self, names: Iterable[str]) -> None:
        """Leave nothing but staged units, the lock and the journal, of some names below `.staging`."""
        kept = (LOCK_NAME, JOURNAL_NAME)
        remove(*(self.staging / name for name in names if name not in kept and not is_unit_file(name)))

    def _clear_finished(self) -> None:
        """Remove the staged units that are not to be kept; the journal last, which says that this is to be done."""
        if not self._keeps_units:
            remove(*(self.staging / name for name in file_sizes(self.staging) if is_unit_file(name)))
        remove(self.staging / JOURNAL_NAME)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What a store says of a file below the path, as one sentence that names the key the path was given by."""
        try:
            yield
        except OSError as error:
            place, staging = str(error.filename or ""), self.units.path
            if place.startswith(str(self.path)):
                raise OutputError(f"output_dir {self.path}: cannot be read or written: {error_reason(error)}") from None
            if place.startswith(str(staging)):
                raise OutputError(f"staging_dir {staging}: cannot be read or written: {error_reason(error)}") from None
            if place and not place.startswith((tempfile.gettempdir(), "/proc/self/fd")):
                raise
            here = f"files for it are written to {tempfile.gettempdir()} first (TMPDIR)"
            raise OutputError(f"output_dir {self.path}: cannot be written: {error_reason(error)}; {here}") from None
