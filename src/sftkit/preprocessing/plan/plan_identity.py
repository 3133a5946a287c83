"""What identifies the result of a plan: the tokenizer that rows depend on, and the fingerprint of all inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sftkit.config.fields import to_plain_data
from sftkit.config.schema.deduplicate_options import deduplicate_identity
from sftkit.config.schema.mix_choices import amount_of, is_mixed_by_amounts, stage_weights
from sftkit.config.schema.option_values import SFTKIT
from sftkit.config.schema.order_choice import read_row_order
from sftkit.ordering.packing import packing_identity
from sftkit.preprocessing.pipeline.recipe import Recipe
from sftkit.preprocessing.plan.unit_keys import TOKENIZER_LIMITS, recipe_key
from sftkit.shards.formats.output_formats import OUTPUT_FORMATS, PARQUET
from sftkit.shards.manifest import TokenizerInfo
from sftkit.sources.reader_options import reader_identity
from sftkit.sources.work_units import ScannedFile
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.loading.tokenizer_files import tokenizer_file_hashes
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec


def tokenizer_info(chat_tokenizer: ChatTokenizer, spec: TokenizerSpec | None) -> TokenizerInfo | None:
    """Return what the manifest says about the tokenizer; None if the config names none."""
    if spec is None:
        return None
    tokenizer = chat_tokenizer.tokenizer
    fingerprint, chat_template_sha256, _ = chat_tokenizer.identity
    template = tokenizer.chat_template
    return TokenizerInfo(
        name=spec.name,
        vocabulary_size=len(tokenizer),
        eos_token=tokenizer.eos_token if isinstance(tokenizer.eos_token, str) else None,
        fingerprint=fingerprint,
        chat_template_sha256=chat_template_sha256,
        added_special_tokens=spec.added_special_tokens,
        adds_missing_tokens=spec.adds_missing_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        chat_template=json.dumps(template, sort_keys=True, indent=1) if isinstance(template, dict) else template,
        files=tokenizer_file_hashes(spec.name),
    )


def tokenizer_identity(chat_tokenizer: ChatTokenizer, info: TokenizerInfo) -> dict[str, Any]:
    """Return everything about the tokenizer that rows depend on, as JSON can hold it."""
    tokenizer = chat_tokenizer.tokenizer
    return {
        "fingerprint": info.fingerprint,
        "chat_template": info.chat_template_sha256,
        "stop_tokens": chat_tokenizer.stop_tokens,
        "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
        TOKENIZER_LIMITS: [tokenizer.model_max_length, tokenizer.truncation_side],
        "files": {} if tokenizer.is_fast else info.files,  # a fast tokenizer is covered by its fingerprint
    }


def plan_fingerprint(recipe: Recipe, files: tuple[ScannedFile, ...], identity: Mapping[str, Any]) -> str:
    """Hash everything that decides the bytes of the shards; names and paths do not."""
    config, datasets = recipe.options, recipe.datasets
    numbers = {dataset.name: number for number, dataset in enumerate(datasets)}
    content: dict[str, Any] = {
        "sources": [
            (numbers[f.file.dataset], f.file.format, f.file.compression, f.sha256, *reader_identity(f.file.reader))
            for f in files
        ],
        "recipes": [recipe_key(dataset, config, identity, recipe.questions) for dataset in datasets],
        "mixing": [[to_plain_data(dataset.split), dataset.sampling, dataset.shuffle] for dataset in datasets],
        "order": [config.dataprocessor.seed, config.dataprocessor.sampling_stopping_strategy],
        "shards": [getattr(config, key, None) for key in ("num_dataset_shards", "num_eval_dataset_shards")],
    }
    for key in ("max_samples", "validation_rows"):
        if any(getattr(dataset, key) is not None for dataset in datasets):
            content[key] = [getattr(dataset, key) for dataset in datasets]
    if any(dataset.loss_weight not in (None, 1) for dataset in datasets):
        content["loss_weight"] = [dataset.loss_weight for dataset in datasets]
    if config.source_column:
        content["source_column"] = list(numbers)  # the manifest has their names
    trainer = getattr(config, "parquet_columns", SFTKIT)
    if trainer != SFTKIT:
        content["parquet_columns"] = trainer
    content |= _mix_identity(recipe)
    order = read_row_order(config.dataprocessor.order)
    if order is not None:
        content["row_order"] = str(order)
    if config.dataprocessor.deduplicate is not None:
        content["deduplicate"] = deduplicate_identity(
            config.dataprocessor.deduplicate, [dataset.name for dataset in datasets]
        )
    formats = getattr(config, "output_format", (PARQUET,))
    if formats != (PARQUET,):
        content["output_format"] = [(name, OUTPUT_FORMATS.identity(name)) for name in formats]
    if getattr(config, "pad_seq_to_multiple", 1) != 1:
        content["pad_seq_to_multiple"] = getattr(config, "pad_seq_to_multiple", 1)
    packing = packing_identity(config)
    if packing:
        content["packing"] = packing
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _mix_identity(recipe: Recipe) -> dict[str, Any]:
    """What decides the mix besides `sampling`; {} if there is nothing, as in older data sets."""
    datasets, processor = recipe.datasets, recipe.options.dataprocessor
    if not is_mixed_by_amounts(datasets, processor):
        return {}
    names = [dataset.name for dataset in datasets]
    weights = [stage_weights(stage.weights, names) for stage in processor.stages]
    return {
        "amounts": [amount_of(dataset) for dataset in datasets],
        "stages": [
            (stage.until, [of_stage.get(name) for name in names])
            for stage, of_stage in zip(processor.stages, weights, strict=True)
        ],
        "mix": [processor.mix_by, processor.total_rows, processor.total_tokens],
    }
