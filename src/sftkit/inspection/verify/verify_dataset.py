"""verify(config) -> Verification: everything that a manifest says, checked against what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress, SilentProgress
from sftkit.errors import SourceError, UsageError
from sftkit.inspection.verify.outcome import Difference, combined
from sftkit.inspection.verify.verify_manifest import verify_manifest
from sftkit.inspection.verify.verify_origin import verify_sources, verify_tokenizer, verify_versions
from sftkit.inspection.verify.verify_shards import verify_shards
from sftkit.shards.manifest import read_manifest
from sftkit.storage.dataset_files import MANIFEST_NAME
from sftkit.storage.files import file_size
from sftkit.storage.paths import parse_path

_OTHER_QUESTIONS = ("audit", "fail_on", "split", "shard", "row", "seed", "search")


@dataclass(frozen=True)
class Verification:
    """A data set against its manifest.

    verified: what is as it should be. differences: what is not. notes: what is no fault of the data set (sources that
    changed, other versions), or could not be checked.
    """

    location: str
    verified: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def verify(config: InspectConfig, progress: Progress | None = None) -> Verification:
    """Check everything that the manifest of a directory says.

    Every shard is hashed and counted; the tokenizer is the one that the config names, or else the manifest.

    Raises:
        UsageError: no directory is given, or with it a choice of rows, or the audit.
        SourceError: there is no directory, or no manifest in it.
        OutputError: the manifest cannot be read as one.
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    asked = {name: getattr(config, name) for name in _OTHER_QUESTIONS}
    besides = [name for name, value in asked.items() if value is not None and value is not False]
    if besides:
        raise UsageError(f"verify checks a whole data set by its manifest: leave out {' and '.join(besides)}")
    if config.directory is None:
        raise UsageError("verify needs a directory of shards, with their manifest")
    root = parse_path(config.directory, config.storage_options)
    if file_size(root) >= 0:
        raise SourceError(f"{config.directory}: a file; verify takes the directory of its manifest")
    if isinstance(root, Path) and not root.is_dir():
        raise SourceError(f"{config.directory}: no such directory")
    manifest = read_manifest(root)
    if manifest is None:
        raise SourceError(f"{config.directory}: holds no {MANIFEST_NAME} of sftkit, so there is nothing to verify by")
    shows = progress or SilentProgress()
    found = combined(
        [
            verify_manifest(root, manifest),
            verify_shards(root, manifest, shows),
            verify_sources(manifest, shows),
            verify_tokenizer(config, manifest),
            verify_versions(manifest),
        ]
    )
    return Verification(config.directory, found.right, found.differences, found.notes)
