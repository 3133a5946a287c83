"""The sections of a data config: data sets, with how they are read, split, mixed and handled, and `dataprocessor`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.aliases import NO_ONLINE_MIXING
from sftkit.config.fields import option

STOPPING_STRATEGIES = ("first_exhausted", "all_exhausted", "all_exhausted_without_replacement")


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
class ProcessorConfig:
    """The `dataprocessor` section."""

    type: str = option(
        "default",
        choices=("default",),
        refused={"odm": NO_ONLINE_MIXING},
        help="Kind of processor. There is only one.",
    )
    seed: int = option(42, minimum=0, help="Seed for splitting, shuffling and mixing.")
    sampling_stopping_strategy: str = option(
        "all_exhausted", choices=STOPPING_STRATEGIES, help="When a weighted mix ends, as in `interleave_datasets`."
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
