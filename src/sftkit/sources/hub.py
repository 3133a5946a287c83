"""Hub data sets, local folders laid out like them, and builders of `datasets`: resolved by `datasets` itself.

Where a data set is plain JSON, Parquet, Arrow or CSV, its files are read directly: its rows then never pass through
an Arrow struct, which would plant null keys. Anything else is prepared by `datasets`, and its Arrow cache is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sftkit.config.schema import DatasetConfig
from sftkit.core.error_text import first_line
from sftkit.errors import SourceError
from sftkit.sources.format_registry import BUILDERS, format_from_name
from sftkit.sources.source_file import SourceFile
from sftkit.storage.paths import is_url

_UNSAFE_BUILDERS = frozenset({"pandas"})


def find_hub_files(dataset: DatasetConfig, path: str, builder: str | None = None) -> list[SourceFile]:
    """The files that hold one split of a Hub data set, repository folder or builder.

    Raises:
        SourceError: `datasets` cannot load it, or it has no such split.
    """
    import datasets

    if builder in _UNSAFE_BUILDERS:
        raise SourceError(f"{path}: builder {builder!r} reads pickles, which run code; give the data as Parquet")
    datasets.disable_progress_bars()
    wanted = dataset.dataset_split_name or "train"
    try:
        if builder is not None:
            made = datasets.load_dataset_builder(builder, name=dataset.subset, data_files=path)
        else:
            made = datasets.load_dataset_builder(path, name=dataset.subset)
        direct = _direct_files(made, wanted)
        if direct is not None:
            return [_source_file(dataset.name, file, made) for file in direct]
        splits = list(made.info.splits or {})
        made.download_and_prepare()
        loaded = made.as_dataset(split=wanted)
    except Exception as error:  # `datasets` raises whatever a repository, a network or a script provokes
        reason = first_line(error)
        here = "" if Path(path).exists() or builder else "no such file or directory, and "
        raise SourceError(f"{path}: {here}`datasets` cannot load split {wanted!r} of it: {reason}") from None
    if not loaded.cache_files:
        raise SourceError(f"{path}: split {wanted!r} has no rows (splits: {', '.join(splits) or 'unknown'})")
    return [_arrow_file(dataset.name, entry["filename"]) for entry in loaded.cache_files]


def _direct_files(builder: Any, split: str) -> list[str] | None:
    """Data files of the split when a plain reader of ours understands them as `datasets` would, else None."""
    module = type(builder).__module__
    data_files = getattr(builder.config, "data_files", None)
    if not module.startswith("datasets.packaged_modules.") or not data_files:
        return None
    kind = module.split(".")[2]
    if kind not in BUILDERS or _has_reading_options(builder.config):
        return None
    if split not in data_files:
        raise ValueError(f"it has the splits {', '.join(map(str, data_files))}")
    files = [str(file) for file in data_files[split]]
    return files if all(format_from_name(file)[0] is not None for file in files) else None


def _has_reading_options(config: Any) -> bool:
    """Options that change what a row is: a JSON field, another delimiter, chosen columns."""
    return (
        getattr(config, "field", None) is not None
        or getattr(config, "columns", None) is not None
        or getattr(config, "sep", ",") not in (",", None)
        or getattr(config, "delimiter", None) not in (",", None)
        or getattr(config, "skiprows", None) is not None
    )


def _source_file(dataset: str, path: str, builder: Any) -> SourceFile:
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
