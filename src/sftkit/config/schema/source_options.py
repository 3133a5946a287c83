"""The keys of `preprocess`, `inspect-shards` and `train` that name the data, its columns and the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.fields import option
from sftkit.config.schema.data_config import DatasetConfig, ProcessorConfig

RUN_PANEL = "Run"
_DATA = "Data"
_TOKENIZER = "Tokenizer"


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where rows come from, and the tokenizer."""

    config: tuple[str, ...] = option(
        (),
        panel=RUN_PANEL,
        trusted_only=True,
        per_run=True,
        help="YAML or JSON file with any of these keys, or a manifest to repeat its run. Can be given several times; "
        "later files take precedence.",
    )
    data_config_path: str | None = option(
        None,
        location=True,
        panel=_DATA,
        shorthand_for="datasets",
        help="Data config in YAML or JSON, with `dataprocessor` and `datasets`.",
    )
    training_data_path: tuple[str, ...] = option(
        (),
        location=True,
        panel=_DATA,
        shorthand_for="datasets",
        help="Training data if there is no data config: files, directories, globs or a Hub id.",
    )
    validation_data_path: tuple[str, ...] = option(
        (), location=True, panel=_DATA, shorthand_for="datasets", help="Validation data if there is no data config."
    )
    val_size: float | None = option(
        None,
        minimum=0,
        panel=_DATA,
        shorthand_for="datasets",
        help="Rows of training_data_path to use for validation instead: a fraction below 1, or a number of rows.",
    )
    max_samples: int | None = option(
        None,
        minimum=1,
        panel=_DATA,
        shorthand_for="datasets",
        help="Use only this many rows of training_data_path, and as many of validation_data_path: the first ones.",
    )
    dataset_text_field: str | None = option(None, panel=_DATA, changes_rows=True, help="Column with the text.")
    dataset_conversation_field: str | None = option(
        None, panel=_DATA, shorthand_for="data_handlers", help="Column with the messages of a conversation."
    )
    input_field_name: str | None = option(
        None, panel=_DATA, shorthand_for="data_handlers", help="Column with the input of an input/output pair."
    )
    output_field_name: str | None = option(
        None,
        panel=_DATA,
        shorthand_for="data_handlers",
        help="Column with the output of an input/output pair. Alone: the column with the answer in rows of a known "
        "format, such as `chosen`.",
    )
    chat: bool | None = option(
        None,
        panel=_DATA,
        shorthand_for="data_handlers",
        help="true: pairs (`input`/`output`, `prompt`/`completion`) go through the chat template, too; false: no "
        "question and answer does. Default: all but pairs, if the tokenizer has a chat template.",
    )
    data_formatter_template: str | None = option(
        None,
        literal=True,
        panel=_DATA,
        shorthand_for="data_handlers",
        help="Template for the text of a row: `{{column}}` placeholders, or Jinja with the columns, `element` and the "
        "special tokens as variables. The eos token is appended, unless Jinja has written it.",
    )
    response_template: str | None = option(
        None,
        literal=True,
        panel=_DATA,
        changes_rows=True,
        help="Text that starts a response. Only responses are trained.",
    )
    instruction_template: str | None = option(
        None,
        literal=True,
        panel=_DATA,
        changes_rows=True,
        help="Text that starts an instruction, and so ends the response before it.",
    )
    ignore_columns: tuple[str, ...] = option(
        (),
        panel=_DATA,
        help="Columns that need not be used, and are not reported. Without it, a column such as `instruction` or "
        "`tools` that nothing uses is an error.",
    )
    dataprocessor: ProcessorConfig = option(
        factory=ProcessorConfig, panel=_DATA, help="The `dataprocessor` section of a data config."
    )
    datasets: tuple[DatasetConfig, ...] = option((), panel=_DATA, help="The `datasets` section of a data config.")
    storage_options: Mapping[str, Any] = option(
        factory=dict,
        panel=_DATA,
        secret=True,
        trusted_only=True,
        help="fsspec options for URLs, such as `{endpoint_url: ...}`, or per protocol, such as `{s3: {...}}`. They "
        "are neither shown nor written to the manifest.",
    )

    model_name_or_path: str | None = option(
        None,
        location=True,
        panel=_TOKENIZER,
        run_identity=True,
        help="Model directory or Hub id. Its tokenizer is used.",
    )
    tokenizer_name_or_path: str | None = option(
        None, location=True, panel=_TOKENIZER, help="Tokenizer directory or Hub id, if it differs from the model's."
    )
    trust_remote_code: bool = option(
        False, panel=_TOKENIZER, trusted_only=True, help="Run Python code that comes with a tokenizer or model."
    )
    trust_packages: tuple[str, ...] = option(
        (),
        panel=RUN_PANEL,
        trusted_only=True,
        help="Packages whose functions `data_handlers` may call. Modules of your own, below the working directory or "
        "the directory of the config, need no permission.",
    )
    add_special_tokens: tuple[str, ...] = option(
        (), panel=_TOKENIZER, run_identity=True, help="Special tokens to add to the vocabulary."
    )
