"""Configuration of the commands `preprocess`, `inspect-shards` and `train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sftkit.config.fields import option
from sftkit.config.schema.adapter_options import AdapterOptions
from sftkit.config.schema.model_options import ModelOptions
from sftkit.config.schema.option_values import AXOLOTL, LLAMAFACTORY, SFTKIT, TRL
from sftkit.config.schema.plan_options import PlanOptions
from sftkit.config.schema.shared_options import DataOptions
from sftkit.config.schema.source_options import RUN_PANEL
from sftkit.config.schema.training_options import TrainingOptions
from sftkit.config.words import boolean_spellings

_OUTPUT = "Output"
_MODEL = "Model"
_TRACKING = "Tracking"
_PREVIEW = "Preview"
_BATCHES = "Batches"
_ONLY_TRAIN = "Used only by `train`; ignored here."


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(DataOptions):
    """`sftkit preprocess`."""

    output_dir: str = option(location=True, panel=_OUTPUT, trusted_only=True, help="Directory for the shards.")
    num_dataset_shards: int = option(1, minimum=1, panel=_OUTPUT, help="Number of training shards.")
    num_eval_dataset_shards: int = option(1, minimum=1, panel=_OUTPUT, help="Number of validation shards.")
    output_format: tuple[str, ...] = option(
        ("parquet",),
        choices=("parquet", "jsonl", "mds", "npy", "megatron", "nemo"),
        plugins="output_formats",
        refused={
            "litdata": "LitGPT's loader of LitData trains every token; write parquet, which it loads with the lines in "
            "docs/interop.md",
        },
        panel=_OUTPUT,
        help="Formats of the shards, one or several. parquet: what `train` reads; jsonl: JSON "
        "Lines; mds: MosaicML Streaming; npy: an array of each column, for loaders of your own; megatron: indexed "
        ".bin/.idx with loss masks, and packed Parquet of Megatron-Bridge; nemo: packed .npy. All but Parquet have a "
        "folder of their name in output_dir.",
    )
    pad_seq_to_multiple: int = option(
        1,
        minimum=1,
        panel=_OUTPUT,
        help="In the packed files of megatron and nemo, pad each sequence so that its labels are a multiple of this: "
        "twice the context parallel size. Default: no padding.",
    )
    parquet_columns: str = option(
        SFTKIT,
        choices=(SFTKIT, TRL, AXOLOTL, LLAMAFACTORY),
        panel=_OUTPUT,
        help="Names and columns of the Parquet shards: those of sftkit, or those that another trainer reads.",
    )
    overwrite: bool = option(
        False, per_run=True, panel=_OUTPUT, trusted_only=True, help="Replace the data set in `output_dir`."
    )
    append: bool = option(
        False,
        per_run=True,
        panel=_OUTPUT,
        trusted_only=True,
        help="Add shards of new files to the data set in `output_dir`, whose other files and keys must be the same.",
    )
    staging_dir: str | None = option(
        None,
        location=True,
        panel=_OUTPUT,
        trusted_only=True,
        help="Directory for staged units, which other runs can reuse. Default: `.staging` in output_dir.",
    )
    keep_staging: bool = option(
        False,
        panel=_OUTPUT,
        trusted_only=True,
        help="Keep the staged units in output_dir, so that packing, mixing or sharding again takes seconds.",
    )
    executor: str = option(
        "local",
        choices=("local", "ray"),
        panel=RUN_PANEL,
        trusted_only=True,
        help="Where to run the work units: in worker processes on this machine or on a Ray cluster (extra: ray).",
    )
    ray_address: str | None = option(
        None,
        location=True,
        panel=RUN_PANEL,
        trusted_only=True,
        help="Ray cluster for executor=ray: auto (the cluster this machine belongs to), HOST:PORT, or null to start "
        "one on this machine for this run.",
    )
    dry_run: bool = option(
        False,
        per_run=True,
        panel=RUN_PANEL,
        trusted_only=True,
        help="Print the resolved config and the plan without writing anything.",
    )
    split_batches: bool = option(False, panel=RUN_PANEL, help=_ONLY_TRAIN)
    use_flash_attn: bool = option(False, panel=RUN_PANEL, help=_ONLY_TRAIN)


@dataclass(frozen=True, kw_only=True)
class InspectConfig(DataOptions):
    """`sftkit inspect-shards`."""

    directory: str | None = option(
        None,
        location=True,
        panel=_PREVIEW,
        help="Directory of shards, or one file, of sftkit or of another tool. Also the first positional argument.",
    )
    rows: int = option(1, minimum=0, panel=_PREVIEW, help="Number of rows to show.")
    row: int | None = option(None, minimum=0, panel=_PREVIEW, help="Show the row with this index in the split, from 0.")
    shard: str | None = option(None, panel=_PREVIEW, help="Show only this shard, given by number or file name.")
    split: str | None = option(None, panel=_PREVIEW, help="Show only this split, train or validation.")
    seed: int | None = option(None, panel=_PREVIEW, help="Show random rows, chosen with this seed.")
    verify: bool = option(
        False,
        panel=_PREVIEW,
        help="Check the data set against its manifest and name all differences. The exit code is 1 if there are any.",
    )
    search: str | None = option(None, panel=_PREVIEW, help="Show rows of all splits whose decoded text contains this.")
    show_whitespace: bool = option(False, panel=_PREVIEW, help="Make spaces, tabs and line ends visible.")
    format: str = option("text", choices=("text", "json"), panel=_PREVIEW, help="Format of the report.")
    audit: bool = option(
        False,
        panel=_PREVIEW,
        help="Check every row instead of showing some: masks, special tokens, truncation, duplicates.",
    )
    fail_on: str | None = option(
        None,
        choices=("error", "warning"),
        panel=_PREVIEW,
        help="Audit, and exit with code 1 if there are findings of this level or worse. Without it, findings do not "
        "change the exit code.",
    )
    report: str | None = option(
        None,
        location=True,
        trusted_only=True,
        panel=_PREVIEW,
        help="Audit, and write a report with pictures and sampled rows to this HTML file. It is replaced if it exists. "
        "With compare, a report of the comparison.",
    )
    report_rows: int = option(
        48,
        minimum=0,
        maximum=500,
        panel=_PREVIEW,
        help="Maximum number of rows in that report, drawn with `seed` (with compare: the first differences of each "
        "kind). 0: no text from the data.",
    )
    by: str | None = option(
        None,
        choices=("source", "dataset"),
        panel=_PREVIEW,
        help="Show a table of rows and tokens by source or data set, before and after splitting and mixing.",
    )
    compare: str | None = option(
        None,
        location=True,
        panel=_PREVIEW,
        help="Compare with another directory of shards, or file: rows that differ or are only in one of them, "
        "whatever their order and packing. `rows` is the number of examples of each kind.",
    )
    compare_by: str | None = option(
        None,
        panel=_PREVIEW,
        help="Column whose value says which rows belong together, with compare. Default: position and content.",
    )
    fail_on_difference: bool = option(False, panel=_PREVIEW, help="With compare, exit with code 1 if any row differs.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(PlanOptions, ModelOptions, TrainingOptions, AdapterOptions):
    """`sftkit train`. All fields of `transformers.TrainingArguments` are accepted too."""

    output_dir: str = option(
        location=True, panel=_OUTPUT, help="Directory for checkpoints, logs and the trained model."
    )
    cache_dir: str = option(
        "~/.cache/sftkit",
        location=True,
        panel=_OUTPUT,
        help="Directory that keeps shards built from a data config between runs.",
    )
    save_model_dir: str | None = option(
        None, location=True, panel=_OUTPUT, help="Another directory for the trained model and its tokenizer."
    )
    do_dataprocessing_only: bool = option(
        False, per_run=True, panel=_OUTPUT, help="Only make the shards, in output_dir, as `preprocess` does."
    )
    num_dataset_shards: int = option(
        1, minimum=1, panel=_OUTPUT, help="Number of training shards, with do_dataprocessing_only."
    )
    num_eval_dataset_shards: int = option(
        1, minimum=1, panel=_OUTPUT, help="Number of validation shards, with do_dataprocessing_only."
    )
    init_from_config: bool = option(
        False,
        panel=_MODEL,
        run_identity=True,
        help="Initialize the weights at random, for a model directory that has a config but no weights.",
    )
    torch_dtype: str | None = option(
        None,
        choices=("auto", "float32", "bfloat16", "float16"),
        panel=_MODEL,
        run_identity=True,
        help="Data type of the model. Default: float32.",
    )
    attn_implementation: str | None = option(
        None, panel=_MODEL, help="Attention implementation (eager, sdpa, flash_attention_2, ...)."
    )
    use_flash_attn: bool = option(
        False, panel=_MODEL, help="Use flash attention if it is installed and there is a GPU, otherwise SDPA."
    )
    use_reentrant: bool | None = option(None, panel=_MODEL, help="Use reentrant gradient checkpointing.")
    embedding_size_multiple_of: int = option(
        1,
        minimum=1,
        panel=_MODEL,
        run_identity=True,
        help="Add rows to the embedding until their number is a multiple of this.",
    )
    allow_mismatch: bool = option(
        False, panel=_MODEL, help="Train on shards made with a different tokenizer or chat template."
    )
    padding_free: str = option(
        "auto",
        choices=("auto", "true", "false"),
        words={**boolean_spellings(true="true", false="false"), "huggingface": "true"},
        panel=_BATCHES,
        help="Concatenate the rows of a batch instead of padding them. auto: if the model keeps them separate.",
    )
    tokens_per_device_batch: int | None = option(
        None,
        minimum=1,
        panel=_BATCHES,
        run_identity=True,
        help="Maximum number of tokens in a batch per device, instead of per_device_train_batch_size rows.",
    )
    shuffle_window: int = option(
        64 << 20,
        minimum=1,
        panel=_BATCHES,
        run_identity=True,
        help="Number of tokens to shuffle together. They are held in memory, 8 bytes each.",
    )
    split_batches: bool = option(
        False, panel=_BATCHES, help="`per_device_train_batch_size` is the batch size of all devices together."
    )
    stop_on_nonfinite: int | None = option(
        None,
        minimum=1,
        panel=_TRACKING,
        help="Stop the run after this many steps in a row whose loss is not finite. Default: only warn.",
    )
    router_aux_loss_coef: float | None = option(
        None,
        minimum=0,
        panel=_MODEL,
        run_identity=True,
        help="Factor of the auxiliary (load-balancing) loss of a mixture of experts; 0: without it. Default: what the "
        "config of the model says.",
    )
    freeze: tuple[str, ...] = option(
        (),
        panel=_MODEL,
        run_identity=True,
        help="Parameters not to train: names, parts of names, or patterns with `*`.",
    )
    sample_prompts: tuple[str, ...] = option(
        (), literal=True, panel=_TRACKING, help="Prompts that the model answers during training, for inspection."
    )
    sample_steps: int = option(
        100, minimum=1, panel=_TRACKING, help="Number of steps between answers to sample_prompts."
    )
    sample_max_new_tokens: int = option(
        64, minimum=1, panel=_TRACKING, help="Maximum length of an answer to a sample prompt, in tokens."
    )
    include_tokens_per_second: bool = option(
        False, panel=_TRACKING, help="Accepted for compatibility and ignored: tokens per second are always logged."
    )
    aim_repo: str | None = option(None, location=True, panel=_TRACKING, help="Aim repository to log to (extra: aim).")
    experiment: str | None = option(None, panel=_TRACKING, help="Name of the Aim experiment.")
    exp_metadata: Mapping[str, Any] = option(
        factory=dict,
        panel=_TRACKING,
        help="Keys and values about the run, as JSON, for the first line of training_logs.jsonl and for Aim.",
    )
    training_arguments: Mapping[str, Any] = option(
        factory=dict,
        panel=RUN_PANEL,
        help="Fields of `transformers.TrainingArguments`. Each is also an option of its own.",
    )


def to_processing_only(config: TrainConfig) -> PreprocessConfig:
    """Return the `preprocess` config of a `train` config with `do_dataprocessing_only`."""
    return replace(
        to_preprocess_config(config, config.output_dir),
        num_dataset_shards=config.num_dataset_shards,
        num_eval_dataset_shards=config.num_eval_dataset_shards,
        dry_run=config.dry_run,
    )


def to_preprocess_config(options: DataOptions, output_dir: str) -> PreprocessConfig:
    """Return a `preprocess` config with the same shared keys, for commands that build shards themselves.

    `dataprocessor.streaming` is turned off: it concerns only how `train` reads the shards.
    """
    shared = {field.name: getattr(options, field.name) for field in fields(DataOptions)}
    shared["dataprocessor"] = replace(options.dataprocessor, streaming=False)
    return PreprocessConfig(**shared, output_dir=output_dir)
