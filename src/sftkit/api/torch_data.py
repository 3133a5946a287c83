"""Shards for training loops of your own: a torch dataset, and the collator that suits a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from sftkit.audit.findings import FIRST_TOKEN_TRAINED, NO_TRAINED_TOKEN
from sftkit.core.splits import TRAIN
from sftkit.errors import TrainingError
from sftkit.ordering.packing import keeps_rows_whole
from sftkit.shards.footers import check_footers
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import open_shards, require_parquet
from sftkit.training.data.collation import FlatCollator, PaddingCollator
from sftkit.training.data.rows.open_split import open_split
from sftkit.training.data.rows.row_groups import TokenSequences
from sftkit.training.data.rows.row_limits import RowLimit
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.models.capabilities import probe_capabilities
from sftkit.training.models.sequence_separation import boundary_encoder_for
from sftkit.training.trials.sequence_rope import depends_on_length, use_sequence_rope

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_ANY_ID = 1 << 31  # more than an int32 holds


class ShardDataset(Dataset[TokenSequences]):
    """The rows of one split, for torch's DataLoader and transformers' Trainer; collate them with `collator_for`.

    An item holds the sequences of one row: one, or those of a pack. As in `sftkit train`, sequences without a loss are
    left out. Row groups are read when they are needed and kept in memory, up to `max_cached_tokens`. A random order is
    slow in a split that is larger: almost every row is read from disk with its whole row group.

    Example:
        >>> import sftkit
        >>> dataset = sftkit.ShardDataset("shards")
        >>> len(dataset)
        600
        >>> batch = sftkit.FlatCollator()([dataset[0], dataset[1]])
        >>> batch["input_ids"].shape == batch["labels"].shape == batch["position_ids"].shape
        True
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        split: str = TRAIN,
        *,
        max_seq_length: int | None = None,
        overflow: str = "truncate",
        max_cached_tokens: int = 64 << 20,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a split.

        Its rows are read once to find those without a loss, unless the manifest's audit says that there are none.

        Args:
            location: a directory of shards or one Parquet file with `input_ids` and `labels`; a path or a URL.
            split: `train` or `validation`.
            max_seq_length: longest sequence, in tokens; None for any length.
            overflow: what to do with a longer one: `truncate`, `truncate_left` (keep its end), `drop` or `error`.
            max_cached_tokens: tokens of row groups that stay in memory, 8 bytes each.
            storage_options: options of the file system behind a URL, as in a config.

        Raises:
            SourceError: there is nothing at `location`, or no file of shards.
            DataError: a file is not Parquet; shards are missing, truncated, or not those of the manifest; or a row
                cannot be used.
            OutputError: the manifest cannot be read.
            TrainingError: there is no such split, it has no labels, or no row of it carries a loss.
        """
        shards = open_shards(os.fspath(location), storage_options)
        require_parquet(shards)
        check_footers(shards)
        limit = None if max_seq_length is None else RowLimit(max_seq_length, overflow)
        self._rows = open_split(shards, split, _ANY_ID, limit, max_cached_tokens)
        groups = range(len(self._rows.locations))
        if limit is not None or not _all_carry_a_loss(shards.manifest):
            for group in groups:
                self._rows.group(group)
            self._rows.warn_of_skipped_rows()
            self._rows.skip_unusable_rows()
            if not len(self._rows):
                raise TrainingError(f"{self._rows.name}: no row has a token that carries a loss")
        self._ends = np.array(list(accumulate(map(self._rows.group_rows, groups))))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> TokenSequences:
        index += len(self) if index < 0 else 0
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} rows")
        group = int(np.searchsorted(self._ends, index, side="right"))
        rows = self._rows.usable_rows(group)
        begin = int(self._ends[group]) - len(rows)
        return self._rows.row(group, int(rows[index - begin]))


def collator_for(model: PreTrainedModel, *, trim_head: bool = False) -> FlatCollator | PaddingCollator:
    """Choose the collator for batches of a `ShardDataset`: without padding if the model supports it.

    Runs the model on a few tokens, on its device. If it keeps concatenated sequences apart, the result is a
    `FlatCollator` (with `cu_seq_lens` for flash attention), otherwise a `PaddingCollator`. From then on,
    the model computes rotary embeddings that depend on the length of a sequence (longrope, dynamic) for each sequence.

    Args:
        model: a causal language model of transformers.
        trim_head: run the output head only at positions that predict a trained token, if the model supports it. The
            batch then has `logits_to_keep`, and its labels are those of these positions. Leave it off if you compute
            the loss yourself.

    Example:
        >>> import sftkit
        >>> from transformers import AutoConfig, AutoModelForCausalLM
        >>> model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(sftkit.sample_path("sample:model")))
        >>> type(sftkit.collator_for(model)).__name__
        'FlatCollator'
    """
    use_sequence_rope(model)
    boundaries = boundary_encoder_for(model)
    able = probe_capabilities(model, boundaries)
    trim_head = trim_head and able.supports_logits_to_keep and able.sums_loss
    if able.separates_sequences:
        return FlatCollator(trim_head, boundaries)
    warn_on_main_process(_log, "the model does not separate sequences in a flat batch: batches are padded instead")
    return PaddingCollator(trim_head, getattr(model.config, "pad_token_id", None) or 0, depends_on_length(model))


def _all_carry_a_loss(manifest: Manifest | None) -> bool:
    """Whether every row has a loss, according to the audit of `preprocess`; rows that were cut later may have none."""
    if manifest is None or manifest.audit is None or not keeps_rows_whole(manifest.config.get("packing")):
        return False
    return not {NO_TRAINED_TOKEN, FIRST_TOKEN_TRAINED} & {finding.rule for finding in manifest.audit.findings}
