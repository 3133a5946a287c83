"""Handlers that tokenize."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sftkit.config.fields import option
from sftkit.config.fms.tokenizer_call import TokenizerCall, read_tokenizer_kwargs
from sftkit.core.accounting.cuts import cut_before_answer, find_long_rows
from sftkit.core.accounting.row_notes import BOUNDARY_MERGED, EMPTY_ANSWER, PROMPT_MISMATCH, RowNotes
from sftkit.core.row_kinds import RowKind
from sftkit.core.row_log import RowLog
from sftkit.core.rows import (
    ATTENTION_MASK,
    IGNORE_INDEX,
    INPUT_IDS,
    LABELS,
    Batch,
    LabeledTokens,
    Ragged,
    Row,
    ragged_where,
)
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import ConfigError
from sftkit.handlers.base import Handler, Step, check_positive, locate_engine_differences, map_rows, text_in
from sftkit.handlers.formats.exchanges import after_space
from sftkit.handlers.messages.hints import with_conversion_hint

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

_KWARGS_HELP = (
    "Arguments of the tokenizer's call: `truncation`, `max_length` and `add_special_tokens`; those about padding have "
    "no effect, because rows are padded when they are trained."
)


@dataclass(frozen=True, kw_only=True)
class Tokenize(Handler):
    """Tokenizes a text column into `input_ids` and `attention_mask`, exactly as `tokenizer(text)` does, except that a
    text that begins with the BOS token gets no second one.
    """

    registered_as = "tokenize"

    dataset_text_field: str = option(help="Column that holds the text.")
    truncation: bool = option(False, help="Cut at `max_length` tokens, or at the tokenizer's `model_max_length`.")
    max_length: int | None = option(None, help="Longest row in tokens, when `truncation` is on.")
    tokenizer_kwargs: Mapping[str, Any] = option(factory=dict, help=_KWARGS_HELP)

    def produces(self) -> RowKind:
        """Tokens without labels."""
        return RowKind.UNKNOWN

    def reads(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """No other column."""
        return ()

    def writes(self) -> tuple[str, ...]:
        """The token columns."""
        return (INPUT_IDS, ATTENTION_MASK)

    def text_column(self) -> str:
        """The text column."""
        return self.dataset_text_field

    def sees_tokenizer_limits(self) -> bool:
        """True if rows may be truncated."""
        return self.truncation or bool(self.tokenizer_kwargs)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Encode a batch at a time."""
        check_positive("tokenize: max_length", self.max_length)
        call = self._call()
        limit = (call.max_length or tokenizer.max_length) if call.truncates else None
        encode = partial(tokenizer.encode, add_special_tokens=call.adds_special_tokens)

        def step(batch: Batch, log: RowLog) -> Batch:
            batch, texts = map_rows(
                batch, log, lambda row: tokenizer.check_encodable(text_in(row, self.dataset_text_field))
            )
            with locate_engine_differences(batch):
                ids = encode(texts)
            log.forget_cuts(batch.numbers)
            if limit is not None and (ids.lengths > limit).any():
                ids = truncated(ids, texts, limit, batch, log)
            return batch.with_tokens(**{INPUT_IDS: ids, ATTENTION_MASK: _ones(ids)})

        def truncated(ids: Ragged, texts: Sequence[str], limit: int, batch: Batch, log: RowLog) -> Ragged:
            """Encode the texts that are too long again: how the tokenizer truncates is its own affair."""
            is_long = ids.lengths > limit
            with locate_engine_differences(batch.filter(is_long)):
                short = encode([text for text, long in zip(texts, is_long, strict=True) if long], limit=limit)
            untrained = Ragged(np.full_like(ids.values, IGNORE_INDEX), ids.offsets)  # labels come later
            log.cut(batch.numbers, find_long_rows(untrained, limit), cut_before_answer(limit))
            return ragged_where(is_long, short, ids.filter(~is_long))

        return step

    def _call(self) -> TokenizerCall:
        call = read_tokenizer_kwargs("tokenize", self.tokenizer_kwargs)
        for key, value in (("truncation", self.truncation), ("max_length", self.max_length)):
            if value and key in self.tokenizer_kwargs:
                raise ConfigError(f"tokenize: {key} is given twice, in tokenizer_kwargs and beside it")
        return replace(call, truncates=call.truncates or self.truncation, max_length=call.max_length or self.max_length)


@dataclass(frozen=True, kw_only=True)
class TokenizeAndApplyInputMasking(Handler):
    """Input and output become one text; only the tokens after those of the input carry a loss. A token with text of
    both carries one, too, unless `compat` is fms.
    """

    registered_as = "tokenize_and_apply_input_masking"

    input_field_name: str = option(help="Column that holds the input.")
    output_field_name: str = option(help="Column that holds the output.")
    add_eos_token: bool = option(True, help="End the text with the eos token.")
    separator: str | None = option(
        None,
        literal=True,
        help="Text between input and output. Default: a space, unless there is white space already.",
    )

    tokenizer_kwargs: Mapping[str, Any] = option(factory=dict, help=_KWARGS_HELP)

    def produces(self) -> RowKind:
        """Tokens of an input and an output."""
        return RowKind.PAIRS

    @property
    def ends_with_stop_token(self) -> bool:
        """True if the eos token is added."""
        return self.add_eos_token

    def reads(self) -> tuple[str, ...]:
        """Both columns."""
        return (self.input_field_name, self.output_field_name)

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """No other column."""
        return ()

    def writes(self) -> tuple[str, ...]:
        """The token columns."""
        return (INPUT_IDS, LABELS, ATTENTION_MASK)

    def sees_tokenizer_limits(self) -> bool:
        """True if rows may be truncated."""
        return bool(self.tokenizer_kwargs)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Encode the texts and the inputs of a batch at a time."""
        call = read_tokenizer_kwargs("tokenize_and_apply_input_masking", self.tokenizer_kwargs)
        limit = (call.max_length or tokenizer.max_length) if call.truncates else None
        special = call.adds_special_tokens
        eos = tokenizer.eos_token if self.add_eos_token else ""

        def pair(row: Row) -> tuple[str, str, bool]:
            source = tokenizer.screen_text(text_in(row, self.input_field_name))
            target = tokenizer.screen_text(text_in(row, self.output_field_name))
            text = tokenizer.check_encodable(self._joined(source, target) + eos)
            tokenizer.check_spans(text, [(len(source), len(text))])
            return source, text, tokenizer.is_empty_answer(target)

        def step(batch: Batch, log: RowLog) -> Batch:
            batch, pairs = map_rows(batch, log, pair)
            inputs, texts = [source for source, _, _ in pairs], [text for _, text, _ in pairs]
            log.flag_rows(EMPTY_ANSWER, batch.numbers, (is_empty for _, _, is_empty in pairs))
            with locate_engine_differences(batch):
                encoded, merged = tokenizer.encode_pairs(inputs, texts, add_special_tokens=special)
                log.flag_rows(BOUNDARY_MERGED, batch.numbers, merged)
                log.forget_cuts(batch.numbers)
                if limit is not None and (encoded.input_ids.lengths > limit).any():
                    log.cut(batch.numbers, find_long_rows(encoded.labels, limit), cut_before_answer(limit))
                    encoded = tokenizer.truncate_pairs(encoded, inputs, texts, limit, add_special_tokens=special)
            return add_token_columns(batch, encoded)

        return step

    def _joined(self, source: str, target: str) -> str:
        if self.separator is not None:
            return source + self.separator + target
        return source + after_space(source, target)


@dataclass(frozen=True, kw_only=True)
class TokenizeAndApplyChatTemplateWithMasking(Handler):
    """Renders and tokenizes a conversation; only what the model has to produce carries a loss."""

    registered_as = "tokenize_and_apply_chat_template_with_masking"

    conversation_column: str | None = option(
        "messages", help="Column that holds the messages; null gives the template the whole row."
    )
    max_seq_length: int | None = option(None, help="Truncate rows to this many tokens.")

    def produces(self) -> RowKind:
        """Tokens of a conversation."""
        return RowKind.CONVERSATIONS

    def reads(self) -> tuple[str, ...]:
        """The conversation column, if it is named."""
        return (self.conversation_column,) if self.conversation_column is not None else ()

    def may_read(self, tokenizer: ChatTokenizer) -> Collection[str] | None:
        """What the chat template takes of a row."""
        return tokenizer.template_columns(self.conversation_column)

    def writes(self) -> tuple[str, ...]:
        """The token columns."""
        return (INPUT_IDS, LABELS, ATTENTION_MASK)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Render each row, and encode a batch at a time."""
        check_positive("tokenize_and_apply_chat_template_with_masking: max_seq_length", self.max_seq_length)
        tokenizer.check_chat_template()
        column = self.conversation_column
        prepare = with_conversion_hint(lambda row: tokenizer.conversations.prepare(row, column), column)

        def step(batch: Batch, log: RowLog) -> Batch:
            batch, prepared = map_rows(batch, log, prepare)
            with locate_engine_differences(batch):
                encoded = tokenizer.encode_prepared(prepared)
            rows, notes = [each.row for each in prepared], [each.notes for each in prepared]
            return self.finish(batch.with_rows(rows), notes, encoded, log)

        return step

    def finish(self, batch: Batch, notes: Sequence[RowNotes], encoded: LabeledTokens, log: RowLog) -> Batch:
        """Return the rows of a batch with their tokens, and log what was noticed about each."""
        for number, noticed in zip(batch.numbers.tolist(), notes, strict=True):
            log.note(number, noticed)
        if encoded.inexact is not None:
            log.flag_rows(PROMPT_MISMATCH, batch.numbers, encoded.inexact)
        log.forget_cuts(batch.numbers)
        if self.max_seq_length is not None:
            long = find_long_rows(encoded.labels, self.max_seq_length)
            log.cut(batch.numbers, long, cut_before_answer(self.max_seq_length))
            encoded = encoded.truncate(np.full(len(batch), self.max_seq_length, np.int64))
        return add_token_columns(batch, encoded)


def add_token_columns(batch: Batch, encoded: LabeledTokens) -> Batch:
    """Return the batch with `input_ids`, `labels`, an `attention_mask` of ones, and any kinds and weights."""
    columns = {INPUT_IDS: encoded.input_ids, LABELS: encoded.labels, ATTENTION_MASK: _ones(encoded.input_ids)}
    if encoded.kinds is not None:
        columns[TOKEN_KINDS] = encoded.kinds
    if encoded.weights is not None:
        columns[LOSS_WEIGHTS] = encoded.weights
    return batch.with_tokens(**columns)


def _ones(ids: Ragged) -> Ragged:
    return Ragged(np.ones_like(ids.values), ids.offsets)
