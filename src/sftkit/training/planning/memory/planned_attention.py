"""Set the attention that a run will have on a model that is planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftkit.config.commands import TrainConfig
from sftkit.core.rows import ATTENTION_MASK
from sftkit.training.data.boundaries import SEQUENCE_LENGTHS
from sftkit.training.data.collation import CollatedBatch
from sftkit.training.models.attention import choose_attention
from sftkit.training.models.sequence_attention import (
    supports_sequence_attention,
    use_sequence_attention,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

_FLASH = "flash_attention"
_ROWS_AND_TOKENS = 2


def set_planned_attention(
    model: PreTrainedModel, config: TrainConfig, arguments: TrainingArguments, *, shards_weights: bool
) -> str:
    """Let a model attend as in the run, or in a way that takes the same memory.

    Flash attention needs a GPU; SDPA without a mask keeps the same tensors.

    Args:
        model: of the run, without adapters; it uses SDPA, or eager attention if it has no other.
        config: the run.
        arguments: its training arguments.
        shards_weights: whether the weights are sharded; SDPA then has a mask for a whole flat batch.

    Returns:
        The attention of the run: `flash_attention_2`, `sdpa`, `eager`, ...
    """
    chosen = config.attn_implementation
    if chosen is None and config.use_flash_attn and _in_16_bits(config, arguments):
        chosen = f"{_FLASH}_2"
    if chosen is None:
        chosen = choose_attention(config, arguments, None) or str(model.config._attn_implementation)
    flash = chosen.startswith(_FLASH)
    if chosen != "sdpa" and not flash:
        model.set_attn_implementation(chosen)
        return chosen
    by_sequence = config.attn_implementation is None and config.padding_free != "false" and not shards_weights
    if flash or (by_sequence and not arguments.torch_compile):
        model.set_attn_implementation("sdpa")
        if supports_sequence_attention(model):
            use_sequence_attention(model)
    return chosen


def simplified(batch: CollatedBatch, model: PreTrainedModel, attention: str) -> CollatedBatch:
    """A batch that takes as much memory in attention, and less time to run.

    Flash attention takes lengths instead of a mask of tokens x tokens. Attention by sequence takes as much for two long
    sequences as for many, except for the masks of a sliding window.

    Args:
        batch: of the run.
        model: with the attention that `set_planned_attention` has set.
        attention: what that returned.
    """
    changed = dict(batch)
    mask, lengths = batch.get(ATTENTION_MASK), batch.get(SEQUENCE_LENGTHS)
    if attention.startswith(_FLASH) and mask is not None and mask.dim() == _ROWS_AND_TOKENS:
        del changed[ATTENTION_MASK]
    settings: Any = model.config.get_text_config()
    if lengths is not None and len(lengths) > 1 and getattr(settings, "sliding_window", None) is None:
        changed[SEQUENCE_LENGTHS] = (max(lengths), sum(lengths) - max(lengths))
    return CollatedBatch(changed, batch.counts, batch.details)


def _in_16_bits(config: TrainConfig, arguments: TrainingArguments) -> bool:
    return config.torch_dtype not in (None, "float32") or bool(arguments.bf16 or arguments.fp16)
