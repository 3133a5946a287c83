"""How many positions a model has: learned ones and tables of fixed size end, rotary embeddings do not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sftkit.training.trials.runs import evaluation_mode, probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_POSITIONS = re.compile(r"(^|\.)(wpe|\w*position\w*)$")
_LONGEST_TRIAL = 8192  # tokens


def configured_positions(model: Any) -> int | None:
    """The positions that a model was made for according to its config; None if it does not say."""
    config = model.config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "max_seq_len", "seq_length"):
        positions = getattr(config, name, None)
        if type(positions) is int and positions > 0:
            return positions
    return None


def last_learned_position(model: Any) -> int | None:
    """How many positions a model has learned, if it has an embedding of positions; None otherwise.

    Embeddings that begin with unused rows (`offset`; or up to `padding_idx`, as in RoBERTa) have fewer positions than
    rows.
    """
    found = []
    for name, module in model.get_decoder().named_modules():  # not the positions of images
        if isinstance(module, nn.Embedding) and _POSITIONS.search(name) and "relative" not in name:
            padding = -1 if module.padding_idx is None else module.padding_idx
            found.append(module.num_embeddings - int(getattr(module, "offset", padding + 1)))
    return min(found, default=None)


def most_positions(model: PreTrainedModel) -> int | None:
    """The longest sequence that a model can compute; None if it is not known to have an end.

    A model with another kind of limit (a table of ALiBi biases, a buffer) is found by running it on one token more
    than its config says. That costs less than training on such a sequence would.
    """
    positions = configured_positions(model)
    learned = last_learned_position(model)
    if learned is not None:
        return min(learned, positions or learned)
    if positions is None or positions > _LONGEST_TRIAL:
        return None
    ids = torch.ones((1, positions + 1), dtype=torch.int64, device=model.device)
    with evaluation_mode(model, None):
        runs = probe("more positions", lambda: bool(model.base_model(input_ids=ids, use_cache=False)))
    return None if runs else positions
