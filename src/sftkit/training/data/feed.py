"""Everything a run is fed with: the rows, how they are batched, and how a batch is collated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.training.data.batching import Batcher, RowBatcher, StepLayout, TokenBatcher
from sftkit.training.data.collation import Collator
from sftkit.training.data.data_loader import MicroBatchLoader, make_loader
from sftkit.training.data.epoch_order import Shuffling
from sftkit.training.data.rows.split_rows import SplitRows
from sftkit.training.data.stream_batches import LaneBatcher
from sftkit.training.tensor_parallel import data_processes

if TYPE_CHECKING:
    from transformers import TrainingArguments


def rows_per_micro_batch(arguments: TrainingArguments, batch_size: int) -> int:
    """Rows of a micro-batch of one process; with `split_batches`, `batch_size` counts those of all processes."""
    settings: Any = arguments.accelerator_config  # TrainingArguments has turned it into an AcceleratorConfig
    return max(1, batch_size // data_processes(arguments)) if settings.split_batches else batch_size


@dataclass(frozen=True)
class Feed:
    """The micro-batches of one process, for training and evaluation.

    Micro-batches are made in four stages, each a class of this package:

    1. `SplitRows` reads rows from shards.
    2. `EpochOrder` (or `LaneSet`, with streaming) orders the rows of an epoch.
    3. A `Batcher` divides them into steps and micro-batches: `RowBatcher` by rows, `TokenBatcher` by tokens,
       `LaneBatcher` with streaming.
    4. A `Collator` makes tensors: `FlatCollator` without padding, `PaddingCollator` with padding.

    Stages 2 and 3 work with references to rows, so that any position of an epoch can be reached at once. All processes
    make the same decisions from the same seed and take their own part, without communicating.
    """

    train: SplitRows | None
    """None if the model is only evaluated."""

    evaluation: Mapping[str, SplitRows]
    """What the model is evaluated on, by name: the validation split, the sets of `eval_data`, or nothing."""

    collate: Collator

    padded: bool
    """Whether `collate` pads. If so, rows of similar length share a step."""

    seed: int
    """Seeds the order of rows."""

    shuffle_window: int
    """Tokens that are shuffled together."""

    shuffled: bool
    """False for the order of the files."""

    group_by_length: bool
    """Whether rows of similar length share a step even without padding."""

    tokens_per_batch: int | None
    """The most tokens of a micro-batch; None for a fixed number of rows."""

    drop_last: bool
    """Whether a last step that is not full is left out."""

    streaming: bool
    """Whether this process reads only its own part of the rows, when it reaches them."""

    accumulation_steps: int
    """Micro-batches of one process in a step."""

    processes: int
    """Processes that train together."""

    process_index: int
    """Which of them this is."""

    workers: int
    """Worker processes that read ahead, see `make_loader`."""

    prefetch: int | None
    """Micro-batches that each worker is ahead, see `make_loader`."""

    def train_loader(self, rows: int) -> MicroBatchLoader:
        """Micro-batches of the training split for this process, with `rows` rows each unless tokens decide."""
        assert self.train is not None, "training needs rows"
        return self._loader(self.train, self.train_batches(rows))

    def train_batches(self, rows: int) -> Batcher:
        """The micro-batches of the training split for all processes."""
        assert self.train is not None, "training needs rows"
        layout = StepLayout(self.accumulation_steps, self.processes, self.padded)
        if self.streaming:
            shuffling = Shuffling(self.shuffle_window, self.seed, self.shuffled)
            return LaneBatcher(self.train, shuffling, layout, rows, drop_last=self.drop_last)
        by_length = (self.padded or self.group_by_length) and self.shuffled and self.tokens_per_batch is None
        block = rows * layout.micro_batches if by_length else None
        shuffling = Shuffling(self.shuffle_window, self.seed, self.shuffled, block)
        if self.tokens_per_batch is not None:
            return TokenBatcher(self.train, shuffling, layout, self.tokens_per_batch, drop_last=self.drop_last)
        return RowBatcher(self.train, shuffling, layout, rows, drop_last=self.drop_last)

    def evaluation_loader(self, name: str, rows: int) -> MicroBatchLoader:
        """Micro-batches of one evaluated data set for this process, in the order of the files."""
        evaluated = self.evaluation[name]
        layout = StepLayout(1, self.processes, self.padded)
        shuffling = Shuffling(self.shuffle_window, self.seed, shuffled=False)
        if self.tokens_per_batch is not None:
            batches: Batcher = TokenBatcher(evaluated, shuffling, layout, self.tokens_per_batch, drop_last=False)
        else:
            batches = RowBatcher(evaluated, shuffling, layout, rows, drop_last=False)
        return self._loader(evaluated, batches)

    def _loader(self, rows: SplitRows, batches: Batcher) -> MicroBatchLoader:
        return make_loader(
            rows, batches, self.process_index, self.collate, workers=self.workers, prefetch=self.prefetch
        )
