"""The keys that `preprocess`, `inspect-shards` and `train` share: how rows become tokens, and how a run works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.fields import keys_where, option
from sftkit.config.schema.data_config import DatasetConfig, ProcessorConfig
from sftkit.config.schema.option_values import FMS, LOG_LEVELS, NO_COMPAT, NO_PACKING, SPLIT_TURNS
from sftkit.config.words import boolean_spellings

RUN_PANEL = "Run"
_DATA = "Data"
_TOKENIZER = "Tokenizer"
_ROWS = "Rows"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The keys that `preprocess`, `inspect-shards` and `train` share: how rows become tokens."""

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

    max_seq_length: int | None = option(
        None,
        minimum=1,
        panel=_ROWS,
        changes_rows=True,
        run_identity=True,
        help="Maximum length of a row in tokens. Default: no limit.",
    )
    overflow: str = option(
        "truncate",
        choices=("truncate", "truncate_left", SPLIT_TURNS, "drop", "error"),
        panel=_ROWS,
        changes_rows=True,
        run_identity=True,
        help="What to do with longer rows: keep their start (truncate) or their end (truncate_left), make several rows "
        "of a conversation (split_turns), drop them, or quarantine them (error).",
    )
    train_on: str = option(
        "assistant",
        choices=("assistant", "last_assistant", "all"),
        plugins="train_on",
        panel=_ROWS,
        changes_rows=True,
        help="Tokens to train: those of every assistant turn, of the last assistant turn, or all tokens.",
    )
    reasoning: str = option(
        "keep",
        choices=("keep", "mask"),
        panel=_ROWS,
        changes_rows=True,
        help="keep: train the reasoning of assistant turns; mask: train only from the start of the answer.",
    )
    chat_template_kwargs: Mapping[str, Any] = option(
        factory=dict,
        panel=_ROWS,
        changes_rows=True,
        help="Extra variables for the chat template, such as `{enable_thinking: false}`.",
    )
    template_date: str | None = option(
        None,
        panel=_ROWS,
        help="Day that a chat template is given if it asks for the date (`strftime_now`), as YYYY-MM-DD; the time is "
        "midnight. Default: the day the run was first planned; a run that continues keeps it.",
    )
    special_tokens_in_content: str = option(
        "keep",
        choices=("keep", "escape", "drop", "error"),
        panel=_ROWS,
        changes_rows=True,
        help="What to do when a message contains the text of a special token: keep it and report the row, escape it "
        "so that it stays text, drop the row, or quarantine the row (error).",
    )
    drop_empty_answers: bool = option(
        False,
        panel=_ROWS,
        changes_rows=True,
        help="Drop rows in which every answer that carries a loss is empty or only white space.",
    )
    token_kinds: bool = option(
        False,
        panel=_ROWS,
        changes_rows=True,
        help="Add a column `token_kinds` to the shards: whether each token is content, reasoning, part of a tool "
        "call, a stop token, or not trained.",
    )
    compat: str = option(
        NO_COMPAT,
        choices=(NO_COMPAT, FMS),
        panel=_ROWS,
        changes_rows=True,
        help="fms: make rows as fms-hf-tuning does where sftkit differs, and take its defaults: max_seq_length 4096, "
        "truncation in tokenize, bfloat16, special tokens that are added when the tokenizer has none.",
    )
    packing: str = option(
        NO_PACKING,
        choices=(NO_PACKING, "bfd", "wrapped"),
        plugins="packing",
        words=boolean_spellings(true="bfd", false=NO_PACKING),
        panel=_ROWS,
        help="How rows share a sequence. bfd: fill packs with whole rows (best-fit decreasing); wrapped: concatenate "
        "rows and cut them at pack_length. `false` means none, `true` means bfd.",
    )
    pack_length: int | None = option(
        None,
        minimum=1,
        panel=_ROWS,
        help="Maximum length of a pack in tokens. Default: max_seq_length. `overflow` applies to longer rows.",
    )
    max_bad_rows: float = option(
        0,
        minimum=0,
        panel=_ROWS,
        help="Number of unreadable or unusable rows to quarantine before the run fails. A value below 1 is a fraction "
        "of the rows read; 1 is one row, and 1.0 is refused because it could mean either.",
    )
    max_dropped_rows: float | None = option(
        None,
        minimum=0,
        panel=_ROWS,
        help="Number of rows that handlers and limits may drop before the run fails. A value below 1 is a fraction of "
        "the rows read. Default: no limit.",
    )
    keep_dropped: int = option(
        100_000,
        minimum=0,
        panel=_ROWS,
        help="Number of dropped rows to list in `dropped.jsonl`, the first of them. 0: no list.",
    )
    max_row_bytes: int = option(
        256 << 20,
        minimum=1,
        panel=_ROWS,
        changes_rows=True,
        help="Maximum size of a row in the source, in bytes. Larger rows are quarantined.",
    )
    max_expansion: float = option(
        1000,
        minimum=1,
        panel=_ROWS,
        help="Maximum ratio of decompressed to compressed bytes of a source. Protects from decompression bombs.",
    )

    engine: str = option(
        "auto",
        choices=("auto", "reference"),
        panel=RUN_PANEL,
        trusted_only=True,
        help="auto: use fast engines where they are verified to match the reference engine; reference: use only "
        "tokenizers and Jinja2.",
    )
    engine_verify: float = option(
        0.001,
        minimum=0,
        maximum=1,
        panel=RUN_PANEL,
        trusted_only=True,
        help="Fraction of the rows for which the result of a fast engine is compared with the reference engine.",
    )
    num_workers: int | None = option(
        None,
        minimum=1,
        panel=RUN_PANEL,
        trusted_only=True,
        help="Worker processes. Default: the cores available to this process, or to the Ray cluster.",
    )
    unit_size: int = option(
        4 << 20, minimum=1, panel=RUN_PANEL, trusted_only=True, help="Size of a work unit, in bytes of source."
    )
    log_level: str = option(
        "warning", choices=LOG_LEVELS, panel=RUN_PANEL, trusted_only=True, help="Minimum level of log messages."
    )


SECRET_KEYS = frozenset(
    key for section in (DataOptions, DatasetConfig) for key in keys_where(section, lambda info: info.secret)
)
"""Keys that may contain credentials. They are neither shown nor written to a manifest."""
