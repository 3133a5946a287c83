"""Refuse rows that are longer than what a model has positions for."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from sftkit.errors import TrainingError
from sftkit.shards.reading import ShardSet
from sftkit.training.data.rows.split_rows import SplitRows
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.trials.positions import configured_positions, last_learned_position, most_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)


def longest_row(shards: ShardSet, split: str) -> int | None:
    """Tokens of the longest row of a split, or at least as many; None if no manifest says."""
    known = shards.manifest.splits.get(split) if shards.manifest is not None else None
    return None if known is None else known.length_max


def check_positions(model: PreTrainedModel, rows: SplitRows, longest: int | None, limit: int | None) -> None:
    """Refuse a split with sequences longer than a model can compute; warn of those longer than it was made for.

    If `longest` and `limit` leave that possible, all rows are read once.

    Args:
        model: before its weights are sharded.
        rows: of the split.
        longest: tokens of the longest row; None if that is not known.
        limit: `max_seq_length`.

    Raises:
        TrainingError: a sequence is too long; it says where the first is, how many there are, and what to set.
    """
    positions = configured_positions(model)
    if longest is None and last_learned_position(model) is None:
        return  # reading everything is only worth it for models that are known to have an end
    most_tokens = min(longest or sys.maxsize, limit or sys.maxsize)
    if most_tokens <= (positions or 0):
        return
    most = most_positions(model)
    if most is not None:
        _refuse_longer(rows, most)
    elif positions is not None:
        warn_on_main_process(
            _log, f"the longest row has {most_tokens} tokens, but the model was made for {positions} positions"
        )


def _refuse_longer(rows: SplitRows, most: int) -> None:
    first, count = "", 0
    for number in (number for file in range(rows.files) for number in rows.groups_of(file)):
        group, location = rows.group(number), rows.locations[number]
        lengths = group.input_ids.lengths
        too_long = lengths > most
        count += int(too_long.sum())
        if not first and too_long.any():
            sequence = int(too_long.argmax())
            row = location.first_row + int((group.row_offsets[1:] <= sequence).sum())
            first = f"{location.path}:{row}: {lengths[sequence]} tokens"
    if count:
        what = "sequences" if rows.packed else "rows"
        raise TrainingError(
            f"{first}, but the model has {most} positions (longer {what}: {count}); set max_seq_length={most} to cut"
            " them, and also overflow=drop to leave them out instead"
        )
