"""The model of the training benchmarks."""

from __future__ import annotations

from transformers import LlamaConfig


def small_llama(vocabulary: int = 49_152) -> LlamaConfig:
    """Four layers of width 256 with a large vocabulary, like many real models: most weights are in the head."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
    )
