"""What happens to rows after the handlers: they get labels and a length limit, or stay text for `train` to tokenize."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from sftkit.config.schema.option_values import SPLIT_TURNS
from sftkit.core.accounting.row_notes import EMPTY_ANSWER
from sftkit.core.row_log import RowDroppedError, RowLog
from sftkit.core.rows import INPUT_IDS, LABELS, LOSS_MASKS, Batch, Row, trained_mask
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.core.weights.weighted_tokens import with_agreeing_labels
from sftkit.handlers.base import locate_engine_differences, map_rows, text_in
from sftkit.handlers.columns import keep_columns
from sftkit.handlers.tokens import add_token_columns
from sftkit.preprocessing.pipeline.cut_rows import keep_end, keep_start
from sftkit.preprocessing.pipeline.given_kinds import with_kinds
from sftkit.preprocessing.pipeline.given_tokens import read_token_columns, token_columns_of
from sftkit.shards.manifest import length_histogram
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.encoding.spans import Span

NO_TRAINED_TOKEN = "no trained token"
"""Why a row without a loss is dropped."""


_NO_RESPONSE = "no response found by response_template"
_NO_LABELS = (
    "rows have input_ids but no labels; set response_template, use a masking handler, or set train_on=all to train on "
    "every token"
)


@dataclass(frozen=True)
class RowFinalizer:
    """Brings the rows of a data set into the form that is written to shards."""

    text_fields: tuple[str, ...]
    """Columns that may hold the text; the first that a row has is used."""
    retained: frozenset[str]
    """Columns that the config keeps by name."""
    response_template: str | None
    instruction_template: str | None
    max_seq_length: int | None
    """In tokens."""
    overflow: str
    """What happens to longer rows: truncate, truncate_left, split_turns, drop or error."""
    train_on_all: bool
    """Whether every token of text, or of rows without labels, carries a loss."""
    reads_masks: bool
    """Whether the columns `LOSS_MASKS` are about the tokens: rows came with their tokens."""

    def uniform_parts(self, batch: Batch) -> Iterator[Batch]:
        """Cut a batch into runs of rows that have the same token columns and the same text column.

        What becomes of a row then depends on the row alone, and not on its neighbours in the batch.
        """
        if INPUT_IDS in batch.tokens and LABELS in batch.tokens and not self.reads_masks:
            yield batch
            return
        kinds = [(token_columns_of(row, batch), self._text_field(row)) for row in batch.rows]
        start = 0
        for _, run in groupby(kinds):
            stop = start + sum(1 for _ in run)
            yield batch if stop - start == len(batch) else batch.slice(start, stop)
            start = stop

    def finalize(self, part: Batch, log: RowLog, tokenizer: ChatTokenizer) -> tuple[Batch, str | None]:
        """Finalize rows that have the same columns; quarantine those that are neither tokens nor text.

        Returns:
            Rows with token columns and retained columns, and None; or rows with a text column and retained columns, and
            the name of the text column.
        """
        batch = read_token_columns(part, log, reads_masks=self.reads_masks)
        if not len(batch):
            return batch, None
        text_field = self._text_field(batch.rows[0])
        if LABELS not in batch.tokens or INPUT_IDS not in batch.tokens:
            batch = self._add_labels(batch, text_field, log, tokenizer)
        if not len(batch):
            return batch, None
        if INPUT_IDS not in batch.tokens:
            assert text_field is not None
            return keep_columns(batch, {text_field} | self.retained), text_field
        batch = with_agreeing_labels(_quarantine_other_lengths(batch, log))
        if tokenizer.kind_marker is not None:
            is_given = self.reads_masks or INPUT_IDS not in part.tokens
            batch = with_kinds(batch, tokenizer.kind_marker.kinds_of, reads_rows=is_given)
        batch = _quarantine_unknown_ids(batch, log, tokenizer.vocabulary_size)
        batch = self._limit_length(batch, log)
        batch = _drop_untrained(batch, log)
        return keep_columns(batch, {INPUT_IDS, LABELS} | self.retained), None

    def column_problem(self, columns: Collection[str]) -> str | None:
        """Say why rows with these columns cannot be finalized; None if they can."""
        text_field = self._text_field(columns)
        has_labels = LABELS in columns or (self.reads_masks and not set(LOSS_MASKS).isdisjoint(columns))
        if INPUT_IDS in columns and not has_labels and not self.train_on_all:
            if text_field is None or self.response_template is None:
                return _NO_LABELS
        elif INPUT_IDS not in columns and text_field is None:
            tried = " or ".join(repr(name) for name in self.text_fields)
            return (
                f"after all handlers, rows have the columns {', '.join(columns) or 'none'}: no input_ids and no text "
                f"column {tried}; add a handler that tokenizes, or set dataset_text_field"
            )
        return None

    def _text_field(self, columns: Collection[str]) -> str | None:
        return next((name for name in self.text_fields if name in columns), None)

    def _add_labels(self, batch: Batch, text_field: str | None, log: RowLog, tokenizer: ChatTokenizer) -> Batch:
        """Add labels to rows without them, and tokens if the options ask for tokens of a text."""
        problem = self.column_problem([name for name in batch.columns() if name not in LOSS_MASKS])  # masks of null
        if problem is not None:
            for number, row in zip(batch.numbers, batch.rows, strict=True):
                log.quarantine(int(number), problem, row)
            return batch.slice(0, 0)
        if INPUT_IDS in batch.tokens and (self.response_template is None or text_field is None):
            log.count_cuts_as_trained(batch.numbers)
            return batch.with_tokens(**{LABELS: batch.tokens[INPUT_IDS]})
        assert text_field is not None
        tokenizes = self.response_template is not None or self.train_on_all
        check = tokenizer.check_encodable if tokenizes else str
        batch, texts = map_rows(batch, log, lambda row: check(text_in(row, text_field)))
        log.forget_cuts(batch.numbers)
        if self.response_template is not None:
            return self._mask_responses(batch, text_field, self.response_template, log, tokenizer)
        if self.train_on_all:
            with locate_engine_differences(batch):
                return add_token_columns(batch, tokenizer.encode_spans(texts, [[] for _ in texts]))
        return batch

    def _mask_responses(
        self, batch: Batch, text_field: str, template: str, log: RowLog, tokenizer: ChatTokenizer
    ) -> Batch:
        def responses(row: Row) -> tuple[str, list[Span], bool]:
            text = text_in(row, text_field)
            spans = tokenizer.find_responses(text, template, self.instruction_template)
            if not spans:
                raise RowDroppedError(_NO_RESPONSE)
            return text, spans, tokenizer.is_empty_answer(*(text[start:end] for start, end in spans))

        batch, found = map_rows(batch, log, responses)
        log.flag_rows(EMPTY_ANSWER, batch.numbers, (has_empty for _, _, has_empty in found))
        with locate_engine_differences(batch):
            encoded = tokenizer.encode_spans([text for text, _, _ in found], [spans for _, spans, _ in found])
        return add_token_columns(batch, encoded)

    def _limit_length(self, batch: Batch, log: RowLog) -> Batch:
        if self.max_seq_length is None:
            return batch
        lengths = batch.tokens[INPUT_IDS].lengths
        too_long = lengths > self.max_seq_length
        if not too_long.any():
            return batch
        if self.overflow == "truncate":
            return keep_start(batch, self.max_seq_length, log)
        if self.overflow == "truncate_left":
            return keep_end(batch, self.max_seq_length, log)
        log.too_long.update(length_histogram(lengths[too_long]))
        if self.overflow in ("drop", SPLIT_TURNS):
            dropped = batch.filter(too_long)
            why = ", and no conversation to split" if self.overflow == SPLIT_TURNS else ""
            log.drop(f"longer than max_seq_length={self.max_seq_length}{why}", dropped.numbers, dropped.rows)
        else:
            for index in np.flatnonzero(too_long):
                reason = f"{lengths[index]} tokens, more than max_seq_length={self.max_seq_length}"
                log.quarantine(int(batch.numbers[index]), reason, batch.rows[index])
        return batch.filter(~too_long)


def _quarantine_other_lengths(batch: Batch, log: RowLog) -> Batch:
    """Quarantine rows with weights of other tokens: their text was tokenized although they came with tokens."""
    if LOSS_WEIGHTS not in batch.tokens:
        return batch
    kept = batch.tokens[LOSS_WEIGHTS].lengths == batch.tokens[LABELS].lengths
    for index in np.flatnonzero(~kept):
        reason = f"{LOSS_WEIGHTS} are not those of the tokens that response_template makes of the text"
        log.quarantine(int(batch.numbers[index]), reason, batch.rows[index])
    return batch.filter(kept)


def _quarantine_unknown_ids(batch: Batch, log: RowLog, vocabulary_size: int | None) -> Batch:
    """Quarantine rows with ids that are not tokens, which only rows that were tokenized before can have."""
    ids = batch.tokens[INPUT_IDS]
    limit = np.iinfo(np.int32).max if vocabulary_size is None else vocabulary_size - 1
    if not len(ids.values) or (ids.values.min() >= 0 and ids.values.max() <= limit):
        return batch
    unknown = (ids.values < 0) | (ids.values > limit)
    kept = ids.count_per_row(unknown) == 0
    for index in np.flatnonzero(~kept):
        row_ids = ids[int(index)]
        wrong = int(row_ids[(row_ids < 0) | (row_ids > limit)][0])
        known = "no token" if vocabulary_size is None else f"none of the tokenizer's {vocabulary_size} tokens"
        log.quarantine(int(batch.numbers[index]), f"id {wrong} is {known}", batch.rows[index])
    return batch.filter(kept)


def _drop_untrained(batch: Batch, log: RowLog) -> Batch:
    """Drop rows without a trained token: they never had one, or it was cut off."""
    labels = batch.tokens[LABELS]
    kept = labels.count_per_row(trained_mask(labels)) > 0
    dropped = batch.filter(~kept)
    for number, row in zip(dropped.numbers.tolist(), dropped.rows, strict=True):
        cut = log.cut_rows.get(number)
        reason = NO_TRAINED_TOKEN if cut is None or not cut.trained_tokens else cut.reason
        log.drop(reason, [number], [row])
    return batch.filter(kept)
