"""The sections of a data config: data sets, with how they are read, split, mixed and handled, and `dataprocessor`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.aliases import NO_ONLINE_MIXING
from sftkit.config.fields import option
from sftkit.config.schema.decontaminate_options import DecontaminateConfig
from sftkit.config.schema.deduplicate_options import DeduplicateConfig

FIRST_EXHAUSTED, ALL_EXHAUSTED = "first_exhausted", "all_exhausted"
STOPPING_STRATEGIES = (FIRST_EXHAUSTED, ALL_EXHAUSTED, "all_exhausted_without_replacement")

ROWS, TOKENS, TRAINED_TOKENS = "rows", "tokens", "trained_tokens"
"""The values of `mix_by`: what shares of a mix count."""

WEIGHT, REPEAT, MAX_ROWS, MAX_TOKENS, TARGET_TOKENS = "weight", "repeat", "max_rows", "max_tokens", "target_tokens"
AMOUNT_KEYS = (WEIGHT, REPEAT, MAX_ROWS, MAX_TOKENS, TARGET_TOKENS)
"""Keys of a data set that say how much of it the train split gets, besides `sampling`."""


@dataclass(frozen=True, kw_only=True)
class HandlerConfig:
    """One entry of `data_handlers`."""

    name: str = option(help="Name of a handler, or `package.module:function` for a row function of your own.")
    arguments: Mapping[str, Any] = option(
        factory=dict,
        help="`fn_kwargs` (the handler's own arguments), `remove_columns`, `batched`, `batch_size`, `num_proc`.",
    )


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Fractions of a data set for training and for validation. The remaining rows are not used."""

    train: float | None = option(None, minimum=0, maximum=1, help="Fraction of the rows for training, 0 to 1.")
    validation: float | None = option(None, minimum=0, maximum=1, help="Fraction of the rows for validation, 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """How the files of a data set are read, where neither their names nor their contents tell."""

    delimiter: str | None = option(None, literal=True, help="Character between the fields of CSV. Default: a comma.")
    encoding: str | None = option(
        None,
        help="Encoding of JSON and CSV, such as latin-1. Default: UTF-8, or UTF-16 or UTF-32 if the file begins with "
        "its byte order mark.",
    )
    json_field: str | None = option(None, literal=True, help="Key of the list of rows, in JSON that is one object.")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """One entry of `datasets`."""

    name: str = option(help="Name of the data set in reports.")
    data_paths: tuple[str, ...] = option(location=True, help="Files, directories, globs, fsspec URLs or one Hub id.")
    builder: str | None = option(
        None,
        help="File format (json, parquet, arrow, csv, or one of a plugin) or `datasets` builder. Needed only if the "
        "file extension does not tell.",
    )
    reader: ReaderConfig | None = option(None, help="Options for reading CSV and JSON.")
    subset: str | None = option(None, help="Subset (`config_name`) of a Hub data set.")
    sampling: float | None = option(
        None, minimum=0, maximum=1, help="Weight of this data set in the mix. The weights of all data sets sum to 1."
    )
    loss_weight: float | None = option(
        None,
        help="Weight of this data set's tokens in the loss, above 0: the shards get a column `loss_weights`. "
        "Default: 1.",
    )
    weight: float | None = option(
        None, help="Share of this data set in the mix, relative to the weights of the others: any positive number."
    )
    repeat: float | None = option(
        None,
        help="How often to use the rows for training: 1 for each row once, 0.25 for a quarter, 2.5 for each row twice "
        "and half of them a third time.",
    )
    max_rows: int | None = option(None, minimum=1, help="Use at most this many rows for training, chosen by the seed.")
    max_tokens: int | None = option(
        None, minimum=1, help="Use at most this many tokens for training, in whole rows chosen by the seed."
    )
    target_tokens: int | None = option(
        None, minimum=1, help="Use this many tokens for training; rows are repeated or left out as needed."
    )
    split: SplitConfig | None = option(None, help="Fractions for `train` and `validation`.")
    validation_rows: int | None = option(
        None, minimum=1, help="Number of rows for validation, instead of `split`. The others are for training."
    )
    max_samples: int | None = option(
        None, minimum=1, help="Use only this many rows, the first ones in the order of the files. Default: all."
    )
    dataset_split_name: str | None = option(
        None, help="Split to read of a Hub data set, a directory or a glob. Default: train."
    )
    shuffle: bool | None = option(
        None,
        help="true: shuffle the rows with `dataprocessor.seed` before splitting and mixing. false: `split` takes the "
        "first rows for training and the next for validation. Default: only `split` shuffles.",
    )
    rename_columns: Mapping[str, str] = option(factory=dict, help="Columns to rename on loading, old name: new name.")
    retain_columns: tuple[str, ...] = option((), help="Columns to keep in addition to the token columns.")
    remove_columns: tuple[str, ...] = option((), help="Columns to drop on loading.")
    ignore_columns: tuple[str, ...] = option((), help="Columns that need not be used, and are not reported.")
    storage_options: Mapping[str, Any] = option(
        factory=dict,
        secret=True,
        help="fsspec options for its URLs, in addition to those of the run. A data config can set only some of them.",
    )
    data_handlers: tuple[HandlerConfig, ...] = option((), help="Handlers to apply to each row, in order.")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One entry of `stages`: a part of the train split with a mix of its own."""

    until: float | None = option(
        None, help="Where the stage ends, as a fraction of the whole. The last stage has none: it takes the rest."
    )
    weights: Mapping[str, float] = option(
        help="Name of a data set, or a pattern such as code-*: weight. Data sets that are not named are not in the "
        "stage."
    )


@dataclass(frozen=True, kw_only=True)
class ProcessorConfig:
    """The `dataprocessor` section."""

    type: str = option(
        "default",
        choices=("default",),
        refused={"odm": NO_ONLINE_MIXING},
        help="Kind of processor. There is only one.",
    )
    seed: int = option(42, minimum=0, help="Seed for splitting, shuffling and mixing.")
    sampling_stopping_strategy: str | None = option(
        None,
        choices=STOPPING_STRATEGIES,
        help="When a mix without a total ends. With `sampling` as in `interleave_datasets`; default: all_exhausted. "
        "With `weight` or `stages`, first_exhausted repeats no row, and all_exhausted uses each at least once; "
        "default: first_exhausted.",
    )
    mix_by: str = option(
        ROWS,
        choices=(ROWS, TOKENS, TRAINED_TOKENS),
        help="What `weight`, `repeat` and `stages` count. `sampling` always counts rows.",
    )
    total_rows: int | None = option(
        None, minimum=1, help="Rows of the train split, if data sets have a `weight` or there are `stages`."
    )
    total_tokens: int | None = option(
        None, minimum=1, help="Tokens of the train split, to within a row, instead of `total_rows`."
    )
    stages: tuple[StageConfig, ...] = option(
        (), help="Mixes that follow each other in the train split, in the order of the shards."
    )
    order: Any = option(
        None,
        help="Order of the rows of the train split, or of each stage: `shuffled`, `as_is` (data set after data set), "
        "`by_length` (shortest first), `length_grouped` (rows of similar length near each other), or `curriculum: "
        "COLUMN` (lowest number first; `-COLUMN`: highest first). Default: `shuffled` with a mix, as in "
        "`interleave_datasets` with `sampling`, else `as_is`.",
    )
    deduplicate: DeduplicateConfig | None = option(
        None,
        help="Remove rows that repeat another row of any data set, before rows are split and mixed. `exact` is short "
        "for `{method: exact}`.",
    )
    decontaminate: DecontaminateConfig | None = option(
        None,
        help="Drop rows that have words of evaluation questions in common. A list of paths is short for `{paths: "
        "[...]}`.",
    )
    streaming: bool = option(
        False,
        help="Used only by `train`: each process reads only its own part of the shards, file by file, and "
        "`shuffle_window` is shared by all processes. `preprocess` needs the whole data set and rejects it.",
    )
    chat_template: str | None = option(
        None,
        literal=True,
        help="A chat template to use instead of the tokenizer's: Jinja code, or the name of one of chatml, llama3, "
        "mistral, gemma and granite.",
    )
    chat_template_path: str | None = option(None, help="File with the chat template.")
    chat_template_base64: str | None = option(None, help="The chat template, base64-encoded.")
