"""The shards of a training run: those that are there, or built from raw data into a cache by the shared core."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
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
from sftkit.preprocessing.planning import Plan, check_config, plan
from sftkit.shards.reading import ShardSet, open_shards
from sftkit.tokenization.engines import ENCODER, RENDERER

_log = logging.getLogger(__name__)

_KEY_LENGTH = 32  # characters of the fingerprint that name a cached data set


def check_training_data(config: TrainConfig) -> None:
    """Raise `ConfigError` for what is wrong with a config, before any data is read."""
    validate_config(config)
    check_config(to_preprocess_config(config, config.cache_dir))


def find_or_build_shards(config: TrainConfig, progress: Progress) -> ShardSet:
    """Tokenized shards to train on.

    A directory or file of Parquet with `input_ids` and `labels` is used as it is, unless its rows are to be packed and
    are not. Anything else is built into `cache_dir`, under a name made from everything that decides its content, and
    found there the next time. Text for which nothing says where the responses are is trained on as a whole.

    Raises:
        ConfigError: shards are packed already, in another way than is asked for.
        ConfigError, SourceError, DataError, TokenizerError, OutputError: as `preprocess` would.
    """
    given = _tokenized(config)
    if given is None:
        return _built(config, progress)
    if SEQ_LENGTHS in _columns(given):
        _check_packs(config, given)
        return given
    return _repacked(config, given, progress) if is_packed(config) else given


def _repacked(config: TrainConfig, given: ShardSet, progress: Progress) -> ShardSet:
    """The rows of shards in packs. They remain the work of the tokenizer and the chat template that made them."""
    made_by = given.manifest
    if made_by is None or made_by.tokenizer is None:
        return _built(config, progress)
    tokens = config.add_special_tokens or made_by.tokenizer.added_special_tokens
    built = _built(replace(config, add_special_tokens=tokens), progress)
    assert built.manifest is not None
    settings = {**built.manifest.config, "dataprocessor": made_by.config.get("dataprocessor")}
    return replace(built, manifest=replace(built.manifest, tokenizer=made_by.tokenizer, config=settings))


def _check_packs(config: TrainConfig, given: ShardSet) -> None:
    """Raise `ConfigError` when packs are asked for that are others than those of the shards."""
    if not is_packed(config) or given.manifest is None:
        return
    there = (given.manifest.config.get("packing"), given.manifest.splits[TRAIN].pack_length)
    wanted = (config.packing, pack_length_of(config))
    if there != wanted:
        raise ConfigError(
            f"{given.name or given.root}: its rows are packed already (packing={there[0]}, pack_length={there[1]}) and "
            f"cannot be packed again (packing={wanted[0]}, pack_length={wanted[1]}); leave packing out, or give the "
            "data that they were made from"
        )


def _built(config: TrainConfig, progress: Progress) -> ShardSet:
    planned = plan(to_preprocess_config(config, config.cache_dir))
    if _ends_as_text(planned):
        _log.warning("the rows are text and no response_template is given: every token of it carries a loss")
        planned = plan(to_preprocess_config(replace(config, train_on="all"), config.cache_dir))
    place = Path(config.cache_dir).expanduser() / planned.fingerprint[:_KEY_LENGTH]
    planned = replace(planned, config=replace(planned.config, output_dir=str(place)))
    if find_finished(planned) is None:
        run(planned, progress)
    else:
        output_for(planned.config).finish_cleanup()
    return open_shards(str(place), config.storage_options)


def _ends_as_text(planned: Plan) -> bool:
    """Whether the first rows come out of the pipeline as text."""
    pipeline = (
        planned.without_engine(ENCODER).without_engine(RENDERER).pipeline
    )  # a fast engine is not worth loading for this
    for unit in planned.units:
        for batch, text_field in pipeline.process(unit, RowLog(), Stopwatch()):
            if len(batch):
                return text_field is not None
    return False


def _tokenized(config: TrainConfig) -> ShardSet | None:
    """The shards at `training_data_path` when it is one place that holds tokens already."""
    if config.datasets or config.validation_data_path or len(config.training_data_path) != 1:
        return None
    try:
        shards = open_shards(config.training_data_path[0], config.storage_options)
        return shards if {INPUT_IDS, LABELS} <= set(_columns(shards)) else None
    except SourceError:
        return None  # raw data, or nothing: the core will say


def _columns(shards: ShardSet) -> Collection[str]:
    """The columns of the training split; of shards of ours no file is opened, for it may be damaged, which is for
    `check_footers` to say.
    """
    if shards.manifest is not None and shards.splits.get(TRAIN):
        return shards.manifest.columns
    return shards.column_names(TRAIN)
