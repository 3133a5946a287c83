"""What a run trains and evaluates on: rows, how they are batched, and how a batch is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.training.data.batching import Batches, RowBatches, Sharing, TokenBatches
from sftkit.training.data.collation import Collator
from sftkit.training.data.data_loader import Loader, make_loader
from sftkit.training.data.epoch_order import Shuffling
from sftkit.training.data.split_rows import SplitRows
from sftkit.training.data.stream_batches import LaneBatches

if TYPE_CHECKING:
    from transformers import TrainingArguments


def rows_a_part(arguments: TrainingArguments, batch_size: int) -> int:
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
    window: int
    shuffled: bool
    by_length: bool
    tokens: int | None
    drop_last: bool
    streaming: bool
    accumulation: int
    processes: int
    process: int
    workers: int
    prefetch: int | None

    def train_loader(self, rows: int) -> Loader:
        """Micro-batches of the training split, for this process, of so many rows each where tokens do not decide."""
        return self._loader(self.train, self.train_batches(rows))

    def train_batches(self, rows: int) -> Batches:
        """The micro-batches of all processes."""
        sharing = Sharing(self.accumulation, self.processes, self.padded)
        if self.streaming:
            shuffling = Shuffling(self.window, self.seed, self.shuffled)
            return LaneBatches(self.train, shuffling, sharing, rows, drop_last=self.drop_last)
        by_length = self.padded or self.by_length
        block = rows * sharing.parts if by_length and self.shuffled and self.tokens is None else None
        shuffling = Shuffling(self.window, self.seed, self.shuffled, block)
        if self.tokens is not None:
            return TokenBatches(self.train, shuffling, sharing, self.tokens, drop_last=self.drop_last)
        return RowBatches(self.train, shuffling, sharing, rows, drop_last=self.drop_last)

    def evaluation_loader(self, rows: int) -> Loader:
        """Micro-batches of the validation split, in its order."""
        assert self.evaluation is not None, "no evaluation without rows for it"
        sharing = Sharing(1, self.processes, self.padded)
        shuffling = Shuffling(self.window, self.seed, shuffled=False)
        if self.tokens is not None:
            batches: Batches = TokenBatches(self.evaluation, shuffling, sharing, self.tokens, drop_last=False)
        else:
            batches = RowBatches(self.evaluation, shuffling, sharing, rows, drop_last=False)
        return self._loader(self.evaluation, batches)

    def _loader(self, rows: SplitRows, batches: Batches) -> Loader:
        return make_loader(rows, batches, self.process, self.collate, workers=self.workers, prefetch=self.prefetch)
