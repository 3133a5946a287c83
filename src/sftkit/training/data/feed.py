"""What a run trains and evaluates on: rows, how they are batched, and how a batch is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.training.data.batching import Batcher, RowBatcher, StepLayout, TokenBatcher
from sftkit.training.data.collation import Collator
from sftkit.training.data.data_loader import MicroBatchLoader, make_loader
from sftkit.training.data.epoch_order import Shuffling
from sftkit.training.data.split_rows import SplitRows
from sftkit.training.data.stream_batches import LaneBatcher

if TYPE_CHECKING:
    from transformers import TrainingArguments


def rows_per_micro_batch(arguments: TrainingArguments, batch_size: int) -> int:
    """Rows of a micro-batch of one process; with `split_batches` a batch is that of all processes together."""
    settings: Any = arguments.accelerator_config  # an AcceleratorConfig, once TrainingArguments has made it
    return max(1, batch_size // arguments.world_size) if settings.split_batches else batch_size


@dataclass(frozen=True)
class Feed:
    """The rows of a run on their way to the model.

    train, evaluation: the splits. collate: lays out a batch; padded: whether it pads. seed: of the order of rows.
    window: tokens that are shuffled together. shuffled: False for the order of the files. by_length: rows of similar
    length share a step. tokens: of a micro-batch at most, instead of so many rows. drop_last: a last step that is not
    full is left out. streaming: this process reads its own part of the rows, as it comes to them. accumulation:
    micro-batches of one process in a step. processes, process: how many train together, and which of them this is.
    workers, prefetch: see `make_loader`.
    """

    train: SplitRows
    evaluation: SplitRows | None
    collate: Collator
    padded: bool
    seed: int
    shuffle_window: int
    shuffled: bool
    group_by_length: bool
    tokens_per_batch: int | None
    drop_last: bool
    streaming: bool
    accumulation_steps: int
    processes: int
    process_index: int
    workers: int
    prefetch: int | None

    def train_loader(self, rows: int) -> MicroBatchLoader:
        """Micro-batches of the training split, for this process, of so many rows each where tokens do not decide."""
        return self._loader(self.train, self.train_batches(rows))

    def train_batches(self, rows: int) -> Batcher:
        """The micro-batches of all processes."""
        layout = StepLayout(self.accumulation_steps, self.processes, self.padded)
        if self.streaming:
            shuffling = Shuffling(self.shuffle_window, self.seed, self.shuffled)
            return LaneBatcher(self.train, shuffling, layout, rows, drop_last=self.drop_last)
        by_length = self.padded or self.group_by_length
        block = rows * layout.micro_batches if by_length and self.shuffled and self.tokens_per_batch is None else None
        shuffling = Shuffling(self.shuffle_window, self.seed, self.shuffled, block)
        if self.tokens_per_batch is not None:
            return TokenBatcher(self.train, shuffling, layout, self.tokens_per_batch, drop_last=self.drop_last)
        return RowBatcher(self.train, shuffling, layout, rows, drop_last=self.drop_last)

    def evaluation_loader(self, rows: int) -> MicroBatchLoader:
        """Micro-batches of the validation split, in its order."""
        assert self.evaluation is not None, "no evaluation without rows for it"
        layout = StepLayout(1, self.processes, self.padded)
        shuffling = Shuffling(self.shuffle_window, self.seed, shuffled=False)
        if self.tokens_per_batch is not None:
            batches: Batcher = TokenBatcher(self.evaluation, shuffling, layout, self.tokens_per_batch, drop_last=False)
        else:
            batches = RowBatcher(self.evaluation, shuffling, layout, rows, drop_last=False)
        return self._loader(self.evaluation, batches)

    def _loader(self, rows: SplitRows, batches: Batcher) -> MicroBatchLoader:
        return make_loader(
            rows, batches, self.process_index, self.collate, workers=self.workers, prefetch=self.prefetch
        )
