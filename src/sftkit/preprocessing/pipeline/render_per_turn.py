"""`render: per_turn` and `auto`: conversations become the rows in which each turn stands as at inference."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from sftkit.core.accounting.inference_counts import InferenceCounts
from sftkit.core.accounting.row_notes import PROMPT_MISMATCH, RowNotes
from sftkit.core.row_log import RowLog
from sftkit.core.rows import INPUT_IDS, Batch, LabeledTokens, Mask, Row
from sftkit.handlers.base import Step, locate_engine_differences, map_rows
from sftkit.handlers.messages.hints import with_conversion_hint
from sftkit.handlers.registry import ConfiguredHandler
from sftkit.handlers.tokens import TokenizeAndApplyChatTemplateWithMasking
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.masking.prepared_conversation import PreparedConversation
from sftkit.tokenization.samples.row_samples import RowSamples


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
    handler.bind(tokenizer)  # checks its arguments
    column, conversations = handler.conversation_column, tokenizer.conversations
    find = with_conversion_hint(lambda row: conversations.samples(row, column, most), column)
    find_again = with_conversion_hint(
        lambda row: conversations.samples(row, column, most, compares_all_tokens=True), column
    )

    def encode(samples: Batch, log: RowLog, ready: list[PreparedConversation | None], is_sample: Mask) -> _Encoded:
        given = iter(zip(ready, is_sample.tolist(), strict=True))

        def prepare(row: Row) -> PreparedConversation:
            whole, of_several = next(given)
            return whole or conversations.prepare(row, column, is_sample=of_several)

        samples, prepared = map_rows(samples, log, prepare)
        with locate_engine_differences(samples):
            encoded = tokenizer.encode_prepared(prepared)
        return _Encoded(samples.with_rows([each.row for each in prepared]), [each.notes for each in prepared], encoded)

    def make(batch: Batch, found: Sequence[RowSamples], log: RowLog) -> _Encoded:
        counts = np.array([len(sampled.rows) for sampled in found], np.int64)
        rows = [row for sampled in found for row in sampled.rows]
        ready = [sampled.whole for sampled in found for _ in sampled.rows]
        return encode(Batch(rows, np.repeat(batch.numbers, counts)), log, ready, np.repeat(counts > 1, counts))

    def step(batch: Batch, log: RowLog) -> Batch:
        batch, found = map_rows(batch, log, find)
        made = make(batch, found, RowLog())
        inexact = made.inexact_numbers
        if inexact:  # turns that are encoded apart from their prompts are history of others
            is_again = np.isin(batch.numbers, inexact)
            some, others = map_rows(batch.filter(is_again), log, find_again)
            again = dict(zip(some.numbers.tolist(), others, strict=True))
            left = ~is_again | np.isin(batch.numbers, some.numbers)
            pairs = zip(batch.numbers.tolist(), found, left.tolist(), strict=True)
            found = [again.get(number, sampled) for number, sampled, is_left in pairs if is_left]
            batch = batch.filter(left)
        if inexact or len(made.samples) < sum(len(sampled.rows) for sampled in found):
            made = make(batch, found, log)
        for number, sampled in zip(batch.numbers.tolist(), found, strict=True):
            log.add_rows(number, len(sampled.rows) - 1)
            if sampled.differs_from_prompts:
                log.flag(PROMPT_MISMATCH, number)
        rows = handler.finish(*made, log)
        log.inference += _count(batch, found, rows, tokenizer, log.flagged.get(PROMPT_MISMATCH, set()))
        return rows

    return step


class _Encoded(NamedTuple):
    """Rows and their tokens."""

    samples: Batch
    notes: list[RowNotes]
    encoded: LabeledTokens

    @property
    def inexact_numbers(self) -> list[int]:
        """The numbers of rows in which a turn does not follow the tokens of its prompt."""
        inexact = self.encoded.inexact
        return [] if inexact is None or not inexact.any() else self.samples.numbers[inexact].tolist()


def _count(
    batch: Batch, found: Sequence[RowSamples], made: Batch, tokenizer: ChatTokenizer, flagged: Collection[int]
) -> InferenceCounts:
    """Count how the rows that some conversations became compare with inference.

    Args:
        batch: the conversations.
        found: the samples of each.
        made: their rows.
        tokenizer: encodes.
        flagged: numbers of rows of which a turn does not follow its prompt; only their tokens may say so.
    """
    inexact = [each.differing + each.unknown for each in found]
    if flagged:
        numbers = batch.numbers.tolist()
        inexact = [max(count, number in flagged) for count, number in zip(inexact, numbers, strict=True)]
    split = [index for index, each in enumerate(found) if len(each.rows) > 1]
    samples = added = 0
    if split:
        is_sample = np.isin(made.numbers, batch.numbers[split])
        texts = [text for index in split if (text := found[index].text_once) is not None]
        once = tokenizer.encode(texts, add_special_tokens=False).lengths.sum()
        samples, added = int(is_sample.sum()), int(made.tokens[INPUT_IDS].lengths[is_sample].sum() - once)
    return InferenceCounts(
        rows=len(made),
        inexact_rows=int(np.isin(made.numbers, batch.numbers[np.flatnonzero(inexact)]).sum()),
        inexact_turns=sum(inexact),
        conversations=len(split),
        samples=samples,
        added_tokens=added,
    )
