"""Staged units in a directory, each named by a key that says what it holds, so that any run can find and use them.

`unit-KEY.arrow` holds the rows. Beside it stands `unit-KEY.account.arrow`, which comes last: a unit is whole when its
account is there, is that of its key, and names the size and the sha256 of its rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sftkit.shards.staging.staged_unit import StagedUnit, UnitFile
from sftkit.shards.staging.unit_record import read_record, record_path, write_record
from sftkit.shards.staging.unit_writer import UnitWriter
from sftkit.storage.files import TEMPORARY_SUFFIX, file_sizes, remove
from sftkit.storage.paths import AnyPath

_AT_ONCE = 4  # hashing leaves the interpreter free


@dataclass(frozen=True)
class UnitStore:
    """A directory of staged units. Several runs may use it at the same time, for equal keys stand for equal rows.

    run: part of the names of the files that this run has not finished.
    """

    path: AnyPath
    run: str

    def writer(self, key: str) -> UnitWriter:
        """Writes the rows of a unit, to be kept when they are written."""
        return UnitWriter(self.path / f"unit-{key}.arrow", self._own())

    def commit(self, key: str, unit: StagedUnit, written: UnitFile | None) -> None:
        """Let a unit whose rows are written be found from now on."""
        write_record(self._account(key), key, unit, written, self._own())

    def existing_keys(self, keys: Collection[str]) -> list[str]:
        """The keys of units that seem to be here; whether they are whole is not looked at."""
        there = file_sizes(self.path)
        return sorted(key for key in set(keys) if self._account(key).name in there)

    def load(self, keys: Sequence[str]) -> dict[str, StagedUnit]:
        """The units among these that are here and whole, by key: their files are hashed."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            units = pool.map(self._find, keys)
            return {key: unit for key, unit in zip(keys, units, strict=True) if unit is not None}

    def count(self) -> int:
        """How many units with rows are here."""
        return sum(1 for name in file_sizes(self.path) if is_unit_file(name) and ".account" not in name)

    def invalidate(self, keys: Sequence[str]) -> None:
        """Let units be found no more."""
        remove(*(self._account(key) for key in keys))

    def remove_unfinished(self) -> None:
        """Remove what this run left unfinished; in an object store there is nothing that is."""
        for path in self.path.glob(f".unit-*.{self.run}{TEMPORARY_SUFFIX}") if isinstance(self.path, Path) else ():
            path.unlink(missing_ok=True)

    def _own(self) -> str:
        """Sets the name of an unfinished file apart from those of other runs, and of the same unit run elsewhere."""
        return f"{uuid.uuid4().hex[:8]}.{self.run}"

    def _find(self, key: str) -> StagedUnit | None:
        return read_record(key, self.path / f"unit-{key}.arrow")

    def _account(self, key: str) -> AnyPath:
        return record_path(self.path / f"unit-{key}.arrow")


def is_unit_file(name: str) -> bool:
    """Whether a file has the name of a staged unit, or of its account."""
    return name.startswith("unit-") and name.endswith(".arrow")
