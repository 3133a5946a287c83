"""Checks everything that the manifest of a directory says."""

from __future__ import annotations

from pathlib import Path

from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress, SilentProgress
from sftkit.errors import SourceError, UsageError
from sftkit.inspection.verify.outcome import Verification, combine
from sftkit.inspection.verify.verify_formats import verify_formats
from sftkit.inspection.verify.verify_manifest import verify_manifest
from sftkit.inspection.verify.verify_origin import verify_sources, verify_tokenizer, verify_versions
from sftkit.inspection.verify.verify_shards import verify_shards
from sftkit.shards.format_shards import find_manifest_above
from sftkit.shards.manifest import read_manifest
from sftkit.storage.dataset_files import MANIFEST_NAME
from sftkit.storage.files import file_size
from sftkit.storage.paths import parse_path

_EXCLUDED_OPTIONS = ("audit", "fail_on", "split", "shard", "row", "seed", "search")


def verify(config: InspectConfig, progress: Progress | None = None) -> Verification:
    """Verify the data set in `config.directory` against its manifest.

    Every shard is hashed and counted. The tokenizer is the one that the config names, or else the manifest's.

    Raises:
        UsageError: no directory is given, or options that select rows or ask for an audit are.
        SourceError: there is no directory, or no manifest in it.
        OutputError: the manifest is invalid.
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    options = {name: getattr(config, name) for name in _EXCLUDED_OPTIONS}
    excluded = [name for name, value in options.items() if value is not None and value is not False]
    if excluded:
        raise UsageError(f"verify checks a whole data set by its manifest: leave out {' and '.join(excluded)}")
    if config.directory is None:
        raise UsageError("verify needs a directory of shards with a manifest")
    root = parse_path(config.directory, config.storage_options)
    if file_size(root) >= 0:
        raise SourceError(f"{config.directory}: is a file; verify needs the directory that has the manifest")
    if isinstance(root, Path) and not root.is_dir():
        raise SourceError(f"{config.directory}: no such directory")
    manifest = read_manifest(root)
    if manifest is None:
        above = find_manifest_above(root)
        where = f"; it is in {above[0]}: verify that directory" if above is not None else " to verify against"
        raise SourceError(f"{config.directory}: has no {MANIFEST_NAME} of sftkit{where}")
    progress = progress or SilentProgress()
    outcome = combine(
        [
            verify_manifest(root, manifest),
            verify_shards(root, manifest, progress),
            verify_formats(root, manifest, progress),
            verify_sources(manifest, progress),
            verify_tokenizer(config, manifest),
            verify_versions(manifest),
        ]
    )
    return Verification(config.directory, outcome.verified, outcome.differences, outcome.notes)
