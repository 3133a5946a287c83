"""Decide whether a run uses what its data say of single tokens: their source, kind, and weight in the loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftkit.config.commands import TrainConfig
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import ConfigError
from sftkit.shards.reading import ShardSet
from sftkit.training.data.rows.token_details import DETAIL_COLUMNS
from sftkit.training.distributed import warn_on_main_process

if TYPE_CHECKING:
    from transformers import TrainingArguments

_log = logging.getLogger(__name__)

_WAY_OUT = "set use_liger_kernel=false, or loss_chunk_size=N to compute the loss in chunks"


def used_details(
    config: TrainConfig, arguments: TrainingArguments, splits: Sequence[tuple[ShardSet, str]]
) -> tuple[str, ...]:
    """Which of the `DETAIL_COLUMNS` a run uses.

    They need the loss of each token. A kernel that computes head and loss together does not give it.

    Args:
        config: the run.
        arguments: its training arguments.
        splits: its data: shards, and which split of them.

    Raises:
        ConfigError: the data have weights, and the loss cannot.
    """
    if not arguments.use_liger_kernel or config.loss_chunk_size:
        return DETAIL_COLUMNS
    found = [
        (shards, name) for shards, split in splits for name in shards.column_names(split) if name in DETAIL_COLUMNS
    ]
    weighted = [shards for shards, name in found if name == LOSS_WEIGHTS]
    if weighted:
        raise ConfigError(
            f"use_liger_kernel: its loss takes no weights, and {weighted[0].root} has some (column {LOSS_WEIGHTS});"
            f" {_WAY_OUT}"
        )
    if found:
        warn_on_main_process(_log, f"the loss of Liger's kernel is not divided by source and kind; {_WAY_OUT}")
    return ()
