"""The keys of `train` about how the model is loaded, and how its loss is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.fields import option
from sftkit.config.schema.shared_options import DataOptions

_MODEL = "Model"


@dataclass(frozen=True, kw_only=True)
class ModelOptions(DataOptions):
    """How `train` loads the model, and computes its loss."""

    loss_chunk_size: int | None = option(
        None,
        minimum=0,
        panel=_MODEL,
        help="Positions whose logits exist at a time: the loss is computed in chunks, for less memory. 0: all at once. "
        "Default: 64 Mi logits, which are 512 positions with a vocabulary of 131,072.",
    )
    activation_offloading: bool = option(
        False,
        panel=_MODEL,
        help="Keep in main memory what gradient checkpointing saves (needs gradient_checkpointing and a GPU).",
    )
    quantization_config: Mapping[str, Any] = option(
        factory=dict,
        panel=_MODEL,
        run_identity=True,
        help="How to quantize the frozen model below its adapters, as transformers takes it: `{load_in_8bit: true}` "
        "(extra: qlora), `{quant_method: hqq, nbits: 4}`.",
    )
    model_kwargs: Mapping[str, Any] = option(
        factory=dict,
        panel=_MODEL,
        run_identity=True,
        help="Values of the model's config to change, such as `{output_router_logits: true}`, and further arguments of "
        "`from_pretrained`.",
    )
    rope_scaling: Mapping[str, Any] = option(
        factory=dict,
        panel=_MODEL,
        run_identity=True,
        help="Scaling of the rotary positions, for rows longer than the model was made for: "
        "`{rope_type: yarn, factor: 4.0}`.",
    )
