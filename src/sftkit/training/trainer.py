"""The transformers Trainer with a count of the tokens it has seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from sftkit.rows import ATTENTION_MASK, IGNORE_INDEX, LABELS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

    from sftkit.training.data import Item, TokenDataset


@dataclass(frozen=True)
class TokenCounts:
    """Tokens that went through the model in training, padding left out, and those among them with a loss."""

    tokens: int
    trained_tokens: int


class SftTrainer(Trainer):
    """Counts tokens on the device (no waiting for it), and logs their rate where asked to."""

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        collate: Callable[[list[Item]], dict[str, torch.Tensor]],
        train_dataset: TokenDataset,
        eval_dataset: TokenDataset | None,
        tokenizer: PreTrainedTokenizerBase,
        callbacks: list[TrainerCallback],
        log_rate: bool,
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            data_collator=collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)  # who listens to the run prints what it wants
        self._counts = torch.zeros(2, dtype=torch.int64, device=self.args.device)
        self._log_rate = log_rate
        self._last_log: float | None = None
        self._last_tokens = 0

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """One forward and backward pass over a batch; counts its tokens."""
        if self._last_log is None:
            self._last_log = time.perf_counter()  # the first step begins here, not when the model was loaded
        # Position 0 is predicted from nothing, so its label carries no loss.
        trained = (inputs[LABELS][:, 1:] != IGNORE_INDEX).sum()
        self._counts += torch.stack([inputs[ATTENTION_MASK].sum(), trained]).to(self._counts.device)
        return super().training_step(model, inputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an event; those of training also with tokens per second since the last one."""
        if self._log_rate and self._last_log is not None and "loss" in logs:
            tokens = self.token_counts().tokens
            now = time.perf_counter()
            logs["tokens_per_second"] = (tokens - self._last_tokens) / max(now - self._last_log, 1e-9)
            self._last_tokens, self._last_log = tokens, now
        super().log(logs, start_time)

    def token_counts(self) -> TokenCounts:
        """The counts of all processes together; every process must call it."""
        total = self.accelerator.reduce(self._counts.clone(), "sum")
        tokens, trained = total.tolist()
        return TokenCounts(tokens, trained)
