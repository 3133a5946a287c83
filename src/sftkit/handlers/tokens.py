"""Handlers that make tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftkit.config.fields import option
from sftkit.core.row_log import PROMPT_MISMATCH, SPECIAL_TOKEN_IN_CONTENT, RowLog
from sftkit.core.rows import ATTENTION_MASK, INPUT_IDS, LABELS, Batch, LabeledTokens, Ragged, Row
from sftkit.handlers.base import Handler, Step, Tools, check_positive, locate_engine_differences, map_rows, text_in

_SPACE = (" ", "\n", "\t")


@dataclass(frozen=True, kw_only=True)
class Tokenize(Handler):
    """`input_ids` and `attention_mask` of a text column, as the tokenizer's call gives them."""

    dataset_text_field: str = option(help="Column that holds the text.")
    truncation: bool = option(False, help="Cut at `max_length` tokens (the tokenizer's own limit without it).")
    max_length: int | None = option(None, help="Longest row in tokens, when `truncation` is on.")

    def reads(self) -> tuple[str, ...]:
        """The text column."""
        return (self.dataset_text_field,)

    def writes(self) -> tuple[str, ...]:
        """The token columns."""
        return (INPUT_IDS, ATTENTION_MASK)

    def bind(self, tools: Tools) -> Step:
        """Encode a batch at once."""
        check_positive("tokenize: max_length", self.max_length)

        def step(batch: Batch, log: RowLog) -> Batch:
            batch, texts = map_rows(
                batch, log, lambda row: tools.check_encodable(text_in(row, self.dataset_text_field))
            )
            with locate_engine_differences(batch):
                ids = tools.encode(texts, truncation=self.truncation, max_length=self.max_length)
            return batch.with_tokens(**{INPUT_IDS: ids, ATTENTION_MASK: _ones(ids)})

        return step


@dataclass(frozen=True, kw_only=True)
class TokenizeAndApplyInputMasking(Handler):
    """Input and output become one text; only the tokens after those of the input carry a loss."""

    input_field_name: str = option(help="Column that holds the input.")
    output_field_name: str = option(help="Column that holds the output.")
    add_eos_token: bool = option(True, help="End the text with the eos token.")

    def reads(self) -> tuple[str, ...]:
        """Both columns."""
        return (self.input_field_name, self.output_field_name)

    def writes(self) -> tuple[str, ...]:
        """The token columns."""
        return (INPUT_IDS, LABELS, ATTENTION_MASK)

    def bind(self, tools: Tools) -> Step:
        """Encode texts and inputs of a batch at once."""
        eos = tools.eos_token if self.add_eos_token else ""

        def pair(row: Row) -> tuple[str, str]:
            source = tools.screen_text(text_in(row, self.input_field_name))
            target = tools.screen_text(text_in(row, self.output_field_name))
            return source, tools.check_encodable(_joined(source, target) + eos)

        def step(batch: Batch, log: RowLog) -> Batch:
            batch, pairs = map_rows(batch, log, pair)
            with locate_engine_differences(batch):
                return add_token_columns(batch, tools.encode_pairs([p[0] for p in pairs], [p[1] for p in pairs]))

        return step


@dataclass(frozen=True, kw_only=True)
class TokenizeAndApplyChatTemplateWithMasking(Handler):
    """Renders and tokenizes a conversation; only what the model has to produce carries a loss."""

    conversation_column: str | None = option(
        "messages", help="Column that holds the messages; null gives the template the whole row."
    )
    max_seq_length: int | None = option(None, help="Cut rows at so many tokens.")

    def reads(self) -> tuple[str, ...]:
        """The conversation column, when there is one."""
        return (self.conversation_column,) if self.conversation_column is not None else ()

    def writes(self) -> tuple[str, ...]:
        """The token columns."""
        return (INPUT_IDS, LABELS, ATTENTION_MASK)

    def bind(self, tools: Tools) -> Step:
        """Render row by row, encode a batch at once."""
        check_positive("tokenize_and_apply_chat_template_with_masking: max_seq_length", self.max_seq_length)
        tools.check_chat_template()

        column = self.conversation_column

        def step(batch: Batch, log: RowLog) -> Batch:
            batch, screened = map_rows(batch, log, lambda row: tools.screen(row, column))
            for number, (_, holds_tokens) in zip(batch.numbers, screened, strict=True):
                if holds_tokens:
                    log.flag(SPECIAL_TOKEN_IN_CONTENT, int(number))
            batch, turns = map_rows(
                batch.with_rows([row for row, _ in screened]), log, lambda row: tools.find_trained_spans(row, column)
            )
            for number, row in zip(batch.numbers, batch.rows, strict=True):
                if tools.has_prompt_mismatch(row, column):
                    log.flag(PROMPT_MISMATCH, int(number))
            with locate_engine_differences(batch):
                made = tools.encode_conversations([t[0] for t in turns], [t[1] for t in turns])
            if self.max_seq_length is not None:
                limits = np.full(len(batch), self.max_seq_length, np.int64)
                made = LabeledTokens(made.input_ids.truncate(limits), made.labels.truncate(limits))
            return add_token_columns(batch, made)

        return step


def add_token_columns(batch: Batch, made: LabeledTokens) -> Batch:
    """A batch with `input_ids`, `labels` and an `attention_mask` of ones."""
    columns = {INPUT_IDS: made.input_ids, LABELS: made.labels, ATTENTION_MASK: _ones(made.input_ids)}
    return batch.with_tokens(**columns)


def _joined(source: str, target: str) -> str:
    """Input and output with a space between, unless either brings white space of its own."""
    separator = "" if source.endswith(_SPACE) or target.startswith(_SPACE) else " "
    return source + separator + target


def _ones(ids: Ragged) -> Ragged:
    return Ragged(np.ones_like(ids.values), ids.offsets)
