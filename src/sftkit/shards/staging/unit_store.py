"""A directory of staged units, found by their keys. The package docstring describes its files."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sftkit.shards.staging.staged_unit import StagedUnit, UnitFile
from sftkit.shards.staging.unit_record import read_record, record_path, write_record
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.storage.dataset_files import is_unit_file, template_date_in, template_date_name
from sftkit.storage.files import TEMPORARY_SUFFIX, file_sizes, remove, write_text
from sftkit.storage.paths import AnyPath

_THREADS = 4  # hashing releases the GIL


@dataclass(frozen=True)
class UnitStore:
    """A directory of staged units. Several runs may use it at the same time: equal keys mean equal rows."""

    path: AnyPath
    run: str
    """Part of the temporary file names of this run."""

    def writer(self, key: str) -> UnitWriter:
        """Return a writer for the rows of a unit; call `commit` once they are written."""
        return UnitWriter(self._rows_path(key), self._unique_name())

    def commit(self, key: str, unit: StagedUnit, file: UnitFile | None) -> None:
        """Write the record of a unit, which makes it available to this run and later ones.

        Args:
            key: the unit's key.
            unit: the unit, as returned by `UnitWriter.finish`.
            file: `UnitWriter.file`.
        """
        write_record(self._record_path(key), key, unit, file, self._unique_name())

    def existing_keys(self, keys: Collection[str]) -> list[str]:
        """Return those of the keys that have a record, sorted, without checking that the units are intact."""
        files = file_sizes(self.path)
        return sorted(key for key in set(keys) if self._record_path(key).name in files)

    def load(self, keys: Sequence[str]) -> dict[str, StagedUnit]:
        """Return the intact units of these keys. Their files are hashed; damaged units are left out."""
        with ThreadPoolExecutor(_THREADS) as pool:
            units = pool.map(lambda key: read_record(key, self._rows_path(key)), keys)
            return {key: unit for key, unit in zip(keys, units, strict=True) if unit is not None}

    def count(self) -> int:
        """Return the number of units with rows."""
        return sum(1 for name in file_sizes(self.path) if is_unit_file(name) and ".account" not in name)

    def template_date(self, tokenizer: str) -> str | None:
        """Return the day (YYYY-MM-DD) that the chat template of a tokenizer is given for the units here, if known.

        Args:
            tokenizer: a hash of the tokenizer and its template, 32 hexadecimal digits.
        """
        return template_date_in(self._date_path(tokenizer))

    def keep_template_date(self, tokenizer: str, day: str) -> None:
        """Record the day for runs that continue this one, unless one is recorded."""
        if self.template_date(tokenizer) is None:
            write_text(self._date_path(tokenizer), day + "\n", self._unique_name())

    def invalidate(self, keys: Sequence[str]) -> None:
        """Remove the records of units, so that they are staged again."""
        remove(*(self._record_path(key) for key in keys))

    def remove_unfinished(self) -> None:
        """Remove the temporary files of this run. In an object store there are none."""
        for path in self.path.glob(f".unit-*.{self.run}{TEMPORARY_SUFFIX}") if isinstance(self.path, Path) else ():
            path.unlink(missing_ok=True)

    def _unique_name(self) -> str:
        """Return a part of temporary names that no other run has, nor another attempt at the same unit."""
        return f"{uuid.uuid4().hex[:8]}.{self.run}"

    def _rows_path(self, key: str) -> AnyPath:
        return self.path / f"unit-{key}.arrow"

    def _date_path(self, tokenizer: str) -> AnyPath:
        return self.path / template_date_name(tokenizer)

    def _record_path(self, key: str) -> AnyPath:
        return record_path(self._rows_path(key))
