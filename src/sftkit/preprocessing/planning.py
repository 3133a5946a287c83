"""Plans a run: finds, checks and fingerprints every input before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from sftkit.config.commands import PreprocessConfig
from sftkit.config.reading.merging import config_folders
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.mix_choices import with_stopping_strategy
from sftkit.config.schema.order_choice import read_row_order
from sftkit.config.validation import validate_config
from sftkit.core.accounting.removed_row import RemovedRow
from sftkit.core.progress import Stopwatch
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import UNREADABLE, RowLog
from sftkit.core.rows import INPUT_IDS, SEQ_LENGTHS, Batch
from sftkit.errors import ConfigError, DataError
from sftkit.execution.runner import Runner
from sftkit.handlers.registry import build_handlers, function_paths
from sftkit.handlers.user_function import check_trusted, code_digests
from sftkit.ordering.packing import check_packing
from sftkit.ordering.splitting import split_fractions
from sftkit.preprocessing.accounting.column_report import check_sample
from sftkit.preprocessing.pipeline.column_use import ColumnSample
from sftkit.preprocessing.pipeline.recipe import Recipe
from sftkit.preprocessing.pipeline.unit_pipeline import Pipeline
from sftkit.preprocessing.plan.evaluation_questions import check_texts, read_questions
from sftkit.preprocessing.plan.format_checks import check_formats
from sftkit.preprocessing.plan.infer_datasets import list_datasets, options_for_text_shards, with_inferred_handlers
from sftkit.preprocessing.plan.plan import Plan, make_plan
from sftkit.preprocessing.remove_duplicates import check_deduplication
from sftkit.sources.discovery.source_files import find_sources
from sftkit.sources.first_rows import first_rows
from sftkit.sources.reading_hints import hint_for_reasons
from sftkit.sources.source_file import ReadLimits, SourceFile
from sftkit.sources.work_units import ScanExecutor, ScannedFile, read_unit, scan_files, scan_in_threads
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import chat_tokenizer_spec
from sftkit.tokenization.loading.tokenizer_loading import tokenizer_spec
from sftkit.tokenization.probing.turn_markers import find_split_markers

_log = logging.getLogger(__name__)

_MAX_NAMED = 10
"""Files that a warning names."""

_SAMPLED_FILES = 8
"""Files of a data set whose first rows decide its handlers if the config lists none."""


def check_config(config: PreprocessConfig) -> None:
    """Check everything about a config that can be checked without reading data.

    Raises:
        ConfigError: with all problems.
    """
    problems: list[str] = []
    checks: list[Callable[[], object]] = [
        partial(validate_config, config),
        partial(check_packing, config),
        partial(check_formats, config),
        partial(tokenizer_spec, config),
    ]
    checks += [partial(build_handlers, dataset, index) for index, dataset in enumerate(config.datasets)]
    functions = function_paths(config.datasets)
    folders = config_folders(config.config, config.data_config_path) if functions else []
    checks += [partial(check_trusted, name, config.trust_packages, folders) for name in functions]
    for each in checks:
        try:
            each()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def plan(config: PreprocessConfig, runner: Runner | None = None) -> Plan:
    """Find and check every input of a run. Reads the sources to hash them and to see their columns; writes nothing.

    Args:
        config: the config of the run.
        runner: hashes the sources; by default this process does.

    Raises:
        ConfigError, SourceError, DataError, TokenizerError: the run cannot work as configured.
    """
    watch = Stopwatch()
    check_config(config)
    config = with_stopping_strategy(options_for_text_shards(config))
    limits = ReadLimits(config.max_row_bytes, config.max_expansion)
    found: dict[str, list[ScannedFile]] = {}
    left_out: dict[str, list[str]] = {}
    scan_all: ScanExecutor[ScannedFile] = scan_in_threads if runner is None else partial(_scan_by_runner, runner)

    def files_of(dataset: DatasetConfig) -> list[ScannedFile]:
        if dataset.name not in found:
            sources = find_sources(dataset, limits, config.storage_options)
            found[dataset.name] = _scan(dataset, sources.files, config.unit_size, scan_all)
            left_out[dataset.name] = sources.left_out
        return found[dataset.name]

    datasets = list_datasets(config)
    sizes = [file.file.size for dataset in datasets for file in files_of(dataset)]
    spec = chat_tokenizer_spec(config, sum(sizes))
    chat_tokenizer = ChatTokenizer(spec)
    most = 1 if config.datasets else _SAMPLED_FILES
    first = {dataset.name: _first_rows(files_of(dataset), most) for dataset in datasets}
    if not config.datasets:
        datasets = tuple(
            with_inferred_handlers(each, config, first[each.name], lambda: chat_tokenizer.has_chat_template)
            for each in datasets
        )
    functions = {name: code_digests(name) for name in function_paths(datasets)}
    config = _within_model(config, chat_tokenizer)
    recipe = Recipe(config, datasets, spec, read_questions(config), functions)
    pipeline = Pipeline(recipe, chat_tokenizer)
    pipeline.check()
    _check_curriculum(pipeline, recipe)
    samples: dict[str, ColumnSample] = {}
    for dataset in datasets:
        rows = first[dataset.name][0]
        _check_unpacked(dataset, rows.columns())
        pipeline.check_columns(dataset.name, rows.columns())
        if recipe.questions is not None:
            check_texts(dataset, rows)
        samples[dataset.name] = pipeline.sample_columns(dataset.name, rows)
        check_sample(dataset, config, samples[dataset.name])
    files = tuple(file for dataset in datasets for file in found[dataset.name])
    planned = make_plan(config, recipe, pipeline, files, _left_out_by_all(left_out, files), samples)
    if config.dataprocessor.deduplicate is not None:
        check_deduplication(planned, config.dataprocessor.deduplicate)
    if planned.tokenizer is not None:
        _warn_about_limits(pipeline, config)
        _warn_about_split_markers(pipeline, recipe)
    watch.lap("plan")
    _log.info("%d source files, %d work units, %d worker processes", len(files), len(planned.units), planned.workers)
    return replace(planned, seconds=watch.seconds["plan"])


def _check_curriculum(pipeline: Pipeline, recipe: Recipe) -> None:
    """Raise `ConfigError` if rows are to be sorted by a column that data sets do not retain."""
    order = read_row_order(recipe.options.dataprocessor.order)
    if order is None or not order.column:
        return
    training = [dataset.name for dataset in recipe.datasets if split_fractions(dataset.split)[0] > 0]
    without = [name for name in training if order.column not in pipeline.retained_columns(name)]
    if without:
        raise ConfigError(
            f"order=curriculum sorts by {order.column!r}, which is not retained of {', '.join(without)}; add it to "
            "retain_columns of each data set"
        )


def _left_out_by_all(left_out: Mapping[str, Sequence[str]], files: Sequence[ScannedFile]) -> tuple[str, ...]:
    """Return the files of other splits that no data set reads, and log a warning about them."""
    read = {file.file.path for file in files}
    paths = tuple(dict.fromkeys(path for found in left_out.values() for path in found if path not in read))
    if paths:
        more = f" and {len(paths) - _MAX_NAMED} more" if len(paths) > _MAX_NAMED else ""
        _log.warning(
            "left out, because they are not of the split that is read: %s%s; to read them, set dataset_split_name or "
            "name the files themselves",
            ", ".join(paths[:_MAX_NAMED]),
            more,
        )
    return paths


def _scan(
    dataset: DatasetConfig, files: list[SourceFile], unit_size: int, scan_all: ScanExecutor[ScannedFile]
) -> list[ScannedFile]:
    """Hash files and divide them into units; with `max_samples`, only the files that hold the first rows."""
    if dataset.max_samples is None:
        return scan_files(files, unit_size, scan_all)
    one_by_one = (scanned for file in files for scanned in scan_files([file], unit_size, scan_all))
    return list(first_rows(one_by_one, dataset.max_samples))


def _scan_by_runner(
    runner: Runner, scan: Callable[[SourceFile], ScannedFile], files: Sequence[SourceFile]
) -> list[ScannedFile]:
    done = {id(file): scanned for file, scanned in runner.run(scan, files)}
    return [done[id(file)] for file in files]


def _first_rows(files: list[ScannedFile], most: int) -> list[Batch]:
    """Return the first rows of up to `most` files that can be read.

    Raises:
        DataError: no row of any file can be read.
    """
    bad: list[str] = []
    found: list[Batch] = []
    for file in files:
        found += islice(_batches(file, bad), 1)
        if len(found) == most:
            break
    if found:
        return found
    raise DataError(bad[0] if bad else f"{files[0].file.path}: holds no rows; name files that have rows")


def _batches(file: ScannedFile, bad: list[str]) -> Iterator[Batch]:
    """Yield the rows of a file; the first reason why rows cannot be read, of all files, goes to `bad`."""
    for unit in file.units:

        def keep_first(_: str, rows: Sequence[RemovedRow], path: str = unit.file.name) -> None:
            if not bad:  # there may be millions of bad rows
                hint = hint_for_reasons([rows[0].reason])
                bad.append(f"{path}:{rows[0].number}: {rows[0].reason}; no row could be read{hint}")

        log = RowLog(kind=UNREADABLE, on_bad_rows=keep_first)
        yield from read_unit(unit, log)
        log.flush()


def _check_unpacked(dataset: DatasetConfig, columns: list[str]) -> None:
    """Raise `DataError` if the rows are packs: their sequences would be treated as one row."""
    if {INPUT_IDS, SEQ_LENGTHS} <= set(columns):
        raise DataError(
            f"dataset {dataset.name!r} ({dataset.data_paths[0]}): its rows are packs (they have {SEQ_LENGTHS}), which "
            "cannot be processed or packed again; use the data that they were made from"
        )


def _within_model(config: PreprocessConfig, chat_tokenizer: ChatTokenizer) -> PreprocessConfig:
    """With `compat: fms`, lower `max_seq_length` to the tokenizer's `model_max_length`, as fms-hf-tuning does."""
    if not chat_tokenizer.follows_fms or config.max_seq_length is None or chat_tokenizer.vocabulary_size is None:
        return config
    limit = chat_tokenizer.max_length
    if limit is None or limit >= config.max_seq_length:
        return config
    _log.warning(
        "max_seq_length=%d exceeds the tokenizer's model_max_length=%d, which is used (compat: fms)",
        config.max_seq_length,
        limit,
    )
    return replace(config, max_seq_length=limit)


def _warn_about_limits(pipeline: Pipeline, config: PreprocessConfig) -> None:
    limit = pipeline.chat_tokenizer.tokenizer.model_max_length
    if config.max_seq_length is not None and limit < config.max_seq_length:
        _log.warning(
            "max_seq_length=%d exceeds the tokenizer's model_max_length=%d; max_seq_length is used",
            config.max_seq_length,
            limit,
        )


def _warn_about_split_markers(pipeline: Pipeline, recipe: Recipe) -> None:
    """Log a warning if the chat template writes turn markers that are no tokens, with the option that adds them."""
    spec = recipe.chat_tokenizer.tokenizer
    if spec is None or not pipeline.row_kinds & {RowKind.CONVERSATIONS, RowKind.RENDERED}:
        return
    found = find_split_markers(pipeline.chat_tokenizer.tokenizer, is_own_template=spec.chat_template is None)
    if found is None:
        return
    stop = f" ({found.stop} ends an answer, so the model would have to write all of them to stop)" if found.stop else ""
    _log.warning(
        "turn markers of the chat template are no tokens of the tokenizer, which splits them into several: %s%s; to "
        "make tokens of them, set --add_special_tokens %s",
        ", ".join(found.markers),
        stop,
        " ".join(f"'{token}'" for token in (*spec.added_special_tokens, *found.markers)),
    )
