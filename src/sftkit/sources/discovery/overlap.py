"""Refuses to write to where the sources are, if it could not be known afterwards which files are sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sftkit.config.schema.shared_options import DataOptions
from sftkit.errors import ConfigError
from sftkit.sources.source_file import SourceFile
from sftkit.storage.dataset_files import CARD_NAME, MANIFEST_NAME, ROW_LIST_NAMES
from sftkit.storage.paths import RemotePath, is_url, parse_path


def check_directories_apart(output_dir: str, config: DataOptions) -> None:
    """Check that no data path is the output directory itself. Either may be below the other.

    Raises:
        ConfigError: one is: its next run could not tell sources from results.
    """
    named = [*config.training_data_path, *config.validation_data_path]
    data_paths = [*named, *(path for dataset in config.datasets for path in dataset.data_paths)]
    output = _real(output_dir, config.storage_options)
    if not is_url(output) and Path(output).is_file():
        return  # opening it as a directory will say what is wrong
    same = next((path for path in data_paths if _real(path, config.storage_options) == output), None)
    if same is not None:
        raise ConfigError(
            f"output_dir {output_dir}: is the source directory {same} itself; choose another, which may be below it"
        )


def check_sources_stay(output_dir: str, config: DataOptions, files: Iterable[SourceFile]) -> None:
    """Check that a run would not replace one of its sources.

    Raises:
        ConfigError: a source is directly in `output_dir`, under the name of a file of data sets.
    """
    output = _real(output_dir, config.storage_options)
    folders: dict[str, str] = {}
    for file in files:
        parent, name = _real_parent(file.path, folders)
        taken = (MANIFEST_NAME, CARD_NAME, *ROW_LIST_NAMES)
        if parent == output and (name.endswith(".parquet") or name in taken):
            raise ConfigError(
                f"output_dir {output_dir}: holds the source {file.path}, whose name could be that of a file of the "
                "data set; choose another directory"
            )


def _real(path: str, storage_options: Mapping[str, Any] | None) -> str:
    """Return a path without links and `..`, or a URL without a slash at its end."""
    place = parse_path(path, storage_options)
    return place.url if isinstance(place, RemotePath) else str(place.resolve())


def _real_parent(path: str, folders: dict[str, str]) -> tuple[str, str]:
    """Return directory and name of a file without links and `..`; `folders` keeps what is known of directories."""
    folder, _, name = path.rpartition("/")
    if is_url(path):
        return folder, name
    if Path(path).is_symlink():
        real = Path(path).resolve()
        return str(real.parent), real.name
    if folder not in folders:
        folders[folder] = str(Path(path).parent.resolve())
    return folders[folder], name
