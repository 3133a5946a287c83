"""Plans a run: finds, checks and fingerprints every input before anything is written."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sftkit.config.commands import PreprocessConfig
from sftkit.config.fields import to_plain_data
from sftkit.config.merging import config_folders
from sftkit.config.schema import DatasetConfig
from sftkit.config.validation import validate_config
from sftkit.core.progress import Stopwatch
from sftkit.core.row_log import UNREADABLE, BadRow, RowLog
from sftkit.core.rows import INPUT_IDS, SEQ_LENGTHS
from sftkit.errors import ConfigError, DataError, TokenizerError
from sftkit.execution.processes import SMALL_SOURCE, available_cores
from sftkit.execution.runner import Runner
from sftkit.handlers.registry import build_handlers
from sftkit.handlers.user_function import check_trusted, code_digests
from sftkit.ordering.packing import check_packing, packing_identity
from sftkit.preprocessing.infer_datasets import options_for_text_shards, resolve_datasets
from sftkit.preprocessing.pipeline import Pipeline, Recipe
from sftkit.preprocessing.unit_keys import TOKENIZER_LIMITS, recipe_key, unit_keys
from sftkit.sandbox.chat_templates import tells_date
from sftkit.shards.manifest import TokenizerInfo
from sftkit.sources.discovery import find_sources
from sftkit.sources.reader_options import reader_identity
from sftkit.sources.small_files import group_small_files
from sftkit.sources.source_file import ReadLimits, SourceFile
from sftkit.sources.work_units import ScanExecutor, ScannedFile, WorkUnit, read_unit, scan_files, scan_in_threads
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import chat_tokenizer_spec
from sftkit.tokenization.tokenizer_files import tokenizer_file_hashes
from sftkit.tokenization.tokenizer_loading import TOKENIZER_CHANGED, TokenizerSpec, tokenizer_spec

_log = logging.getLogger(__name__)

_MAX_NAMED = 10
"""Files that a warning names."""


@dataclass(frozen=True)
class Plan:
    """What a run will do: the result of `plan`, and the input of `sftkit.preprocessing.build.run`.

    All inputs were found and checked, and nothing was written. The source files are divided into work units, which are
    processed independently of each other.
    """

    config: PreprocessConfig
    recipe: Recipe
    """What becomes of a row; every worker process gets it."""
    pipeline: Pipeline
    """The recipe, ready to run in this process."""
    files: tuple[ScannedFile, ...]
    """Every source file, in the order of the rows."""
    units: tuple[WorkUnit, ...]
    """All work units, in the order of the rows."""
    keys: tuple[str, ...]
    """The key of each work unit, in the order of `units`. Units with equal keys give equal rows."""
    tokenizer: TokenizerInfo | None
    left_out: tuple[str, ...]
    """Data files next to those that are read, which are not read because they belong to another split."""
    fingerprint: str
    """Equal for plans that give the same shards."""
    undated_fingerprint: str
    """The fingerprint without the template date, unless the config of the user sets that."""
    seconds: float
    """How long planning took."""

    @property
    def workers(self) -> int:
        """The number of processes that the run will use."""
        if any(file.file.path.startswith("memory:") for file in self.files):
            return 1  # only this process can see its memory
        if self.config.num_workers is None and sum(file.file.size for file in self.files) < SMALL_SOURCE:
            return 1
        return max(1, min(self.config.num_workers or available_cores(), len(self.units)))

    @property
    def has_default_date(self) -> bool:
        """Whether the rows depend on a template date that the user did not choose."""
        return self.config.template_date is not None and self.recipe.options.template_date is None

    def on_day(self, day: str) -> Plan:
        """Return the plan with another template date, YYYY-MM-DD."""
        if day == self.config.template_date:
            return self
        recipe = replace(self.recipe, chat_tokenizer=replace(self.recipe.chat_tokenizer, template_date=day))
        pipeline = Pipeline(recipe, ChatTokenizer(recipe.chat_tokenizer))
        return replace(_plan(self.config, recipe, pipeline, self.files, self.left_out), seconds=self.seconds)

    def without_engine(self, engine: str) -> Plan:
        """Return the plan without one fast engine. It gives the same shards.

        Raises:
            TokenizerError: the files of the tokenizer, which is loaded again, have changed since.
        """
        recipe = replace(self.recipe, chat_tokenizer=self.recipe.chat_tokenizer.without_engine(engine))
        chat_tokenizer = ChatTokenizer(recipe.chat_tokenizer)
        if self.tokenizer is not None and chat_tokenizer.identity != self.pipeline.chat_tokenizer.identity:
            raise TokenizerError(TOKENIZER_CHANGED)
        return replace(self, recipe=recipe, pipeline=Pipeline(recipe, chat_tokenizer))


def check_config(config: PreprocessConfig) -> None:
    """Check everything about a config that can be checked without reading data.

    Raises:
        ConfigError: with all problems.
    """
    problems: list[str] = []
    checks: list[Callable[[], object]] = [
        partial(validate_config, config),
        partial(check_packing, config),
        partial(tokenizer_spec, config),
    ]
    checks += [partial(build_handlers, dataset, index) for index, dataset in enumerate(config.datasets)]
    functions = _functions(config.datasets)
    folders = config_folders(config.config, config.data_config_path) if functions else []
    checks += [partial(check_trusted, name, config.trust_packages, folders) for name in functions]
    for each in checks:
        try:
            each()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def _functions(datasets: Sequence[DatasetConfig]) -> list[str]:
    """The paths of the user functions among the handlers."""
    names = (handler.name for dataset in datasets for handler in dataset.data_handlers)
    return sorted({name for name in names if ":" in name})


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
    config = options_for_text_shards(config)
    limits = ReadLimits(config.max_row_bytes, config.max_expansion)
    found: dict[str, list[ScannedFile]] = {}
    left_out: dict[str, list[str]] = {}
    scan_all: ScanExecutor[ScannedFile] = scan_in_threads if runner is None else partial(_scan_by_runner, runner)

    def files_of(dataset: DatasetConfig) -> list[ScannedFile]:
        if dataset.name not in found:
            sources = find_sources(dataset, limits, config.storage_options)
            found[dataset.name] = scan_files(sources.files, config.unit_size, scan_all)
            left_out[dataset.name] = sources.left_out
        return found[dataset.name]

    def columns_of(dataset: DatasetConfig) -> list[str]:
        return _first_columns(files_of(dataset))

    datasets = resolve_datasets(config, columns_of)
    sizes = [file.file.size for dataset in datasets for file in files_of(dataset)]
    functions = {name: code_digests(name) for name in _functions(datasets)}
    recipe = Recipe(config, datasets, chat_tokenizer_spec(config, sum(sizes)), functions)
    pipeline = Pipeline(recipe, ChatTokenizer(recipe.chat_tokenizer))
    pipeline.check()
    for dataset in datasets:
        _check_unpacked(dataset, columns_of(dataset))
        pipeline.check_columns(dataset.name, columns_of(dataset))
    files = tuple(file for dataset in datasets for file in found[dataset.name])
    planned = _plan(config, recipe, pipeline, files, _left_out_by_all(left_out, files))
    if planned.tokenizer is not None:
        _warn_about_limits(pipeline, config)
    watch.lap("plan")
    _log.info("%d source files, %d work units, %d worker processes", len(files), len(planned.units), planned.workers)
    return replace(planned, seconds=watch.seconds["plan"])


def _plan(
    config: PreprocessConfig,
    recipe: Recipe,
    pipeline: Pipeline,
    files: tuple[ScannedFile, ...],
    left_out: tuple[str, ...],
) -> Plan:
    """Add what identifies a plan: its keys and fingerprints, and the template date if rows depend on it."""
    tokenizer = _tokenizer_info(pipeline.chat_tokenizer, recipe.chat_tokenizer.tokenizer)
    identity = _identity(pipeline.chat_tokenizer, tokenizer) if tokenizer is not None else {}
    dated, day = identity, pipeline.chat_tokenizer.template_date
    if tokenizer is not None and tells_date(pipeline.chat_tokenizer.tokenizer):
        dated, config = {**identity, "template_date": day}, replace(config, template_date=day)
    units = group_small_files(files)
    keys = unit_keys(files, units, recipe.datasets, recipe.options, dated)
    fingerprint = _fingerprint(recipe, files, dated)
    is_chosen = dated is identity or recipe.options.template_date is not None
    undated = fingerprint if is_chosen else _fingerprint(recipe, files, identity)
    return Plan(config, recipe, pipeline, files, units, keys, tokenizer, left_out, fingerprint, undated, 0)


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


def _scan_by_runner(
    runner: Runner, scan: Callable[[SourceFile], ScannedFile], files: Sequence[SourceFile]
) -> list[ScannedFile]:
    done = {id(file): scanned for file, scanned in runner.run(scan, files)}
    return [done[id(file)] for file in files]


def _first_columns(files: list[ScannedFile]) -> list[str]:
    """Return all columns of the first rows that can be read.

    Raises:
        DataError: no row of any file can be read.
    """
    bad: list[str] = []
    for unit in (unit for file in files for unit in file.units):

        def keep_first(_: str, rows: Sequence[BadRow], path: str = unit.file.name) -> None:
            if not bad:  # there may be millions of bad rows
                bad.append(f"{path}:{rows[0].number}: {rows[0].reason}; no row could be read")

        log = RowLog(kind=UNREADABLE, on_bad_rows=keep_first)
        for batch in read_unit(unit, log):
            return batch.columns()
        log.flush()
    raise DataError(bad[0] if bad else f"{files[0].file.path}: holds no rows; name files that have rows")


def _check_unpacked(dataset: DatasetConfig, columns: list[str]) -> None:
    """Raise `DataError` if the rows are packs: their sequences would be treated as one row."""
    if {INPUT_IDS, SEQ_LENGTHS} <= set(columns):
        raise DataError(
            f"dataset {dataset.name!r} ({dataset.data_paths[0]}): its rows are packs (they have {SEQ_LENGTHS}), which "
            "cannot be processed or packed again; use the data that they were made from"
        )


def _tokenizer_info(chat_tokenizer: ChatTokenizer, spec: TokenizerSpec | None) -> TokenizerInfo | None:
    if spec is None:
        return None
    tokenizer = chat_tokenizer.tokenizer
    fingerprint, chat_template_sha256, _ = chat_tokenizer.identity
    template = tokenizer.chat_template
    return TokenizerInfo(
        name=spec.name,
        vocabulary_size=len(tokenizer),
        eos_token=tokenizer.eos_token if isinstance(tokenizer.eos_token, str) else None,
        fingerprint=fingerprint,
        chat_template_sha256=chat_template_sha256,
        added_special_tokens=spec.added_special_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        chat_template=json.dumps(template, sort_keys=True, indent=1) if isinstance(template, dict) else template,
        files=tokenizer_file_hashes(spec.name),
    )


def _warn_about_limits(pipeline: Pipeline, config: PreprocessConfig) -> None:
    limit = pipeline.chat_tokenizer.tokenizer.model_max_length
    if config.max_seq_length is not None and limit < config.max_seq_length:
        _log.warning(
            "max_seq_length=%d exceeds the tokenizer's model_max_length=%d; max_seq_length is used",
            config.max_seq_length,
            limit,
        )


def _identity(chat_tokenizer: ChatTokenizer, info: TokenizerInfo) -> dict[str, Any]:
    """Return everything about the tokenizer that rows depend on, as JSON can hold it."""
    tokenizer = chat_tokenizer.tokenizer
    return {
        "fingerprint": info.fingerprint,
        "chat_template": info.chat_template_sha256,
        "stop_tokens": chat_tokenizer.stop_tokens,
        "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
        TOKENIZER_LIMITS: [tokenizer.model_max_length, tokenizer.truncation_side],
        "files": {} if tokenizer.is_fast else info.files,  # a fast tokenizer is covered by its fingerprint
    }


def _fingerprint(recipe: Recipe, files: tuple[ScannedFile, ...], identity: Mapping[str, Any]) -> str:
    """Hash everything that decides the bytes of the shards; names and paths do not."""
    config, datasets = recipe.options, recipe.datasets
    numbers = {dataset.name: number for number, dataset in enumerate(datasets)}
    content: dict[str, Any] = {
        "sources": [
            (numbers[f.file.dataset], f.file.format, f.file.compression, f.sha256, *reader_identity(f.file.reader))
            for f in files
        ],
        "recipes": [recipe_key(dataset, config, identity) for dataset in datasets],
        "mixing": [[to_plain_data(dataset.split), dataset.sampling, dataset.shuffle] for dataset in datasets],
        "order": [config.dataprocessor.seed, config.dataprocessor.sampling_stopping_strategy],
        "shards": [getattr(config, key, None) for key in ("num_dataset_shards", "num_eval_dataset_shards")],
    }
    packing = packing_identity(config)
    if packing:
        content["packing"] = packing
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
