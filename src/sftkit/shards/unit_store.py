"""Staged units in a directory, each named by a key that says what it holds, so that any run can find and use them.

`unit-KEY.arrow` holds the rows. Beside it stands `unit-KEY.account.arrow`, which comes last: a unit is whole when its
account is there, is that of its key, and names the size and the sha256 of its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sftkit.shards.accounts import read_account, write_account
from sftkit.shards.files import UNFINISHED
from sftkit.shards.staging import StagedUnit, StagingWriter

_AT_ONCE = 4  # hashing leaves the interpreter free


@dataclass(frozen=True)
class UnitStore:
    """A directory of staged units. Several runs may use it at the same time, for equal keys stand for equal rows.

    run: part of the names of the files that this run has not finished.
    """

    path: Path
    run: str

    def writer(self, key: str) -> StagingWriter:
        """Writes the rows of a unit, to be kept when they are written."""
        return StagingWriter(self.path / f"unit-{key}.arrow", self.run)

    def keep(self, key: str, unit: StagedUnit) -> None:
        """Let a unit whose rows are written be found from now on."""
        write_account(self._account(key), key, unit, self.run)

    def find(self, keys: Collection[str]) -> dict[str, StagedUnit]:
        """The units that are here and whole, by key."""
        wanted = sorted(set(keys))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            units = pool.map(self._find, wanted)
            return {key: unit for key, unit in zip(wanted, units, strict=True) if unit is not None}

    def count(self) -> int:
        """How many units with rows are here."""
        return sum(1 for path in self.path.glob("unit-*.arrow") if ".account" not in path.suffixes)

    def forget(self, keys: Sequence[str]) -> None:
        """Let units be found no more."""
        for key in keys:
            self._account(key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what this run left unfinished."""
        for path in self.path.glob(f".unit-*.{self.run}{UNFINISHED}"):
            path.unlink(missing_ok=True)

    def _find(self, key: str) -> StagedUnit | None:
        return read_account(self._account(key), key, self.path / f"unit-{key}.arrow")

    def _account(self, key: str) -> Path:
        return self.path / f"unit-{key}.account.arrow"
