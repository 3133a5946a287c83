"""Tiny multimodal models for tests: LLaVA with a Llama and a CLIP vision tower."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import LlavaConfig, LlavaForConditionalGeneration, set_seed

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
PROCESSOR = '{"processor_class": "LlavaProcessor", "patch_size": 14}\n'


def make_llava(tokens: int = 50) -> LlavaForConditionalGeneration:
    """A LLaVA with random weights."""
    set_seed(7)
    config: Any = LlavaConfig(
        text_config={**TEXT, "model_type": "llama", "vocab_size": tokens},  # type: ignore[arg-type]
        vision_config={**VISION, "model_type": "clip_vision_model"},  # type: ignore[arg-type]
        image_token_index=tokens - 1,
        vision_feature_layer=-1,
    )
    return LlavaForConditionalGeneration(config)


def save_llava(folder: Path, tokenizer: Path, tokens: int) -> Path:
    """Save a LLaVA with a tokenizer and the files of a processor, as checkpoints on the Hub have them."""
    make_llava(tokens).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder)
    (folder / "processor_config.json").write_text(PROCESSOR)
    (folder / "preprocessor_config.json").write_text('{"do_resize": true}\n')
    return folder
