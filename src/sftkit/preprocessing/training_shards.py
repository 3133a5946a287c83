"""Provides the shards of a training run: existing ones, or shards that are built from raw data into a cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sftkit.config.commands import TrainConfig, to_preprocess_config
from sftkit.config.validation import validate_config
from sftkit.core.progress import Progress, Stopwatch
from sftkit.core.row_log import RowLog
from sftkit.core.rows import INPUT_IDS, LABELS, SEQ_LENGTHS
from sftkit.core.splits import TRAIN
from sftkit.errors import ConfigError, SourceError
from sftkit.ordering.packing import is_packed, pack_length_of
from sftkit.preprocessing.build import find_finished, output_for, run
from sftkit.preprocessing.plan.plan import Plan
from sftkit.preprocessing.plan.template_date import keep_template_date
from sftkit.preprocessing.planning import check_config, plan
from sftkit.shards.manifest import Manifest
from sftkit.shards.readers.arrow_file import ArrowRowFile
from sftkit.shards.readers.jsonl_file import JsonLinesRowFile
from sftkit.shards.readers.open_file import reader_of
from sftkit.shards.reading import ShardSet, open_shards, require_parquet
from sftkit.sources.discovery.overlap import check_directories_apart
from sftkit.tokenization.engines import ENCODER, RENDERER

_log = logging.getLogger(__name__)

_NAME_LENGTH = 32  # characters of the fingerprint that name a cached data set


_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class TrainingData:
    """The shards of a training run."""

    shards: ShardSet
    evaluation_sets: Mapping[str, ShardSet]
    """The data sets of `eval_data`, each with the rows of its validation split, or else of its only split."""


def check_training_data(config: TrainConfig) -> None:
    """Raise `ConfigError` with all problems of a config that show before data is read."""
    problems = list(_set_problems(config))
    if problems:
        raise ConfigError(problems)
    checked = [_config_of_set(config, paths) for paths in config.eval_data.values()]
    if not _has_sets_only(config):
        checked.insert(0, config)
    for each in checked:
        validate_config(each)
        check_directories_apart(each.output_dir, each)
        check_config(to_preprocess_config(each, each.cache_dir))


def find_or_build_data(config: TrainConfig, progress: Progress) -> TrainingData:
    """Return the tokenized shards to train on (`find_or_build_shards`) and those of `eval_data`, found alike.

    An evaluation alone needs no other data than `eval_data`. The first of these sets then stands for the shards: it
    names their tokenizer.
    """
    return _find_data(config, lambda each: _build(each, progress))


def find_data(config: TrainConfig) -> TrainingData:
    """Return the same data as `find_or_build_data` if no shards have to be built; nothing is written.

    Raises:
        ConfigError: there are no shards of the data yet.
        SourceError, DataError, TokenizerError: as `preprocess`.
    """
    return _find_data(config, _find_built)


def _find_data(config: TrainConfig, build: Callable[[TrainConfig], ShardSet]) -> TrainingData:
    sets = {name: _find_or_build_set(config, paths, build) for name, paths in config.eval_data.items()}
    shards = next(iter(sets.values())) if _has_sets_only(config) else _find_or_build_shards(config, build)
    return TrainingData(shards, sets)


def find_or_build_shards(config: TrainConfig, progress: Progress) -> ShardSet:
    """Return the tokenized shards to train on.

    A directory or file of Parquet with `input_ids` and `labels` is used directly, unless its rows are to be packed and
    are not, or some of them are to be selected. Anything else is built into `cache_dir`, under a name made from
    everything that decides its content, and reused next time. If the rows are text and no option tells where the
    responses are, all of the text is trained on.

    Raises:
        ConfigError: the shards are packed, but not as the config asks for.
        ConfigError, SourceError, DataError, TokenizerError, OutputError: as `preprocess`.
    """
    return _find_or_build_shards(config, lambda each: _build(each, progress))


def _find_or_build_shards(config: TrainConfig, build: Callable[[TrainConfig], ShardSet]) -> ShardSet:
    given = _tokenized_shards(config)
    if given is None:
        return build(config)
    selects_rows = config.val_size is not None or config.max_samples is not None
    if SEQ_LENGTHS in _columns(given):
        _check_packs(config, given)
        if selects_rows:
            raise ConfigError(
                f"{given.name or given.root}: val_size and max_samples cannot select rows of packs; give them to "
                "preprocess, or use the data that they were made from"
            )
        return given
    return _rebuild_shards(config, given, build) if is_packed(config) or selects_rows else given


def _set_problems(config: TrainConfig) -> Iterator[str]:
    for name, paths in config.eval_data.items():
        if not _SET_NAME.fullmatch(name):
            yield f"eval_data: the name {name!r} is part of names of metrics; use letters, digits, `_`, `-` and `.`"
        if not any(paths):
            yield f"eval_data.{name} is empty; name at least one path"


def _has_sets_only(config: TrainConfig) -> bool:
    """Whether the run only evaluates, and on nothing but the sets of `eval_data`."""
    given = config.datasets or config.training_data_path or config.validation_data_path
    return bool(config.eval_data) and not given and config.training_arguments.get("do_train") in (False, "false")


def _config_of_set(config: TrainConfig, paths: tuple[str, ...]) -> TrainConfig:
    """The same run with one set of `eval_data` as its validation data."""
    return replace(
        config,
        training_data_path=(),
        validation_data_path=paths,
        datasets=(),
        val_size=None,
        max_samples=None,
        eval_data={},
    )


def _find_or_build_set(
    config: TrainConfig, paths: tuple[str, ...], build: Callable[[TrainConfig], ShardSet]
) -> ShardSet:
    found = _tokenized(paths[0], config) if len(paths) == 1 else None
    return build(_config_of_set(config, paths)) if found is None else found


def _rebuild_shards(config: TrainConfig, given: ShardSet, build: Callable[[TrainConfig], ShardSet]) -> ShardSet:
    """Pack the rows of shards, or select some; the result names the tokenizer and template that made the rows."""
    made_by = given.manifest
    if made_by is None or made_by.tokenizer is None:
        return build(config)
    tokens = config.add_special_tokens or made_by.tokenizer.added_special_tokens
    built = build(replace(config, add_special_tokens=tokens))
    assert built.manifest is not None
    settings = {**built.manifest.config, "dataprocessor": made_by.config.get("dataprocessor")}
    return replace(built, manifest=replace(built.manifest, tokenizer=made_by.tokenizer, config=settings))


def _check_packs(config: TrainConfig, given: ShardSet) -> None:
    """Raise `ConfigError` if the shards are packed in another way than the config asks for."""
    if not is_packed(config) or given.manifest is None:
        return
    actual = (given.manifest.config.get("packing"), given.manifest.splits[TRAIN].pack_length)
    wanted = (config.packing, pack_length_of(config))
    if actual != wanted:
        raise ConfigError(
            f"{given.name or given.root}: its rows are packed already (packing={actual[0]}, pack_length={actual[1]}) "
            f"and cannot be packed again (packing={wanted[0]}, pack_length={wanted[1]}); leave packing out, or use the "
            "data that they were made from"
        )
    packs, multiple = given.manifest.splits[TRAIN].rows, config.pack_count_multiple_of
    if packs % multiple:
        raise ConfigError(
            f"{given.name or given.root}: has {packs} packs, no multiple of pack_count_multiple_of={multiple}, and "
            "cannot be packed again; leave it out, or use the data that they were made from"
        )


def _build(config: TrainConfig, progress: Progress) -> ShardSet:
    planned = _plan_shards(config)
    if find_finished(planned) is None:
        _warn_of_cuts(run(planned, progress))
    else:
        output_for(planned.config).finish_cleanup()
    return open_shards(planned.config.output_dir, config.storage_options)


def _find_built(config: TrainConfig) -> ShardSet:
    planned = _plan_shards(config)
    if find_finished(planned) is None:
        raise ConfigError(
            "dry_run: the data are not tokenized yet, so that the steps are not known; make shards with `sftkit "
            "preprocess` and name them in training_data_path"
        )
    return open_shards(planned.config.output_dir, config.storage_options)


def _plan_shards(config: TrainConfig) -> Plan:
    """Plan shards in `cache_dir`, under a name made from everything that decides their content."""
    planned = plan(to_preprocess_config(config, config.cache_dir))
    if _becomes_text(planned):
        _log.warning("the rows are text and no response_template is given: every token is trained on")
        planned = plan(to_preprocess_config(replace(config, train_on="all"), config.cache_dir))
    folder = Path(config.cache_dir).expanduser() / planned.undated_fingerprint[:_NAME_LENGTH]
    planned = replace(planned, config=replace(planned.config, output_dir=str(folder)))
    return keep_template_date(planned, output_for(planned.config))


def _warn_of_cuts(manifest: Manifest) -> None:
    if manifest.cuts is not None and manifest.cuts.rows:
        _log.warning(manifest.cuts.describe(manifest.rows_read))


def _becomes_text(planned: Plan) -> bool:
    """Whether the first rows leave the pipeline as text."""
    # A fast engine would take longer to load than these few rows take.
    pipeline = planned.without_engine(ENCODER).without_engine(RENDERER).pipeline
    for unit in planned.units:
        for batch, text_field in pipeline.process(unit, RowLog(), Stopwatch()):
            if len(batch):
                return text_field is not None
    return False


def _tokenized_shards(config: TrainConfig) -> ShardSet | None:
    """Open the shards at `training_data_path` if it is a single path and holds tokens."""
    if config.datasets or config.validation_data_path or len(config.training_data_path) != 1:
        return None
    return _tokenized(config.training_data_path[0], config)


def _tokenized(location: str, config: TrainConfig) -> ShardSet | None:
    """Open what is at a path if it holds tokens."""
    try:
        shards = open_shards(location, config.storage_options)
        if shards.manifest is None and _are_sources(shards):
            return None
        require_parquet(shards)
        return shards if {INPUT_IDS, LABELS} <= set(_columns(shards)) else None
    except SourceError:
        return None  # raw data, or nothing, which planning will report


def _are_sources(shards: ShardSet) -> bool:
    """Whether the files are JSON Lines or Arrow, which are data to be tokenized, with tokens or without."""
    return reader_of(next(iter(shards.splits.values()))[0]) in (JsonLinesRowFile, ArrowRowFile)


def _columns(shards: ShardSet) -> Collection[str]:
    """Return the columns of the training split, or of the only one.

    With a manifest, no shard is opened: it might be damaged, which `check_footers` reports.
    """
    if shards.manifest is not None and any(shards.splits.values()):
        return shards.manifest.columns
    return shards.column_names(TRAIN if TRAIN in shards.splits else next(iter(shards.splits)))
