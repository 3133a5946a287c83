"""An output directory: what it may hold before a run, what stands in it meanwhile, and how it becomes a data set.

Everything is written below `.staging` and moved into place when it is whole; the manifest comes last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sftkit.errors import OutputError
from sftkit.rows import BadRow
from sftkit.shards.card import dataset_card
from sftkit.shards.manifest import MANIFEST_NAME, Manifest, read_manifest

STAGING_NAME = ".staging"
QUARANTINE_NAME = "quarantine.jsonl"
CARD_NAME = "README.md"


class OutputDirectory:
    """The directory that a run writes its data set to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def staging(self) -> Path:
        """Where staged units and unfinished shards stand."""
        return self.path / STAGING_NAME

    def manifest(self) -> Manifest | None:
        """The manifest of the data set that the directory holds, or None."""
        return read_manifest(self.path)

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
        foreign = next((path for path in self._listing() if _is_in_the_way(path)), None)
        if foreign is not None:
            raise OutputError(
                f"output_dir {self.path}: holds {foreign.name}, which is not of sftkit; choose an empty directory"
            )

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[OutputDirectory]:
        """Prepare the directory for a run; unfinished work is cleared away, however the run ends.

        Raises:
            OutputError: it holds another data set, or cannot be written.
        """
        self.check_free(overwrite=overwrite)
        existed = self.path.is_dir()
        try:
            if self.staging.exists():
                shutil.rmtree(self.staging)
            self.staging.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"output_dir {self.path}: cannot be written: {error.strerror}") from None
        try:
            yield self
        except OSError as error:
            if error.filename is not None and not str(error.filename).startswith(str(self.path)):
                raise
            raise OutputError(f"output_dir {self.path}: cannot be written: {error.strerror or error}") from None
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
            if not existed and self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()

    def keep_quarantine(self, bad: Sequence[tuple[str, BadRow]]) -> None:
        """Write the quarantined rows, (path, row) each, one JSON object a line."""
        target = self.path / QUARANTINE_NAME
        target.unlink(missing_ok=True)
        if not bad:
            return
        with (
            _replacing(target) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream,
        ):
            for path, row in bad:
                entry = {"path": path, "row": row.number, "reason": row.reason, "content": row.content}
                stream.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def publish(self, manifest: Manifest, bad: Sequence[tuple[str, BadRow]]) -> None:
        """Move the finished shards into place and write the manifest, which makes them a data set."""
        self._withdraw()
        for split in manifest.splits.values():
            for shard in split.shards:
                (self.staging / shard.file).replace(self.path / shard.file)
        self.keep_quarantine(bad)
        with _replacing(self.path / CARD_NAME) as temporary:
            temporary.write_text(dataset_card(manifest), encoding="utf-8")
        with _replacing(self.path / MANIFEST_NAME) as temporary:
            temporary.write_text(manifest.to_json(), encoding="utf-8")

    def _withdraw(self) -> None:
        """Take away the data set that is here: its manifest first, so that it is never half a data set."""
        old = self.manifest()
        if old is None:
            return
        (self.path / MANIFEST_NAME).unlink()
        for split in old.splits.values():
            for shard in split.shards:
                (self.path / Path(shard.file).name).unlink(missing_ok=True)

    def _listing(self) -> list[Path]:
        try:
            return sorted(self.path.iterdir()) if self.path.is_dir() else []
        except OSError as error:
            raise OutputError(f"output_dir {self.path}: cannot be read: {error.strerror}") from None


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside the target that takes its place, complete and on disk, when the block is left."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _is_in_the_way(path: Path) -> bool:
    return path.suffix == ".parquet" or path.name == CARD_NAME
