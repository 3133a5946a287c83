"""`sftkit.inspect_shards`, and what the command calls with its config."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from sftkit.api.use_cases import ConfigFiles, StrPath
from sftkit.config.commands import InspectConfig
from sftkit.config.reading.python_values import load_values
from sftkit.core.panics import panics_as_errors
from sftkit.core.progress import Progress
from sftkit.errors import UsageError

if TYPE_CHECKING:
    from sftkit.inspection.compare.comparison import Comparison
    from sftkit.inspection.report import Report
    from sftkit.inspection.verify.outcome import Verification
    from sftkit.shards.reading import ShardSet


@overload
def inspect_shards(
    directory: StrPath | None = None,
    *,
    verify: Literal[True],
    config: InspectConfig | ConfigFiles | None = None,
    progress: Progress | None = None,
    **keys: Any,
) -> Verification: ...


@overload
def inspect_shards(
    directory: StrPath | None = None,
    *,
    compare: StrPath,
    config: InspectConfig | ConfigFiles | None = None,
    progress: Progress | None = None,
    **keys: Any,
) -> Comparison: ...


@overload
def inspect_shards(
    directory: StrPath | None = None,
    *,
    config: None = None,
    progress: Progress | None = None,
    **keys: Any,
) -> Report: ...


@overload
def inspect_shards(
    directory: StrPath | None = None,
    *,
    config: InspectConfig | ConfigFiles,
    progress: Progress | None = None,
    **keys: Any,
) -> Report | Verification | Comparison: ...


def inspect_shards(
    directory: StrPath | None = None,
    *,
    config: InspectConfig | ConfigFiles | None = None,
    progress: Progress | None = None,
    **keys: Any,
) -> Report | Verification | Comparison:
    """Count, show, audit, verify or compare shards, or preview raw data; the same as `sftkit inspect-shards`.

    Args:
        directory: a directory of shards or one file. Leave it out to preview a data config.
        config: a config object, or the path of a config file, or several paths; later files win.
        progress: receives the progress of an audit or a verification; without it nothing is shown.
        **keys: keys of `sftkit inspect-shards` and their values, which win over `config`.

    Returns:
        A report with counts, the rows that were asked for and, with `audit=True`, the findings. With `verify=True`, a
        verification: what agrees with the manifest and what differs. With `compare="other"`, a comparison.

    Raises:
        ConfigError: keys or values are wrong or exclude each other; all of them are named.
        SourceError: a file cannot be read, has no columns that are known, or what is asked for does not exist.
        DataError: shards that the manifest names are missing.
        TokenizerError: the tokenizer cannot be loaded, or a search needs one and there is none.
        OutputError: the manifest cannot be read, or the page of `report` cannot be written; in the latter case, the
            error has the result as `found`.

    Example:
        >>> import sftkit
        >>> report = sftkit.inspect_shards("shards", rows=2)
        >>> [(split.name, split.rows) for split in report.summary.splits]
        [('train', 600), ('validation', 40)]
        >>> sftkit.inspect_shards("shards", verify=True).differences
        ()
    """
    given = keys if directory is None else {"directory": directory, **keys}
    return run_inspect(load_values(InspectConfig, config, given), progress)


@panics_as_errors()
def run_inspect(settings: InspectConfig, progress: Progress | None = None) -> Report | Verification | Comparison:
    """Do what `inspect_shards` does with a config that is complete."""
    from sftkit.inspection.compare.compare_datasets import check_compare_options, compare_datasets
    from sftkit.inspection.verify.verify_dataset import verify
    from sftkit.preprocessing.preview import preview_shards
    from sftkit.shards.reading import open_shards
    from sftkit.tokenization.loading.tokenizer_loading import check_tokenizer_name

    check_tokenizer_name(settings)
    check_compare_options(settings)
    if settings.report is not None:
        from sftkit.inspection.page.page_file import check_page_path

        check_page_path(settings)
    if settings.compare is not None:
        if settings.report is None:
            return compare_datasets(settings, progress)
        from sftkit.inspection.page.comparison.write_comparison import compare_with_page

        return compare_with_page(settings, progress)
    if settings.verify:
        return verify(settings, progress)
    is_raw = bool(settings.datasets or settings.training_data_path or settings.validation_data_path)
    if is_raw == bool(settings.directory):
        raise UsageError("give either a directory of shards, or a data config (data_config_path) to preview, not both")
    if settings.directory:
        return _inspect(settings, open_shards(settings.directory, settings.storage_options), progress)
    with tempfile.TemporaryDirectory(prefix="sftkit-preview-") as scratch:
        return _inspect(settings, preview_shards(settings, Path(scratch)), progress)


def _inspect(settings: InspectConfig, shards: ShardSet, progress: Progress | None) -> Report:
    """Inspect shards, and write the HTML report if one is asked for."""
    from sftkit.inspection.report import inspect_shards as inspect

    report = inspect(settings, shards, progress)
    if settings.report is not None:
        from sftkit.inspection.page.write_page import write_page

        write_page(settings, shards, report)
    return report
