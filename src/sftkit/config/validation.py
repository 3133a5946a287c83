"""Validation of a whole config before any data is read: ranges of numbers and keys that depend on each other."""

from __future__ import annotations

import codecs
import dataclasses
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from sftkit.config.commands import PreprocessConfig
from sftkit.config.fields import OptionInfo, keys_where, option_info, to_plain_data
from sftkit.config.mask_validation import pattern_problems, patterns_of, reasoning_problems, role_problems
from sftkit.config.mix_validation import WEIGHT_TOLERANCE, mix_problems
from sftkit.config.render_validation import render_problems
from sftkit.config.row_validation import packing_problems, parquet_column_problems
from sftkit.config.schema.data_config import DatasetConfig, ReaderConfig
from sftkit.config.schema.deduplicate_options import deduplicate_problems
from sftkit.config.schema.option_values import SPLIT_TURNS
from sftkit.config.schema.row_amounts import amount_problem
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.message_fields import RESERVED_VARIABLES
from sftkit.core.weights.loss_weight_column import loss_weight
from sftkit.errors import ConfigError, RequirementError
from sftkit.redaction import HIDDEN, is_redacted

_SPLIT_NAME = re.compile(r"[^\s\[\]+()%:]+")
"""Excludes what `datasets` reads as an instruction, such as `train[:50%]` and `train+validation`."""

_LARGEST = 2**63 - 1
_NEVER_EMPTY = (
    *(
        "directory",
        "output_dir",
        "staging_dir",
        "cache_dir",
        "training_data_path",
        "validation_data_path",
        "data_paths",
    ),
    *("model_name_or_path", "chat_template_path", "chat_template_base64", "add_special_tokens"),
)
"""Keys whose values mean nothing if they are empty; an empty path would be the working directory."""

_REPLACED_BY_HANDLERS = keys_where(DataOptions, lambda info: info.shorthand_for == "data_handlers")


def validate_config(config: DataOptions) -> None:
    """Check a config as a whole.

    Raises:
        ConfigError: The config is invalid. The error lists all problems.
        RequirementError: It is valid, but needs a package that is not installed.
    """
    problems = list(_problems(config))
    if problems:
        raise ConfigError(problems)
    if isinstance(config, PreprocessConfig) and config.executor == "ray" and importlib.util.find_spec("ray") is None:
        raise RequirementError("executor: ray needs Ray, which is not installed; pip install 'sftkit[ray]'")
    for key, _ in patterns_of(config):
        if importlib.util.find_spec("re2") is None:
            raise RequirementError(f"{key} needs google-re2, which is not installed; pip install 'sftkit[patterns]'")


def _problems(config: DataOptions) -> Iterator[str]:
    yield from _value_problems(config)
    for key in ("max_bad_rows", "max_dropped_rows", "val_size"):
        problem = amount_problem(key, getattr(config, key))
        if problem is not None:
            yield problem
    yield from _selection_problems(config)
    yield from _processor_problems(config)
    yield from _output_problems(config)
    yield from _template_problems(config)
    yield from role_problems(config)
    yield from reasoning_problems(config)
    yield from pattern_problems(config)
    yield from _hidden_problems(config)
    yield from _storage_problems(config)
    yield from packing_problems(config)
    yield from _split_turns_problems(config)
    yield from render_problems(config)
    if config.datasets and config.training_data_path:
        yield "give either a data config (`datasets`) or training_data_path, not both"
    if isinstance(config, PreprocessConfig):
        yield from _executor_problems(config)
        yield from parquet_column_problems(config)
        if not config.datasets and not config.training_data_path and not config.validation_data_path:
            yield "no data: give data_config_path, `datasets`, or training_data_path"
        if config.dataprocessor.streaming:
            yield (
                "streaming: true cannot be used to preprocess: shards are split, mixed and balanced over the whole "
                "data set; leave streaming out, memory does not grow with the data"
            )
    yield from _text_problems(config)
    yield from _dataset_problems(config.datasets)
    yield from mix_problems(config.datasets, config.dataprocessor)


def _split_turns_problems(config: DataOptions) -> Iterator[str]:
    if config.overflow != SPLIT_TURNS:
        return
    if config.max_seq_length is None:
        yield "overflow=split_turns needs a length; set max_seq_length"
    elif config.pack_length is not None and config.pack_length < config.max_seq_length:
        yield (
            f"overflow=split_turns splits at max_seq_length={config.max_seq_length}, which is more than pack_length="
            f"{config.pack_length}; set max_seq_length to pack_length or less"
        )


def _selection_problems(config: DataOptions) -> Iterator[str]:
    """Check the keys that select rows without a data config."""
    if config.val_size == 0:
        yield "val_size is 0; set the rows to use for validation, or leave it out"
    if config.datasets and config.val_size is not None:
        yield (
            "val_size cannot be combined with `datasets`; set split of each data set (`validation: 0.1`), or "
            "validation_rows for a number of rows"
        )
    elif config.val_size is not None and config.validation_data_path:
        yield "val_size and validation_data_path are both given; set only one of them"
    if config.datasets and config.max_samples is not None:
        yield "max_samples cannot be combined with `datasets`; set max_samples of each data set"


def _value_problems(config: Any, prefix: str = "") -> Iterator[str]:
    """Check the numbers and paths of a config dataclass, and of those nested in it, against their declarations."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        items = dict(enumerate(value)) if isinstance(value, tuple) else {None: value}
        for index, item in items.items():
            path = f"{prefix}{field.name}" if index is None else f"{prefix}{field.name}[{index}]"
            if dataclasses.is_dataclass(item):
                yield from _value_problems(item, f"{path}.")
            elif isinstance(item, int | float) and not _is_in_range(item, option_info(field)):
                shown = f"{item:g}" if isinstance(item, float) else item
                yield f"{path} must be {_range_text(option_info(field))}, not {shown}"
            elif isinstance(item, int) and abs(item) > _LARGEST:
                yield f"{path} must be at most {_LARGEST}, not {item}"
            elif item == "" and field.name in _NEVER_EMPTY:
                yield f"{path} is empty; give a value, or leave it out"


def _is_in_range(value: float, info: OptionInfo) -> bool:
    return (info.minimum is None or value >= info.minimum) and (info.maximum is None or value <= info.maximum)


def _range_text(info: OptionInfo) -> str:
    return f"{info.minimum:g} or more" if info.maximum is None else f"between {info.minimum:g} and {info.maximum:g}"


def _text_problems(config: DataOptions) -> Iterator[str]:
    if config.input_field_name and not config.output_field_name:
        yield "input_field_name is given alone; set both input_field_name and output_field_name"
    if config.instruction_template is not None and config.response_template is None:
        yield "instruction_template is given without response_template; set both"
    for key in ("response_template", "instruction_template", "data_formatter_template"):
        if getattr(config, key) == "":
            yield f"{key} is empty; set a text, or leave it out"
    if config.datasets:
        for key in _REPLACED_BY_HANDLERS:
            if getattr(config, key) is not None:
                yield f"{key} cannot be combined with `datasets`; use their data_handlers instead"


def _executor_problems(config: PreprocessConfig) -> Iterator[str]:
    if config.executor == "local" and config.ray_address is not None:
        yield f"ray_address={config.ray_address} needs executor=ray; set it"


def _hidden_problems(config: Any, prefix: str = "") -> Iterator[str]:
    """Name credentials that a manifest, or the config that a dry run printed, does not contain."""
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), f"{prefix}{field.name}"
        info = option_info(field)
        for index, item in enumerate(value) if isinstance(value, tuple) else [(None, value)]:
            place = path if index is None else f"{path}[{index}]"
            if dataclasses.is_dataclass(item):
                yield from _hidden_problems(item, f"{place}.")
            elif info.location and isinstance(item, str) and is_redacted(item):
                yield f"{place} is {item!r}, which has lost its credentials; give the whole URL as --{path} URL"
            elif info.secret and HIDDEN in str(item):
                yield f"{place} has values that were hidden as {HIDDEN}; give them as --{path}.KEY VALUE"


def _storage_problems(config: DataOptions) -> Iterator[str]:
    given = {"storage_options": config.storage_options}
    given |= {f"datasets[{i}].storage_options": dataset.storage_options for i, dataset in enumerate(config.datasets)}
    for where, options in given.items():
        if not options:
            continue
        from fsspec import available_protocols

        for name in sorted(set(options) & set(available_protocols())):
            if not isinstance(options[name], Mapping):
                yield f"{where}.{name} must be a mapping of options, not {type(options[name]).__name__}"


def _template_problems(config: DataOptions) -> Iterator[str]:
    if config.template_date is not None and not _is_day(config.template_date):
        yield f"template_date must be a day in the form YYYY-MM-DD, not {config.template_date!r}"
    for name in sorted(RESERVED_VARIABLES & set(config.chat_template_kwargs)):
        yield f"chat_template_kwargs must not contain {name!r}, an argument of apply_chat_template"
    try:
        json.dumps(to_plain_data(config.chat_template_kwargs))
    except TypeError as error:
        yield f"chat_template_kwargs must contain only JSON values: {error}"


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _output_problems(config: DataOptions) -> Iterator[str]:
    if getattr(config, "append", False) and getattr(config, "overwrite", False):
        yield "append adds to the data set in output_dir, and overwrite replaces it; set only one of them"


def _processor_problems(config: DataOptions) -> Iterator[str]:
    keys = ("chat_template", "chat_template_path", "chat_template_base64")
    given = [key for key in keys if getattr(config.dataprocessor, key) is not None]
    if len(given) > 1:
        yield f"dataprocessor has {' and '.join(given)}; give one chat template"
    if config.dataprocessor.deduplicate is not None:
        names = [dataset.name for dataset in config.datasets]
        yield from deduplicate_problems(config.dataprocessor.deduplicate, names)


def _dataset_problems(datasets: tuple[DatasetConfig, ...]) -> Iterator[str]:
    for name, count in Counter(dataset.name for dataset in datasets).items():
        if count > 1:
            yield f"datasets: the name {name!r} is used {count} times; names must be unique"
    for index, dataset in enumerate(datasets):
        if not dataset.data_paths:
            yield f"datasets[{index}].data_paths is empty; name at least one path"
        if dataset.dataset_split_name is not None and not _SPLIT_NAME.fullmatch(dataset.dataset_split_name):
            yield (
                f"datasets[{index}].dataset_split_name must be the name of one split, not "
                f"{dataset.dataset_split_name!r}; to read a part of it, set split or sampling, and for several splits "
                "add an entry for each to datasets"
            )
        if dataset.loss_weight is not None and not loss_weight(dataset.loss_weight):
            yield (
                f"datasets[{index}].loss_weight must be a number above 0, not {dataset.loss_weight:g}; to leave a data "
                "set out, remove its entry"
            )
        if dataset.reader is not None:
            yield from _reader_problems(f"datasets[{index}].reader", dataset.reader)
        yield from _split_problems(f"datasets[{index}].split", dataset)


def _split_problems(where: str, dataset: DatasetConfig) -> Iterator[str]:
    if dataset.split is None:
        return
    if dataset.validation_rows is not None:
        yield f"{where}: validation_rows replaces it; set only one of them"
    fractions = (dataset.split.train, dataset.split.validation)
    total = sum(fraction or 0 for fraction in fractions)
    if total > 1 + WEIGHT_TOLERANCE:
        yield f"{where}: train and validation sum to {total:g}, which is more than 1"
    if total == 0 and any(fraction is not None for fraction in fractions):
        yield f"{where} selects no rows; set train or validation to more than 0"


def _reader_problems(where: str, reader: ReaderConfig) -> Iterator[str]:
    if reader.delimiter is not None and (len(reader.delimiter) != 1 or reader.delimiter in '"\r\n\0'):
        yield f"{where}.delimiter must be one character, and no quote or line end, not {reader.delimiter!r}"
    if reader.encoding is not None and not _is_text_encoding(reader.encoding):
        yield f"{where}.encoding must be an encoding that Python knows, such as latin-1, not {reader.encoding!r}"
    if reader.json_field == "":
        yield f"{where}.json_field is empty"


def _is_text_encoding(name: str) -> bool:
    try:
        b"a".decode(name, "replace")  # an error if it is not one of text, such as hex
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        return False
    return True
