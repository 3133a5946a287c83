"""Where a run writes its data set, whatever kind of place that is."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Protocol

from sftkit.rows import BadRow
from sftkit.shards.manifest import Manifest
from sftkit.shards.unit_store import UnitStore
from sftkit.storage.paths import AnyPath


class Output(Protocol):
    """The place of a data set: what it may hold before a run, and how it becomes a data set.

    The manifest comes last; what is there without one is no data set.
    """

    @property
    def path(self) -> AnyPath:
        """Where it is."""

    @property
    def units(self) -> UnitStore:
        """The staged units of the run."""

    def manifest(self) -> Manifest | None:
        """The manifest of the data set that is here, or None."""

    def holds(self, manifest: Manifest) -> bool:
        """Whether every shard of a manifest is here, as long as it should be, and its quarantine."""

    def open(self, *, overwrite: bool) -> AbstractContextManager[Output]:
        """Prepare for a run, and keep other runs out.

        Raises:
            OutputError: it holds another data set, another run is writing here, or it cannot be written.
        """

    def tidy(self) -> None:
        """Finish what a run left to do that was killed when its data set was complete."""

    @property
    def shard_folder(self) -> AnyPath:
        """Where the shards are to be written."""

    def tell_bad_rows(self, bad: Collection[tuple[str, BadRow]]) -> AnyPath:
        """Write the quarantined rows of a run that fails to a file, whose path is given back."""

    def publish(self, manifest: Manifest, bad: Collection[tuple[str, BadRow]]) -> Manifest:
        """Make a data set of the shards that were written. The manifest that was written is given back: it names the
        files beside the shards, too.
        """
