"""Runs without a data config: derives the data sets, with their handlers, from a few options and the columns."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import PurePosixPath

from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig, SplitConfig
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.rows import INPUT_IDS, LABELS
from sftkit.core.splits import VALIDATION
from sftkit.errors import ConfigError
from sftkit.handlers.convert_messages import CONVERSATION_COLUMNS
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.storage.paths import is_url, parse_path

ColumnsOf = Callable[[DatasetConfig], Collection[str]]
"""Returns the columns of the first rows of a data set."""

DEFAULT_TEXT_FIELD = "text"
FORMATTED_TEXT_FIELD = "formatted_text"


def resolve_datasets(options: DataOptions, columns_of: ColumnsOf) -> tuple[DatasetConfig, ...]:
    """Return the data sets of a config: those that it lists, or those that `training_data_path` and others stand for.

    Raises:
        ConfigError: neither the options nor the columns tell how to tokenize the rows.
    """
    if options.datasets:
        return options.datasets
    parts: list[DatasetConfig] = []
    if options.training_data_path:
        parts.append(DatasetConfig(name="training_data", data_paths=options.training_data_path))
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
    return tuple(_with_handlers(part, options, columns_of(part)) for part in parts)


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
    )


def _with_handlers(dataset: DatasetConfig, options: DataOptions, columns: Collection[str]) -> DatasetConfig:
    handlers = _handlers(options, columns, dataset)
    return DatasetConfig(
        name=dataset.name,
        data_paths=dataset.data_paths,
        split=dataset.split,
        dataset_split_name=dataset.dataset_split_name,
        data_handlers=tuple(handlers),
    )


def _handlers(options: DataOptions, columns: Collection[str], dataset: DatasetConfig) -> list[HandlerConfig]:
    """Choose handlers by the options, or by the columns if no option tells."""
    if {INPUT_IDS, LABELS} <= set(columns):
        return []
    if options.data_formatter_template is not None:
        field = options.dataset_text_field or FORMATTED_TEXT_FIELD
        return [
            _handler(
                "apply_custom_data_formatting_template",
                dataset_text_field=field,
                template=options.data_formatter_template,
            )
        ]
    if options.dataset_conversation_field is not None:
        return _conversation_handlers(options, options.dataset_conversation_field)
    if options.input_field_name is not None and options.output_field_name is not None:
        return [_pair_handler(options.input_field_name, options.output_field_name)]
    if options.dataset_text_field is not None:
        return _text_handlers(options, options.dataset_text_field)
    if INPUT_IDS in columns:
        return []
    for column in CONVERSATION_COLUMNS:
        if column in columns:
            return _conversation_handlers(options, column)
    if {"input", "output"} <= set(columns):
        return [_pair_handler("input", "output")]
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
    return [_handler("add_tokenizer_eos_token", dataset_text_field=column, only_if_missing=True)]


def _conversation_handlers(options: DataOptions, column: str) -> list[HandlerConfig]:
    """Convert formats that chat templates do not know; the columns do not tell which rows need it."""
    convert = _handler("convert_to_messages", conversation_column=column, messages_column=column, only_if_needed=True)
    if options.response_template is not None:
        field = options.dataset_text_field or FORMATTED_TEXT_FIELD
        return [
            convert,
            _handler("apply_tokenizer_chat_template", dataset_text_field=field, conversation_column=column),
        ]
    return [convert, _handler("tokenize_and_apply_chat_template_with_masking", conversation_column=column)]


def _pair_handler(source: str, target: str) -> HandlerConfig:
    return _handler("tokenize_and_apply_input_masking", input_field_name=source, output_field_name=target)


def _handler(name: str, **arguments: object) -> HandlerConfig:
    return HandlerConfig(name=name, arguments={"fn_kwargs": arguments})


def _holds_validation_shards(path: str, options: DataOptions) -> bool:
    manifest = _manifest_of(path, options)
    return manifest is not None and VALIDATION in manifest.splits


def _manifest_of(path: str, options: DataOptions) -> Manifest | None:
    is_remote_file = is_url(path) and PurePosixPath(path).suffix  # a server may answer any request for a path below it
    return None if is_remote_file else read_manifest(parse_path(path, options.storage_options))
