"""The keys of `train` about how the model is loaded, and how its loss is computed."""

from __future__ import annotations

from dataclasses import dataclass

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
