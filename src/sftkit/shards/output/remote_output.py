"""An output directory in an object store, which cannot rename: it copies shards into place by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import compress

from sftkit.errors import OutputError
from sftkit.shards.manifest import Manifest
from sftkit.shards.output.base_output import LOCK_NAME, Output, is_foreign_row_list
from sftkit.shards.output.leftovers import RUN_MARK, is_run_folder, is_shard_of_run, is_staged
from sftkit.storage.dataset_files import JOURNAL_NAME, ROW_LIST_NAMES, is_unit_file, template_date_in
from sftkit.storage.files import copy, file_sizes, file_sizes_recursive, make_directory, remove, write_bytes
from sftkit.storage.lease_lock import Lease, hold_lease
from sftkit.storage.paths import AnyPath, RemotePath
from sftkit.storage.retry import error_reason

_COPIES = 16  # concurrent; the store does the work


class RemoteOutput(Output[RemotePath]):
    """An output directory below a URL. The lock is a lease, which the run has to renew (`lease_lock`)."""

    _lease: Lease | None = None

    def contains(self, manifest: Manifest) -> bool:
        """As `Output.contains`; failures of the store are raised as `OutputError`."""
        with self._name_key_in_errors():
            return super().contains(manifest)

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[RemoteOutput]:
        """As `Output.open`."""
        with self._name_key_in_errors(), hold_lease(self.staging / LOCK_NAME, self.path) as self._lease:
            self.check_free(overwrite=overwrite)
            self._remove_unfinished(file_sizes_recursive(self.staging))
            make_directory(self.units.path)
            try:
                write_bytes(self.shard_folder / RUN_MARK, b"sftkit")
                yield self
            except BaseException:
                self._log_remaining_units()
                raise
            else:
                self._remove_used_units()
            finally:
                self.units.remove_unfinished()
                with suppress(OSError):  # the next run removes it; the error that ended this one is what matters
                    own = f"{self.shard_folder.name}/"
                    self._remove_unfinished(
                        [name for name in file_sizes_recursive(self.staging) if name.startswith(own)]
                    )

    def finish_cleanup(self) -> None:
        """As `Output.finish_cleanup`."""
        with self._name_key_in_errors():
            if JOURNAL_NAME in file_sizes(self.staging) and not self._has_foreign_journal():
                with hold_lease(self.staging / LOCK_NAME, self.path):
                    self._remove_used_units()

    def _is_in_staging(self, path: AnyPath) -> bool:
        return str(path) == str(self.staging) or str(path).startswith(f"{self.staging}/")

    def _names(self) -> Sequence[str]:
        below = (f"{folder}/{name}" for folder in self._folders for name in file_sizes_recursive(self.path / folder))
        return [*file_sizes(self.path), *below]

    def _existing(self, names: Sequence[str]) -> Sequence[str]:
        return names  # removing a missing file costs no more than looking for it

    def _check_lock(self) -> None:
        assert self._lease is not None, "publish is called while the output is open"
        self._lease.check()

    def _move_into_place(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(lambda name: copy(self.shard_folder / name, self.path / name), names))

    def _remove_unfinished(self, names: Iterable[str]) -> None:
        """Remove the shards of runs that have ended, given the names of files below `.staging`."""
        below = [(name, *name.split("/", 1)) for name in names if "/" in name]
        marked = {folder for _, folder, file in below if file == RUN_MARK and is_run_folder(folder)}
        shards = [name for name, folder, file in below if folder in marked and is_shard_of_run(file)]
        remove(*(self.staging / name for name in shards))
        remove(*(self.staging / folder / RUN_MARK for folder in sorted(marked)))

    def _remove_used_units(self) -> None:
        """Remove the staged units unless they are to be kept, and then the journal: it marks the cleanup as pending."""
        self._remove_unlisted()
        if not self._keeps_units:
            names = file_sizes(self.staging)
            units = [self.staging / name for name in names if is_unit_file(name)]
            dates = [self.staging / name for name in names if template_date_in(self.staging / name) is not None]
            with ThreadPoolExecutor(_COPIES) as pool:
                staged = list(pool.map(lambda path: is_staged(path, self._used_keys), units))
            lists = [self.staging / name for name in ROW_LIST_NAMES]
            remove(*compress(units, staged), *dates, *(place for place in lists if not is_foreign_row_list(place)))
        remove(self.staging / JOURNAL_NAME)

    @contextmanager
    def _name_key_in_errors(self) -> Iterator[None]:
        """Turn an `OSError` about a file of this run into an `OutputError` that names the config key of its path."""
        try:
            yield
        except OSError as error:
            file, staging = str(error.filename or ""), self.units.path
            if file.startswith(str(self.path)):
                raise OutputError(f"output_dir {self.path}: cannot be read or written: {error_reason(error)}") from None
            if file.startswith(str(staging)):
                raise OutputError(f"staging_dir {staging}: cannot be read or written: {error_reason(error)}") from None
            if file and not file.startswith((tempfile.gettempdir(), "/proc/self/fd")):
                raise
            hint = f"its files are first written to {tempfile.gettempdir()} (set TMPDIR to use another disk)"
            raise OutputError(f"output_dir {self.path}: cannot be written: {error_reason(error)}; {hint}") from None
