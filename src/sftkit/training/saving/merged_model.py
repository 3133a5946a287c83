"""Merge adapters into the model that they were trained on, and save the result as a model of its own."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig
from transformers.trainer_utils import align_special_tokens
from transformers.utils import logging as transformers_logging

from sftkit.config.commands import TrainConfig
from sftkit.errors import TrainingError
from sftkit.storage.model_location import model_location
from sftkit.tokenization.loading.tokenizer_loading import load_tokenizer, tokenizer_spec
from sftkit.training.adapters.adapter_choice import adapters_to_merge
from sftkit.training.adapters.trained_adapters import merge_into
from sftkit.training.models.model_loading import embedding_rows, fit_embeddings, load_model
from sftkit.training.multimodal.processor_files import copy_processor_files, find_processor_files
from sftkit.training.saving.saved_dtype import save_as

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

MERGED_DIR = "merged"
"""Directory in `output_dir` for the model with its adapters merged into it."""


def save_merged(
    config: TrainConfig, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerBase, known_tokens: int
) -> Path:
    """Merge the adapters in `output_dir` into the model, and save it with the tokenizer to `<output_dir>/merged`.

    The model is loaded again, on the CPU and in the data type of the run: merging into a model in 4 bits would round
    the sum to 4 bits again, and no process holds the whole of a sharded model. Call it in the main process only, when
    the adapters are saved.

    Args:
        config: the run.
        arguments: its training arguments.
        tokenizer: as saved with the adapters.
        known_tokens: how many of its tokens the model was trained with before the run.

    Returns:
        The directory.

    Raises:
        TrainingError: the model cannot be loaded again.
    """
    folder = Path(config.output_dir) / MERGED_DIR
    model = merge_into(_base(config, arguments), adapters_to_merge(config))
    fit_embeddings(model, len(tokenizer), known_tokens, config.embedding_size_multiple_of)
    _save(merge_into(model, [config.output_dir]), tokenizer, folder, config.save_dtype)
    copy_processor_files(find_processor_files(model_location(config.model_name_or_path or "")), folder)
    del model
    gc.collect()
    return folder


def save_merged_only(config: TrainConfig, arguments: TrainingArguments) -> Path:
    """Merge adapters of earlier runs into their model, and save it with the tokenizer to `output_dir`.

    The sums are computed in float32, unless `torch_dtype` is set, and saved in the data type of the model, unless
    `save_dtype` is set.

    Args:
        config: names the adapters; resolved by `with_adapters`.
        arguments: made from it.

    Returns:
        The directory.

    Raises:
        TrainingError: model and adapters do not fit together, or the tokenizer has more tokens than they know.
        TokenizerError: the tokenizer cannot be loaded.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    spec = tokenizer_spec(config)
    assert spec is not None, "the name of the model was checked"
    tokenizer = load_tokenizer(spec)
    model = merge_into(_base(config, arguments), adapters_to_merge(config))
    if len(tokenizer) > embedding_rows(model):
        raise TrainingError(
            f"the tokenizer {spec.name} has {len(tokenizer)} tokens, and the merged model has an embedding of "
            f"{embedding_rows(model)}; set tokenizer_name_or_path to the tokenizer that the adapter was trained with"
        )
    folder = Path(config.output_dir)
    _save(model, tokenizer, folder, config.save_dtype or (None if config.torch_dtype else _dtype_of(config)))
    copy_processor_files(find_processor_files(model_location(config.model_name_or_path or "")), folder)
    return folder


def _base(config: TrainConfig, arguments: TrainingArguments) -> PreTrainedModel:
    whole = replace(config, load_in_4bit=False, quantization_config={}, attn_implementation="eager")
    return load_model(whole, arguments)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str | None) -> None:
    align_special_tokens(model, tokenizer)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if dtype is not None:
        save_as(folder, getattr(torch, dtype))


def _dtype_of(config: TrainConfig) -> str | None:
    """The data type that the files of the model name."""
    location = model_location(config.model_name_or_path or "")
    dtype = AutoConfig.from_pretrained(location, trust_remote_code=config.trust_remote_code).dtype
    return None if dtype is None else str(dtype).removeprefix("torch.")
