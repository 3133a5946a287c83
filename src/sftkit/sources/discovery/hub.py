"""Hub data sets, local folders with the layout of one, and builders of `datasets`.

`datasets` finds the files of a data set. If they are plain JSON, Parquet, Arrow or CSV, they are read directly, because
reading them through `datasets` would add null keys to nested objects. Otherwise `datasets` prepares the data set, and
its Arrow cache is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sftkit.config.fields import did_you_mean
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.core.error_text import single_line
from sftkit.errors import SourceError
from sftkit.sources.format_registry import format_from_name
from sftkit.sources.source_file import SourceFile
from sftkit.storage.paths import is_url
from sftkit.storage.read_only_protocols import READ_ONLY_PROTOCOLS, protocols_of

_DIRECT_BUILDERS = frozenset({"json", "parquet", "arrow", "csv"})
"""Builders of `datasets` whose files the source formats here read to the same rows."""
_MAX_REASON = 600
_UNSAFE_BUILDERS = frozenset({"pandas"})


def find_hub_files(dataset: DatasetConfig, path: str, builder: str | None = None) -> list[SourceFile]:
    """Find the files of one split of a Hub data set, repository folder or builder.

    Raises:
        SourceError: `datasets` cannot load the data set, or it has no such split.
    """
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if builder in _UNSAFE_BUILDERS:
        raise SourceError(f"{path}: builder {builder!r} reads pickles, which run code; give the data as Parquet")
    if builder is not None and builder not in _PACKAGED_DATASETS_MODULES:  # it would be looked for on the Hub
        raise SourceError(f"{path}: unknown builder {builder!r}{did_you_mean(builder, _PACKAGED_DATASETS_MODULES)}")
    datasets.disable_progress_bars()
    split = dataset.dataset_split_name or "train"
    try:
        if builder is not None:
            loader = datasets.load_dataset_builder(builder, name=dataset.subset, data_files=path)
        else:
            loader = datasets.load_dataset_builder(path, name=dataset.subset)
        _check_places(loader)
        direct = _direct_files(loader, split)
        if direct is not None:
            return [_source_file(dataset.name, file) for file in direct]
        splits = list(loader.info.splits or {})
        loader.download_and_prepare()
        loaded = loader.as_dataset(split=split)
    except Exception as error:  # `datasets` raises errors of many types, depending on the repository and the network
        missing = "" if Path(path).exists() or builder else "no such file or directory, and "
        reason = single_line(error).partition(" Example of usage:")[0].rstrip(".")
        remedy = "; set subset" if "onfig name is missing" in reason else ""
        raise SourceError(
            f"{path}: {missing}`datasets` cannot load split {split!r} of it: {reason[:_MAX_REASON]}{remedy}"
        ) from None
    if not loaded.cache_files:
        raise SourceError(f"{path}: split {split!r} has no rows (splits: {', '.join(splits) or 'unknown'})")
    return [_arrow_file(dataset.name, entry["filename"]) for entry in loaded.cache_files]


def _check_places(loader: Any) -> None:
    """Raise `ValueError` if the card of a data set names files that a data config could not name."""
    data_files = getattr(loader.config, "data_files", None) or {}
    for file in (str(file) for files in data_files.values() for file in files):
        wrong = next((name for name in protocols_of(file) if name not in READ_ONLY_PROTOCOLS), None)
        if wrong is not None:
            raise ValueError(f"its card names files of the protocol {wrong!r}; only {', '.join(READ_ONLY_PROTOCOLS)}")


def _direct_files(builder: Any, split: str) -> list[str] | None:
    """Return the data files of a split if a source format reads them to the rows of `datasets`, else None."""
    module = type(builder).__module__
    data_files = getattr(builder.config, "data_files", None)
    if not module.startswith("datasets.packaged_modules.") or not data_files:
        return None
    kind = module.split(".")[2]
    if kind not in _DIRECT_BUILDERS or _has_reading_options(builder.config):
        return None
    if split not in data_files:
        raise ValueError(f"it has the splits {', '.join(map(str, data_files))}")
    files = [str(file) for file in data_files[split]]
    return files if all(format_from_name(file)[0] is not None for file in files) else None


def _has_reading_options(config: Any) -> bool:
    """Whether a builder has options that change its rows: a JSON field, a delimiter or selected columns."""
    return (
        getattr(config, "field", None) is not None
        or getattr(config, "columns", None) is not None
        or getattr(config, "sep", ",") not in (",", None)
        or getattr(config, "delimiter", None) not in (",", None)
        or getattr(config, "skiprows", None) is not None
    )


def _source_file(dataset: str, path: str) -> SourceFile:
    kind, compression = format_from_name(path)
    assert kind is not None
    if is_url(path):
        import fsspec

        system, inner = fsspec.url_to_fs(path)
        size = int(system.info(inner)["size"] or 0)
    else:
        size = Path(path).stat().st_size
    return SourceFile(dataset, path, kind, compression, size)


def _arrow_file(dataset: str, path: str) -> SourceFile:
    return SourceFile(dataset, path, "arrow", None, Path(path).stat().st_size)
