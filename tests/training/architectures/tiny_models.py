"""Tiny models of every architecture with which transformers makes causal language models.

Their windows and chunks have `SPAN` tokens, so that short sequences go beyond them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

VOCABULARY = 320  # the tokenizer of the tests has at most 300 tokens
POSITIONS = 128
SPAN = 16

_SIZES: tuple[tuple[int, str], ...] = (
    (VOCABULARY, "vocab_size vocab_size_per_layer_input shape_vocab_size pronunciation_vocab_size"),
    (POSITIONS, "max_position_embeddings n_positions n_ctx max_seq_len context_length seq_length"),
    (
        SPAN,
        """sliding_window sliding_window_size window_size attention_window_size local_attention attention_chunk_size
        chunk_size mamba_chunk_size block_size index_block_size index_topk indexer_budget floor_scale""",
    ),
    # Widths.
    (
        32,
        """hidden_size d_model n_embd embed_dim emb_dim embedding_size lru_width word_embed_proj_dim
        attention_hidden_size dim_model pronunciation_embed_dim shape_embed_dim""",
    ),
    (
        48,
        """intermediate_size ffn_dim n_inner d_ff ffn_hidden_size decoder_ffn_dim encoder_ffn_dim dim_ff block_ff_dim
        shared_intermediate_size intermediate_size_mlp dense_intermediate_size""",
    ),
    (
        24,
        """moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size
        moe_shared_expert_intermediate_size expert_ffn_hidden_size""",
    ),
    (64, "mamba_d_ssm mamba_intermediate_size"),
    (
        16,
        """kv_lora_rank q_lora_rank o_lora_rank qk_nope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim
        time_step_rank""",
    ),
    (
        8,
        """head_dim dim_head attention_head_size global_head_dim qk_rope_head_dim index_head_dim indexer_head_dim
        linear_head_dim mamba_headdim mamba_head_dim mamba_d_head kv_channels rotary_dim ssm_state_size state_size
        d_state mamba_d_state mamba_dt_rank hidden_size_per_layer_input laurel_rank""",
    ),
    # Counts. Few heads of an indexer would give many keys the same score of 0.
    (16, "index_n_heads indexer_n_heads"),
    (
        4,
        """num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads encoder_attention_heads
        swa_num_attention_heads linear_num_heads num_experts num_local_experts n_routed_experts moe_num_experts hc_mult
        indexer_compress_ratio""",
    ),
    (
        2,
        """num_hidden_layers n_layer n_layers num_layers decoder_layers num_key_value_heads num_kv_heads n_kv_heads
        swa_num_key_value_heads num_global_key_value_heads linear_num_key_heads linear_num_value_heads n_mamba_heads
        num_experts_per_tok num_experts_per_token moe_topk moe_k moe_top_k top_k_experts expand mamba_expand
        altup_num_inputs""",
    ),
    (
        1,
        """n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group n_groups num_dense_layers
        moe_layer_start_index first_k_dense_replace mamba_n_groups mamba_ngroups encoder_layers num_mem_blocks o_groups
        zero_expert_num indexer_kv_heads""",
    ),
    (0, "pad_token_id num_kv_shared_layers num_nextn_predict_layers num_mtp_layers"),
)
"""Small values, and the fields of configs that get them."""

_LATENT = {"num_key_value_heads": 4, "head_dim": ...}
_MAMBA = {"mamba_n_heads": 8}

_SPECIAL: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(
        [
            "axk1",
            "axk2",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "glm4_moe_lite",
            "glm_moe_dsa",
            "minicpm3",
            "youtu",
        ],
        _LATENT,
    ),
    "bailing_hybrid": {"num_key_value_heads": 4},
    "bamba": {"attn_layer_indices": [1], **_MAMBA},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 32}},
    "dots3_note_text": {
        **_LATENT,
        **{f"swa_{name}": 16 for name in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim")},
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_head_dim": 24,
    },
    "falcon_h1": _MAMBA,
    "git": {
        "vision_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], **_MAMBA},
    "kimi_linear": {"num_key_value_heads": 4, "mlp_layer_types": ["dense", "sparse"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"no_rope_layers": [1, 0], "moe_layers": [1]},
    "longcat_flash": {"num_hidden_layers": ..., "num_key_value_heads": 4},
    "mamba2": {"num_heads": 8},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "xlm": {"causal": True},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}
"""Fields that an architecture needs besides; `...` leaves one out."""

_HAS_TEXT_MODEL = "takes images or sound, too; its language model has a row of its own"
_IS_WRAPPER = "takes images or sound, too; its language model is that of another row"
_ASSISTANT = "drafts tokens for another model, and needs its states"

NOT_TRAINED: Mapping[str, str] = {
    **dict.fromkeys(
        [
            "dots3_note",
            "gemma3",
            "gemma3n",
            "gemma4",
            "gemma4_unified",
            "llama4",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen4_exp",
        ],
        _HAS_TEXT_MODEL,
    ),
    **dict.fromkeys(["emu3", "fuyu", "got_ocr2", "mllama", "moss_transcribe_diarize", "phi4_multimodal"], _IS_WRAPPER),
    "blt": "reads bytes, and takes the entropy of each from another model",
    "cohere_compass_text": "is part of an embedding model; transformers makes it only with rotary embeddings by layer",
    "gemma4_assistant": _ASSISTANT,
    "gemma4_unified_assistant": _ASSISTANT,
    "musicgen": "makes sound",
    "musicgen_melody": "makes sound",
    "reformer": "is only trained on sequences of one length",
    "zamba": "transformers cannot tie the weights of a model with few layers",
}
"""Architectures that are left out, and why."""


def architectures() -> list[str]:
    """All architectures that are trained, by the names that transformers has for them."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in NOT_TRAINED]


def tiny_model(name: str, **overrides: Any) -> Any:
    """A model with random weights, in float32; `overrides` are fields of its config."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(_tiny_config(name, overrides), dtype=torch.float32)


def _tiny_config(name: str, overrides: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    kind: Any = CONFIG_MAPPING[name]
    own = set(inspect.signature(kind.__init__).parameters) | set(getattr(kind, "__dataclass_fields__", {}))
    aliases: Mapping[str, str] = getattr(kind, "attribute_map", None) or {}
    values: dict[str, Any] = {}
    for size, names in _SIZES:
        for field in names.split():
            if field in own | aliases.keys() and aliases.get(field) not in own:
                values[field] = size
    if "is_decoder" in own:
        values["is_decoder"] = True
    values |= {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2, **_SPECIAL.get(name, {}), **overrides}
    layers = getattr(kind(), "layer_types", None) if "layer_types" in own - aliases.keys() else None
    if layers and "layer_types" not in values:  # one layer of each type
        values["layer_types"] = [*dict.fromkeys(layers)]
        values[aliases.get("num_hidden_layers", "num_hidden_layers")] = len(values["layer_types"])
    config = kind(**{field: value for field, value in values.items() if value is not ...})
    for field, value in vars(config).items():
        if isinstance(value, float) and ("drop" in field or "jitter" in field):
            setattr(config, field, 0.0)
    return config
