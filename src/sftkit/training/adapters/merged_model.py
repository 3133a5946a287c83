"""Merge adapters into the model that they were trained on."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.training.adapters.new_adapters import without_future_warnings
from sftkit.training.models.model_loading import fit_embeddings, load_model
from sftkit.training.text.processor_files import copy_processor_files, find_processor_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainingArguments

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
    from peft import PeftModel

    folder = Path(config.output_dir) / MERGED_DIR
    whole = replace(config, load_in_4bit=False, quantization_config={}, attn_implementation="eager")
    model = load_model(whole, arguments)
    fit_embeddings(model, len(tokenizer), known_tokens, config.embedding_size_multiple_of)
    with without_future_warnings():
        adapted: Any = PeftModel.from_pretrained(model, config.output_dir)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    copy_processor_files(find_processor_files(config.output_dir), folder)
    del model, adapted, merged
    gc.collect()
    return folder
