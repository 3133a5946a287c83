"""`render: per_turn`: a conversation becomes the rows in which each turn stands as the model sees it at inference."""

from __future__ import annotations

import numpy as np

from sftkit.core.accounting.row_notes import PROMPT_MISMATCH
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch
from sftkit.handlers.base import Step, map_rows
from sftkit.handlers.messages.hints import with_conversion_hint
from sftkit.handlers.registry import ConfiguredHandler
from sftkit.handlers.tokens import TokenizeAndApplyChatTemplateWithMasking
from sftkit.tokenization.chat_tokenizer import ChatTokenizer


def bind_per_turn(configured: ConfiguredHandler, tokenizer: ChatTokenizer, most: int | None) -> Step:
    """Return the step of a handler that tokenizes conversations, each as the fewest samples that inference would see.

    The rows of one conversation have its number, as with `overflow: split_turns`.

    Args:
        configured: the handler.
        tokenizer: renders and encodes.
        most: the most samples of a conversation; those with more are dropped. None for no limit.

    Raises:
        ConfigError, TokenizerError: as `Handler.bind`.
    """
    handler = configured.handler
    assert isinstance(handler, TokenizeAndApplyChatTemplateWithMasking)
    tokenize = configured.bind(tokenizer)
    column = handler.conversation_column
    find = with_conversion_hint(lambda row: tokenizer.conversations.samples(row, column, most), column)

    def step(batch: Batch, log: RowLog) -> Batch:
        batch, found = map_rows(batch, log, find)
        for number, sampled in zip(batch.numbers.tolist(), found, strict=True):
            log.add_rows(number, len(sampled.rows) - 1)
            if sampled.differs_from_prompts:
                log.flag(PROMPT_MISMATCH, number)
        counts = [len(sampled.rows) for sampled in found]
        numbers = np.repeat(batch.numbers, np.array(counts, np.int64))
        return tokenize(Batch([row for sampled in found for row in sampled.rows], numbers), log)

    return step
