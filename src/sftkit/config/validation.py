"""What is wrong with a config that no single key shows, found before any data is read."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sftkit.config.commands import PreprocessConfig
from sftkit.config.fields import to_plain_data
from sftkit.config.schema import RESERVED_VARIABLES, DataOptions, DatasetConfig
from sftkit.errors import ConfigError

WEIGHT_TOLERANCE = 1e-6

_POSITIVE = (
    *("max_seq_length", "pack_length", "num_workers", "unit_size", "num_dataset_shards", "num_eval_dataset_shards"),
    *("max_row_bytes", "max_expansion"),
    *("tokens_per_device_batch", "shuffle_window", "lora_r", "lora_alpha", "sample_steps", "sample_max_new_tokens"),
)
_NOT_NEGATIVE = ("max_bad_rows", "rows", "row")
_SIMPLE_KEYS = (
    "dataset_text_field",
    "dataset_conversation_field",
    "input_field_name",
    "output_field_name",
    "data_formatter_template",
)


def validate_config(config: DataOptions) -> None:
    """Check a config as a whole.

    Raises:
        ConfigError: with everything found.
    """
    problems = list(_problems(config))
    if problems:
        raise ConfigError(problems)


def _problems(config: DataOptions) -> Iterator[str]:
    yield from _number_problems(config)
    yield from _processor_problems(config)
    yield from _template_problems(config)
    yield from _storage_problems(config)
    yield from _packing_problems(config)
    if config.datasets and config.training_data_path:
        yield "give either a data config (`datasets`) or training_data_path, not both"
    if isinstance(config, PreprocessConfig):
        yield from _executor_problems(config)
        if not config.datasets and not config.training_data_path and not config.validation_data_path:
            yield "no data: give data_config_path, `datasets`, or training_data_path"
        if config.dataprocessor.streaming:
            yield (
                "streaming: true cannot be preprocessed: shards are split, mixed and balanced over the whole data set; "
                "leave streaming out, memory does not grow with the data"
            )
    if bool(config.input_field_name) != bool(config.output_field_name):
        given = "input_field_name" if config.input_field_name else "output_field_name"
        yield f"{given} is given alone; input_field_name and output_field_name go together"
    if config.instruction_template is not None and config.response_template is None:
        yield "instruction_template is given without response_template"
    for key in ("response_template", "instruction_template", "data_formatter_template"):
        if getattr(config, key) == "":
            yield f"{key} is empty"
    if config.datasets:
        for key in _SIMPLE_KEYS[1:]:
            if getattr(config, key) is not None:
                yield f"{key} says how rows become text; with `datasets`, their data_handlers say it"
    yield from _dataset_problems(config.datasets)


def _executor_problems(config: PreprocessConfig) -> Iterator[str]:
    if config.executor == "local" and config.ray_address is not None:
        yield f"ray_address={config.ray_address} is given, and executor is local; say executor=ray"
    if config.executor == "ray" and importlib.util.find_spec("ray") is None:
        yield "executor: ray needs Ray, which is not installed; pip install 'sftkit[ray]'"


def _storage_problems(config: DataOptions) -> Iterator[str]:
    given = {"storage_options": config.storage_options}
    given |= {f"datasets[{place}].storage_options": each.storage_options for place, each in enumerate(config.datasets)}
    for where, options in given.items():
        if not options:
            continue
        from fsspec import available_protocols

        for name in sorted(set(options) & set(available_protocols())):
            if not isinstance(options[name], Mapping):
                yield f"{where}.{name} must be a mapping of options, not {type(options[name]).__name__}"


def _template_problems(config: DataOptions) -> Iterator[str]:
    for name in sorted(RESERVED_VARIABLES & set(config.chat_template_kwargs)):
        yield f"chat_template_kwargs may not hold {name!r}: apply_chat_template takes it for itself"
    try:
        json.dumps(to_plain_data(config.chat_template_kwargs))
    except TypeError as error:
        yield f"chat_template_kwargs must hold what JSON can: {error}"


def _packing_problems(config: DataOptions) -> Iterator[str]:
    if config.packing == "none" and config.pack_length is not None:
        yield "pack_length is given without packing; say packing=bfd, or packing=wrapped"
    if config.packing != "none" and config.pack_length is None and config.max_seq_length is None:
        yield f"packing={config.packing} needs a length: give pack_length, or max_seq_length"


def _number_problems(config: DataOptions) -> Iterator[str]:
    for key in _POSITIVE:
        value: Any = getattr(config, key, None)
        if isinstance(value, int | float) and value < 1:
            yield f"{key} must be 1 or more, not {value}"
    for key in _NOT_NEGATIVE:
        value = getattr(config, key, None)
        if isinstance(value, int | float) and value < 0:
            yield f"{key} must be 0 or more, not {value:g}"
    bad: Any = getattr(config, "max_bad_rows", 0)
    if bad > 1 and bad != int(bad):
        yield f"max_bad_rows must be a whole number of rows, or a fraction below 1, not {bad:g}"
    if not 0 <= config.engine_verify <= 1:
        yield f"engine_verify must lie between 0 and 1, not {config.engine_verify:g}"


def _processor_problems(config: DataOptions) -> Iterator[str]:
    keys = ("chat_template", "chat_template_path", "chat_template_base64")
    given = [key for key in keys if getattr(config.dataprocessor, key) is not None]
    if len(given) > 1:
        yield f"dataprocessor has {' and '.join(given)}; give one chat template"
    if config.dataprocessor.seed < 0:
        yield f"dataprocessor.seed must be 0 or more, not {config.dataprocessor.seed}"


def _dataset_problems(datasets: tuple[DatasetConfig, ...]) -> Iterator[str]:
    for name, count in Counter(dataset.name for dataset in datasets).items():
        if count > 1:
            yield f"datasets: the name {name!r} is used {count} times"
    for index, dataset in enumerate(datasets):
        where = f"datasets[{index}]"
        if not dataset.data_paths:
            yield f"{where}.data_paths is empty"
        yield from _split_problems(where, dataset)
        if dataset.sampling is not None and not 0 <= dataset.sampling <= 1:
            yield f"{where}.sampling must lie between 0 and 1, not {dataset.sampling}"
    training = [d for d in datasets if not (d.split and d.split.validation == 1)]
    weights = [dataset.sampling for dataset in training]
    if any(weight is not None for weight in weights):
        without = [dataset.name for dataset in training if dataset.sampling is None]
        if without:
            yield f"datasets: sampling is given for some and not for {', '.join(without)}; give it for all or none"
        elif abs(sum(weight or 0 for weight in weights) - 1) > WEIGHT_TOLERANCE:
            total = sum(weight or 0 for weight in weights)
            yield f"datasets: the sampling weights must sum to 1, not {total:g}"


def _split_problems(where: str, dataset: DatasetConfig) -> Iterator[str]:
    if dataset.split is None:
        return
    given = {"train": dataset.split.train, "validation": dataset.split.validation}
    for name, fraction in given.items():
        if fraction is not None and not 0 <= fraction <= 1:
            yield f"{where}.split.{name} must lie between 0 and 1, not {fraction}"
    total = sum(fraction or 0 for fraction in given.values())
    if total > 1 + WEIGHT_TOLERANCE:
        yield f"{where}.split: train and validation sum to {total:g}, which is more than 1"
    if total == 0 and any(fraction is not None for fraction in given.values()):
        yield f"{where}.split takes no rows at all"
