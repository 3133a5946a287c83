"""The configuration of every command, as frozen dataclasses: the one source of YAML keys, options, help and docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sftkit.config.fields import FALSE_WORDS, TRUE_WORDS, option
from sftkit.config.schema import RUN_PANEL, DataOptions

_OUTPUT = "Output"
_MODEL = "Model"
_TRACKING = "Tracking"
_PREVIEW = "Preview"
_BATCHES = "Batches"
_ADAPTERS = "Adapters"


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(DataOptions):
    """`sftkit preprocess`."""

    output_dir: str = option(panel=_OUTPUT, help="Directory the shards are written to.")
    num_dataset_shards: int = option(1, panel=_OUTPUT, help="Number of training shards.")
    num_eval_dataset_shards: int = option(1, panel=_OUTPUT, help="Number of validation shards.")
    overwrite: bool = option(False, panel=_OUTPUT, help="Replace the data set that `output_dir` holds.")
    staging_dir: str | None = option(
        None,
        panel=_OUTPUT,
        help="Where tokenized units are kept, for other runs to find; by default `.staging` in output_dir.",
    )
    keep_staging: bool = option(
        False,
        panel=_OUTPUT,
        help="Keep the tokenized units in output_dir, so that packing, mixing or sharding anew takes seconds.",
    )
    executor: str = option(
        "local",
        choices=("local", "ray"),
        panel=RUN_PANEL,
        help="Who runs the work units: worker processes of this machine, or a Ray cluster (extra: ray).",
    )
    ray_address: str | None = option(
        None,
        panel=RUN_PANEL,
        help="The Ray cluster of executor=ray: auto for the one that this machine is part of, HOST:PORT, or null for "
        "one of this machine alone, for this run.",
    )
    dry_run: bool = option(False, panel=RUN_PANEL, help="Print the resolved config and the plan; write nothing.")
    split_batches: bool = option(
        False, panel=RUN_PANEL, help="Of `train`; accepted here so that one command line serves."
    )
    use_flash_attn: bool = option(
        False, panel=RUN_PANEL, help="Of `train`; accepted here so that one command line serves."
    )


@dataclass(frozen=True, kw_only=True)
class InspectConfig(DataOptions):
    """`sftkit inspect-shards`."""

    directory: str | None = option(
        None, panel=_PREVIEW, help="Directory of shards, or one Parquet file; the first bare argument."
    )
    rows: int = option(1, panel=_PREVIEW, help="How many rows are shown.")
    row: int | None = option(None, panel=_PREVIEW, help="Show this row of the split (the first is 0).")
    shard: str | None = option(None, panel=_PREVIEW, help="Only this shard: its number or file name.")
    split: str | None = option(None, panel=_PREVIEW, help="Only this split, train or validation.")
    seed: int | None = option(None, panel=_PREVIEW, help="Show rows drawn at random with this seed.")
    verify: bool = option(
        False,
        panel=_PREVIEW,
        help="Check everything that the manifest says, and name what differs; exit code 1 if any.",
    )
    search: str | None = option(None, panel=_PREVIEW, help="Show rows whose decoded text contains this.")
    show_whitespace: bool = option(False, panel=_PREVIEW, help="Make spaces, tabs and line ends visible.")
    format: str = option("text", choices=("text", "json"), panel=_PREVIEW, help="How the report is printed.")
    audit: bool = option(
        False, panel=_PREVIEW, help="Check every row instead of showing some: masks, special tokens, cuts, duplicates."
    )
    fail_on: str | None = option(
        None,
        choices=("error", "warning"),
        panel=_PREVIEW,
        help="Audit, and exit with 1 when there are findings of this level or worse; without it, findings exit with 0.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataOptions):
    """`sftkit train`; every `transformers.TrainingArguments` field is accepted besides."""

    output_dir: str = option(panel=_OUTPUT, help="Directory for checkpoints, logs and the trained model.")
    cache_dir: str = option(
        "~/.cache/sftkit", panel=_OUTPUT, help="Where shards built from a data config are kept between runs."
    )
    init_from_config: bool = option(
        False, panel=_MODEL, help="Initialise at random a model directory that has a config and no weights."
    )
    torch_dtype: str | None = option(
        None,
        choices=("auto", "float32", "bfloat16", "float16"),
        panel=_MODEL,
        help="Data type the model is loaded in; float32 when not given.",
    )
    attn_implementation: str | None = option(
        None, panel=_MODEL, help="Attention of the model (eager, sdpa, flash_attention_2, ...)."
    )
    use_flash_attn: bool = option(
        False, panel=_MODEL, help="Flash attention where it is installed and a GPU is there, else SDPA."
    )
    use_reentrant: bool | None = option(None, panel=_MODEL, help="Reentrant gradient checkpointing.")
    allow_mismatch: bool = option(
        False, panel=_MODEL, help="Train on shards made with another tokenizer or chat template."
    )
    padding_free: str = option(
        "auto",
        choices=("auto", "true", "false"),
        words={**dict.fromkeys(FALSE_WORDS, "false"), **dict.fromkeys(TRUE_WORDS, "true")},
        panel=_BATCHES,
        help="Rows of a batch laid end to end without padding; auto does so wherever the model keeps them apart.",
    )
    tokens_per_device_batch: int | None = option(
        None,
        panel=_BATCHES,
        help="Tokens in a batch of one device at most, instead of per_device_train_batch_size rows.",
    )
    shuffle_window: int = option(
        64 << 20,
        panel=_BATCHES,
        help="Tokens that are shuffled together, and held in memory (8 bytes each), at a time.",
    )
    split_batches: bool = option(
        False, panel=_BATCHES, help="`per_device_train_batch_size` is then the batch of all devices together."
    )
    freeze: tuple[str, ...] = option(
        (), panel=_MODEL, help="Parameters that are not trained: names, parts of names, or patterns with `*`."
    )
    use_peft: bool = option(False, panel=_ADAPTERS, help="Train LoRA adapters instead of the model (extra: peft).")
    load_in_4bit: bool = option(
        False, panel=_ADAPTERS, help="QLoRA: hold the frozen model in 4 bits (extra: qlora); implies use_peft."
    )
    lora_r: int = option(16, panel=_ADAPTERS, help="Rank of the adapters.")
    lora_alpha: int = option(32, panel=_ADAPTERS, help="Scale of the adapters, over their rank.")
    lora_dropout: float = option(0.0, panel=_ADAPTERS, help="Dropout in front of the adapters.")
    lora_target_modules: tuple[str, ...] = option(
        ("all-linear",), panel=_ADAPTERS, help="Modules that get an adapter; all-linear: every linear one but the head."
    )
    lora_modules_to_save: tuple[str, ...] = option(
        (), panel=_ADAPTERS, help="Modules that are trained as a whole and saved with the adapters."
    )
    merge_lora: bool = option(
        False, panel=_ADAPTERS, help="Save the model with its adapters merged into it, besides the adapters."
    )
    sample_prompts: tuple[str, ...] = option(
        (), literal=True, panel=_TRACKING, help="Prompts that the model answers while it trains, to be looked at."
    )
    sample_steps: int = option(100, panel=_TRACKING, help="The model answers sample_prompts every so many steps.")
    sample_max_new_tokens: int = option(64, panel=_TRACKING, help="Longest answer to a sample prompt, in tokens.")
    include_tokens_per_second: bool = option(
        False, panel=_TRACKING, help="Accepted for older command lines: tokens per second are always logged."
    )
    aim_repo: str | None = option(None, panel=_TRACKING, help="Aim repository to log to (extra: aim).")
    experiment: str | None = option(None, panel=_TRACKING, help="Aim experiment name.")
    training_arguments: Mapping[str, Any] = option(
        factory=dict, panel=RUN_PANEL, help="`transformers.TrainingArguments` fields, also as options of their own."
    )


def to_preprocess_config(options: DataOptions, output_dir: str) -> PreprocessConfig:
    """The same data, tokenizer and rules as a config of `preprocess`, for the commands that build what they need.

    Training may stream shards; they are made of the whole data set all the same.
    """
    shared = {field.name: getattr(options, field.name) for field in fields(DataOptions)}
    shared["dataprocessor"] = replace(options.dataprocessor, streaming=False)
    return PreprocessConfig(**shared, output_dir=output_dir)
