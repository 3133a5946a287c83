"""How rows become tokens: the configuration that the commands share, and the sections of a data config, as frozen
dataclasses. They are the one source of YAML keys, options, help and docs.

Required keys have no default. A tuple-typed key takes a YAML list, or one bare value for a list of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.fields import FALSE_WORDS, TRUE_WORDS, option

STOPPING_STRATEGIES = ("first_exhausted", "all_exhausted", "all_exhausted_without_replacement")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical", "passive")

RESERVED_VARIABLES = frozenset(
    {"messages", "conversation", "conversations", "tools", "documents", "chat_template", "add_generation_prompt"}
    | {"continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"}
    | {"return_assistant_tokens_mask", "tokenizer_kwargs"}
)
"""What `chat_template_kwargs` may not hold: transformers' `apply_chat_template` takes these for itself."""

SECRET_KEYS = frozenset({"storage_options"})
"""Keys that may hold passwords: they are used, and neither shown nor written down."""

_DATA = "Data"
_TOKENIZER = "Tokenizer"
_ROWS = "Rows"
RUN_PANEL = "Run"  # in the help of every command


@dataclass(frozen=True, kw_only=True)
class HandlerConfig:
    """One entry of `data_handlers`."""

    name: str = option(help="A handler's name, or `package.module:function` for your own row function.")
    arguments: Mapping[str, Any] = option(
        factory=dict,
        help="`fn_kwargs` (the handler's own arguments), `remove_columns`, `batched`, `batch_size`, `num_proc`.",
    )


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which fractions of a data set go to training and to validation; what is in neither is left out."""

    train: float | None = option(None, help="Fraction of the rows for training, 0 to 1.")
    validation: float | None = option(None, help="Fraction of the rows for validation, 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """One entry of `datasets`."""

    name: str = option(help="A name for the data set, used in reports.")
    data_paths: tuple[str, ...] = option(help="Files, directories, globs, fsspec URLs or one Hub id.")
    builder: str | None = option(
        None, help="File format (json, parquet, arrow, csv) or `datasets` builder, where the name does not tell."
    )
    subset: str | None = option(None, help="Which subset (`config_name`) of a Hub data set that has several.")
    sampling: float | None = option(None, help="Weight of this data set in the mix; all weights sum to 1.")
    split: SplitConfig | None = option(None, help="Fractions for `train` and `validation`.")
    dataset_split_name: str | None = option(None, help="Which split of a Hub data set or shard directory to read.")
    shuffle: bool = option(False, help="Shuffle the rows (by `dataprocessor.seed`) before splitting and mixing.")
    rename_columns: Mapping[str, str] = option(factory=dict, help="Columns renamed at load time, old: new.")
    retain_columns: tuple[str, ...] = option((), help="Columns to keep besides the token columns.")
    remove_columns: tuple[str, ...] = option((), help="Columns dropped at load time.")
    storage_options: Mapping[str, Any] = option(
        factory=dict, help="Options of the file systems behind its URLs, besides those of the run."
    )
    data_handlers: tuple[HandlerConfig, ...] = option((), help="What is done to each row, in order.")


@dataclass(frozen=True, kw_only=True)
class ProcessorConfig:
    """The `dataprocessor` section."""

    type: str = option("default", choices=("default",), help="Kind of processor; there is one.")
    seed: int = option(42, help="Seed of splitting, shuffling and mixing.")
    sampling_stopping_strategy: str = option(
        "all_exhausted", choices=STOPPING_STRATEGIES, help="When a weighted mix ends."
    )
    streaming: bool = option(
        False,
        help="Of `train`: each process reads its own part of the shards alone, file by file, and `shuffle_window` "
        "counts over all processes together. Refused by preprocess, which needs the whole data set.",
    )
    chat_template: str | None = option(None, literal=True, help="A Jinja chat template, instead of the tokenizer's.")
    chat_template_path: str | None = option(None, help="A file that holds the chat template.")
    chat_template_base64: str | None = option(None, help="The chat template, base64-encoded.")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What `preprocess`, `inspect-shards` and `train` have in common: how rows become tokens."""

    config: tuple[str, ...] = option(
        (),
        panel=RUN_PANEL,
        help="YAML or JSON file with any of these keys, or a manifest, whose run is then repeated; may be repeated, "
        "later ones win.",
    )
    data_config_path: str | None = option(
        None, panel=_DATA, help="A data config, YAML or JSON: `dataprocessor` and `datasets`."
    )
    training_data_path: tuple[str, ...] = option(
        (), panel=_DATA, help="Training data, when there is no data config: files, directories, globs, a Hub id."
    )
    validation_data_path: tuple[str, ...] = option(
        (), panel=_DATA, help="Validation data, when there is no data config."
    )
    dataset_text_field: str | None = option(None, panel=_DATA, help="Column that holds the text.")
    dataset_conversation_field: str | None = option(
        None, panel=_DATA, help="Column that holds the messages of a conversation."
    )
    input_field_name: str | None = option(None, panel=_DATA, help="Column that holds the input of a pair.")
    output_field_name: str | None = option(None, panel=_DATA, help="Column that holds the output of a pair.")
    data_formatter_template: str | None = option(
        None, literal=True, panel=_DATA, help="`{{column}}` template that makes the text of a row; eos is appended."
    )
    response_template: str | None = option(
        None, literal=True, panel=_DATA, help="Text that opens a response; only responses carry a loss."
    )
    instruction_template: str | None = option(
        None, literal=True, panel=_DATA, help="Text that opens an instruction and so ends the response before it."
    )
    dataprocessor: ProcessorConfig = option(
        factory=ProcessorConfig, panel=_DATA, help="The `dataprocessor` section of a data config."
    )
    datasets: tuple[DatasetConfig, ...] = option((), panel=_DATA, help="The `datasets` section of a data config.")
    storage_options: Mapping[str, Any] = option(
        factory=dict,
        panel=_DATA,
        help="Options of the file systems behind URLs (fsspec), such as `{endpoint_url: ...}`; those of one protocol "
        "may stand under its name, as in `{s3: {...}}`. They are neither shown nor written down.",
    )

    model_name_or_path: str | None = option(
        None, panel=_TOKENIZER, help="Model directory or Hub id; its tokenizer is used."
    )
    tokenizer_name_or_path: str | None = option(
        None, panel=_TOKENIZER, help="Tokenizer directory or Hub id, where it is not the model's."
    )
    trust_remote_code: bool = option(
        False, panel=_TOKENIZER, help="Run tokenizer or model code that comes with the files."
    )
    trust_packages: tuple[str, ...] = option(
        (),
        panel=RUN_PANEL,
        help="Installed packages whose functions `data_handlers` may name; those in modules of your own, which are not "
        "installed, need no leave.",
    )
    add_special_tokens: tuple[str, ...] = option(
        (), panel=_TOKENIZER, help="Tokens to add to the vocabulary as special tokens."
    )

    max_seq_length: int | None = option(None, panel=_ROWS, help="Longest row, in tokens. No limit when not given.")
    overflow: str = option(
        "truncate", choices=("truncate", "drop", "error"), panel=_ROWS, help="What happens to a longer row."
    )
    train_on: str = option(
        "assistant",
        choices=("assistant", "last_assistant", "all"),
        panel=_ROWS,
        help="Which tokens carry a loss: every assistant turn, the last one only, or all tokens.",
    )
    reasoning: str = option(
        "keep",
        choices=("keep", "mask"),
        panel=_ROWS,
        help="Whether reasoning carries a loss; mask leaves it out, up to where the answer begins.",
    )
    chat_template_kwargs: Mapping[str, Any] = option(
        factory=dict, panel=_ROWS, help="What the chat template is given besides, such as `{enable_thinking: false}`."
    )
    special_tokens_in_content: str = option(
        "keep",
        choices=("keep", "escape", "drop", "error"),
        panel=_ROWS,
        help="A message that holds the text of a special token is kept (and reported), escaped so that it stays text, "
        "or its row is dropped, or quarantined.",
    )
    packing: str = option(
        "none",
        choices=("none", "bfd", "wrapped"),
        plugins="packing",
        words={**dict.fromkeys(FALSE_WORDS, "none"), **dict.fromkeys(TRUE_WORDS, "bfd")},
        panel=_ROWS,
        help="How rows share a sequence: bfd fills packs with whole rows (best-fit decreasing), wrapped lays rows end "
        "to end and cuts; `false` means none, `true` bfd.",
    )
    pack_length: int | None = option(
        None, panel=_ROWS, help="Longest pack, in tokens; max_seq_length when not given. Longer rows follow overflow."
    )
    max_bad_rows: float = option(
        0,
        panel=_ROWS,
        help="How many unreadable or unusable rows may be quarantined before the run fails: a count, or below 1 a "
        "fraction of the rows read.",
    )
    max_row_bytes: int = option(
        256 << 20, panel=_ROWS, help="Longest row, in bytes of source as read; a longer one is quarantined."
    )
    max_expansion: float = option(
        1000, panel=_ROWS, help="Most bytes that a byte of a compressed source may become; against decompression bombs."
    )

    engine: str = option(
        "auto",
        choices=("auto", "reference"),
        panel=RUN_PANEL,
        help="auto: fast engines wherever they prove equal to the reference; reference: tokenizers and Jinja2 only.",
    )
    engine_verify: float = option(
        0.001,
        panel=RUN_PANEL,
        help="Fraction of rows that a fast engine makes and the reference makes again to compare.",
    )
    num_workers: int | None = option(
        None,
        panel=RUN_PANEL,
        help="Worker processes; by default the cores this process may use (of Ray: the cluster's).",
    )
    unit_size: int = option(4 << 20, panel=RUN_PANEL, help="Bytes of source one work unit covers.")
    log_level: str = option("warning", choices=LOG_LEVELS, panel=RUN_PANEL, help="How much is logged.")
