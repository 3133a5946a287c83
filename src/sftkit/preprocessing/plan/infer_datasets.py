"""Runs without a data config: derives the data sets, with their handlers, from a few options and the columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig, SplitConfig
from sftkit.config.schema.option_values import FMS
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.rows import INPUT_IDS, LABELS, Batch
from sftkit.core.splits import VALIDATION
from sftkit.errors import ConfigError
from sftkit.handlers.segments import SEGMENTS, are_segments
from sftkit.handlers.text import DEFAULT_TEXT_FIELD, has_only_placeholders
from sftkit.preprocessing.plan.infer_handlers import (
    FORMATTED_TEXT_FIELD,
    conversation_handlers,
    handler_config,
    handlers_by_format,
    message_handlers,
    pair_handler,
)
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.storage.paths import is_url, parse_path


def list_datasets(options: DataOptions) -> tuple[DatasetConfig, ...]:
    """Return the data sets of a config: those that it lists, or those that `training_data_path` and others stand for.

    The latter have no handlers yet (`with_inferred_handlers`).
    """
    if options.datasets:
        return options.datasets
    parts: list[DatasetConfig] = []
    if options.training_data_path:
        parts.append(_training_data(options))
    if options.validation_data_path:
        whole = SplitConfig(validation=1.0)
        parts.append(DatasetConfig(name="validation_data", data_paths=options.validation_data_path, split=whole))
    elif any(_holds_validation_shards(path, options) for path in options.training_data_path):
        parts.append(
            DatasetConfig(
                name="validation_data",
                data_paths=options.training_data_path,
                split=SplitConfig(validation=1.0),
                dataset_split_name=VALIDATION,
            )
        )
    return tuple(replace(part, max_samples=options.max_samples) for part in parts)


def with_inferred_handlers(
    dataset: DatasetConfig, options: DataOptions, samples: Sequence[Batch], has_chat_template: Callable[[], bool]
) -> DatasetConfig:
    """Return a data set with the handlers that the options and its first rows ask for.

    Args:
        dataset: one of `list_datasets` for a config that lists none.
        options: of the run.
        samples: the first rows of some of its files.
        has_chat_template: whether the tokenizer has a chat template; asked only if that decides.

    Raises:
        ConfigError: neither the options nor the rows tell how to tokenize them, or they are not for SFT.
    """
    return replace(dataset, data_handlers=tuple(_handlers(options, samples, dataset, has_chat_template)))


def _training_data(options: DataOptions) -> DatasetConfig:
    """Describe the training data, some of whose rows may be for validation.

    Raises:
        ConfigError: they are shards that have a validation split already.
    """
    training = DatasetConfig(name="training_data", data_paths=options.training_data_path)
    if options.val_size is None:
        return training
    with_split = next((path for path in options.training_data_path if _holds_validation_shards(path, options)), None)
    if with_split is not None:
        raise ConfigError(f"val_size is given, but {with_split} has a validation split already; leave val_size out")
    if options.val_size < 1:
        train = round(1 - options.val_size, 12) if options.compat == FMS else None  # where it is not the rest
        return replace(training, split=SplitConfig(train=train, validation=options.val_size))
    return replace(training, validation_rows=int(options.val_size))


def options_for_text_shards(options: PreprocessConfig) -> PreprocessConfig:
    """Adapt options to text shards that `preprocess` wrote: the handlers that made their text must not run again.

    So the command line that made the shards, or that would tokenize the raw data, tokenizes them. For any other data
    the options are returned unchanged.
    """
    manifests = [_manifest_of(path, options) for path in options.training_data_path]
    columns = {manifest.text_column for manifest in manifests if manifest is not None}
    if len(columns) != 1 or None in columns or None in manifests:
        return options
    return replace(
        options,
        dataset_text_field=columns.pop(),
        data_formatter_template=None,
        dataset_conversation_field=None,
        input_field_name=None,
        output_field_name=None,
        chat=None,
    )


def _handlers(
    options: DataOptions, samples: Sequence[Batch], dataset: DatasetConfig, has_chat_template: Callable[[], bool]
) -> list[HandlerConfig]:
    """Choose handlers by the options, or by the rows if no option tells."""
    columns = samples[0].columns()
    if {INPUT_IDS, LABELS} <= set(columns):
        return []
    if options.data_formatter_template is not None:
        field = options.dataset_text_field or FORMATTED_TEXT_FIELD
        is_plain = has_only_placeholders(options.data_formatter_template, columns)
        name = "apply_custom_data_formatting_template" if is_plain else "apply_custom_jinja_template"
        return [handler_config(name, dataset_text_field=field, template=options.data_formatter_template)]
    if options.dataset_conversation_field is not None:
        return conversation_handlers(options, options.dataset_conversation_field)
    if options.input_field_name is not None and options.output_field_name is not None:
        if options.chat:
            named = {"input": options.input_field_name, "output": options.output_field_name}
            return message_handlers(options, format="input_output", columns=named)
        return [pair_handler(options.input_field_name, options.output_field_name)]
    if options.dataset_text_field is not None:
        return _text_handlers(options, options.dataset_text_field)
    if INPUT_IDS in columns:
        return []
    rows = [row for sample in samples for row in sample.rows]
    if any(are_segments(row.get(SEGMENTS)) for row in rows):
        return [handler_config("tokenize_segments", segments_column=SEGMENTS)]
    handlers = handlers_by_format(rows, options, has_chat_template, dataset.data_paths[0])
    if handlers is not None:
        return handlers
    if DEFAULT_TEXT_FIELD in columns:
        return _text_handlers(options, DEFAULT_TEXT_FIELD)
    raise ConfigError(
        f"{dataset.data_paths[0]}: cannot tell how to tokenize its rows (columns: {', '.join(columns) or 'none'}); set "
        "dataset_text_field, data_formatter_template, dataset_conversation_field, or input_field_name and "
        "output_field_name, or use a data config"
    )


def _text_handlers(options: DataOptions, column: str) -> list[HandlerConfig]:
    """Add the eos token to text that will be tokenized, so that the model learns to stop; leave other text."""
    if options.response_template is None and options.train_on != "all":
        return []
    return [handler_config("add_tokenizer_eos_token", dataset_text_field=column, only_if_missing=True)]


def _holds_validation_shards(path: str, options: DataOptions) -> bool:
    manifest = _manifest_of(path, options)
    return manifest is not None and VALIDATION in manifest.splits


def _manifest_of(path: str, options: DataOptions) -> Manifest | None:
    is_remote_file = is_url(path) and PurePosixPath(path).suffix  # a server may answer any request for a path below it
    return None if is_remote_file else read_manifest(parse_path(path, options.storage_options))
