"""What rows end as: `input_ids` and `labels` within the length limit, or text for `train` to tokenize."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np

from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import ATTENTION_MASK, INPUT_IDS, LABELS, TOKEN_COLUMNS, Batch, Ragged, Row, trained_mask
from sftkit.handlers.base import locate_engine_differences, map_rows, text_in
from sftkit.handlers.columns import keep_columns
from sftkit.handlers.tokens import add_token_columns
from sftkit.tokenization.chat_tokenizer import ChatTokenizer

NO_TRAINED_TOKEN = "no trained token"
"""Why a row without a loss is dropped."""

_NO_RESPONSE = "no response found by response_template"
_NO_LABELS = (
    "rows end with input_ids and without labels: give a response_template, use a masking handler, "
    "or say train_on=all for a loss on every token"
)


@dataclass(frozen=True)
class RowFinalizer:
    """How a data set's rows are finished.

    text_fields: columns that may be the text; the first that the rows have is it. retained: columns that the config
    asks for by name. max_seq_length: tokens. overflow: truncate, drop or error. train_on_all: every token of a text
    or of bare ids carries a loss.
    """

    text_fields: tuple[str, ...]
    retained: frozenset[str]
    response_template: str | None
    instruction_template: str | None
    max_seq_length: int | None
    overflow: str
    train_on_all: bool

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """Runs of rows that have the same token columns and the same text column, in order.

        Rows are finished by what they have themselves, whichever rows stand beside them in a batch.
        """
        if INPUT_IDS in batch.tokens and LABELS in batch.tokens:
            yield batch
            return
        kinds = [(INPUT_IDS in row, LABELS in row, ATTENTION_MASK in row, self._text_field(row)) for row in batch.rows]
        start = 0
        for _, run in groupby(kinds):
            stop = start + sum(1 for _ in run)
            yield batch if stop - start == len(batch) else batch.slice(start, stop)
            start = stop

    def finish(self, part: Batch, log: RowLog, tools: ChatTokenizer) -> tuple[Batch, str | None]:
        """Rows as they go to disk: token columns and what the config retains, and no text column's name; or a text
        column, its name, and what the config retains. Rows that are neither are quarantined.
        """
        batch = _absorb_tokens(part, log)
        if not len(batch):
            return batch, None
        text_field = self._text_field(batch.rows[0])
        if LABELS not in batch.tokens or INPUT_IDS not in batch.tokens:
            batch = self._supervise(batch, text_field, log, tools)
        if not len(batch):
            return batch, None
        if INPUT_IDS not in batch.tokens:
            assert text_field is not None
            return keep_columns(batch, {text_field} | self.retained), text_field
        batch = _without_misfits(batch, log)
        batch = _without_foreign_ids(batch, log, tools.vocabulary_size)
        batch = self._limited(batch, log)
        batch = _without_untrained(batch, log)
        return keep_columns(batch, {INPUT_IDS, LABELS} | self.retained), None

    def problem_of(self, columns: Collection[str]) -> str | None:
        """Why rows with these columns cannot be finished, or None when they can."""
        text_field = self._text_field(columns)
        if INPUT_IDS in columns and LABELS not in columns and not self.train_on_all:
            if text_field is None or self.response_template is None:
                return _NO_LABELS
        elif INPUT_IDS not in columns and text_field is None:
            tried = " or ".join(repr(name) for name in self.text_fields)
            return (
                f"rows end with the columns {', '.join(columns) or 'none'}: there are no input_ids and no text column "
                f"{tried}; add a handler that makes tokens, or give dataset_text_field"
            )
        return None

    def _text_field(self, columns: Collection[str]) -> str | None:
        return next((name for name in self.text_fields if name in columns), None)

    def _supervise(self, batch: Batch, text_field: str | None, log: RowLog, tools: ChatTokenizer) -> Batch:
        """Labels for rows that the handlers left without."""
        problem = self.problem_of(batch.columns())
        if problem is not None:
            for number, row in zip(batch.numbers, batch.rows, strict=True):
                log.quarantine(int(number), problem, row)
            return batch.slice(0, 0)
        if INPUT_IDS in batch.tokens and (self.response_template is None or text_field is None):
            return batch.with_tokens(**{LABELS: batch.tokens[INPUT_IDS]})
        assert text_field is not None
        make_tokens = self.response_template is not None or self.train_on_all
        check = tools.check_encodable if make_tokens else str
        batch, texts = map_rows(batch, log, lambda row: check(text_in(row, text_field)))
        if self.response_template is not None:
            return self._mask_responses(batch, texts, self.response_template, log, tools)
        if self.train_on_all:
            with locate_engine_differences(batch):
                return add_token_columns(batch, tools.encode_spans(texts, [[] for _ in texts]))
        return batch

    def _mask_responses(
        self, batch: Batch, texts: list[str], template: str, log: RowLog, tools: ChatTokenizer
    ) -> Batch:
        spans = [tools.find_responses(text, template, self.instruction_template) for text in texts]
        found = np.array([bool(row) for row in spans], np.bool_)
        log.drop(_NO_RESPONSE, int((~found).sum()))
        kept_texts = [text for text, kept in zip(texts, found, strict=True) if kept]
        kept_spans = [row for row in spans if row]
        batch = batch.filter(found)
        with locate_engine_differences(batch):
            return add_token_columns(batch, tools.encode_spans(kept_texts, kept_spans))

    def _limited(self, batch: Batch, log: RowLog) -> Batch:
        if self.max_seq_length is None:
            return batch
        lengths = batch.tokens[INPUT_IDS].lengths
        long = lengths > self.max_seq_length
        if not long.any():
            return batch
        if self.overflow == "truncate":
            limits = np.full(len(batch), self.max_seq_length, np.int64)
            cut = {name: column.truncate(limits) for name, column in batch.tokens.items() if name in TOKEN_COLUMNS}
            return batch.with_tokens(**cut)
        if self.overflow == "drop":
            log.drop(f"longer than max_seq_length={self.max_seq_length}", int(long.sum()))
        else:
            for index in np.flatnonzero(long):
                reason = f"{lengths[index]} tokens, more than max_seq_length={self.max_seq_length}"
                log.quarantine(int(batch.numbers[index]), reason, batch.rows[index])
        return batch.filter(~long)


def _absorb_tokens(batch: Batch, log: RowLog) -> Batch:
    """Token columns that are still Python lists (already tokenized JSON rows) -> flat arrays."""
    for name in TOKEN_COLUMNS:
        if name in batch.tokens or not any(name in row for row in batch.rows):
            continue
        batch, lists = map_rows(batch, log, partial(_ids_of, name))
        rows = [{key: value for key, value in row.items() if key != name} for row in batch.rows]
        batch = batch.with_rows(rows).with_tokens(**{name: Ragged.from_lists(lists)})
    return batch


def _ids_of(name: str, row: Row) -> list[int]:
    ids = row.get(name)
    if isinstance(ids, np.ndarray):
        ids = ids.tolist()
    if isinstance(ids, list):
        ids = [int(value) if isinstance(value, np.integer) else value for value in ids]
    if not isinstance(ids, list) or not all(type(value) is int and -(2**31) <= value < 2**31 for value in ids):
        raise RowError(f"column {name!r} must be a list of whole numbers (32 bits)")
    return ids


def _without_misfits(batch: Batch, log: RowLog) -> Batch:
    """Rows whose token columns differ in length are quarantined."""
    lengths = batch.tokens[INPUT_IDS].lengths
    fits = np.ones(len(batch), np.bool_)
    for name in (LABELS, ATTENTION_MASK):
        if name in batch.tokens:
            fits &= batch.tokens[name].lengths == lengths
    for index in np.flatnonzero(~fits):
        log.quarantine(int(batch.numbers[index]), "input_ids and labels differ in length", batch.rows[index])
    return batch.filter(fits)


def _without_foreign_ids(batch: Batch, log: RowLog, vocabulary_size: int | None) -> Batch:
    """Rows with ids that stand for no token are quarantined; the tokenizer's own ids never are such."""
    ids = batch.tokens[INPUT_IDS]
    limit = np.iinfo(np.int32).max if vocabulary_size is None else vocabulary_size - 1
    if not len(ids.values) or (ids.values.min() >= 0 and ids.values.max() <= limit):
        return batch
    foreign = (ids.values < 0) | (ids.values > limit)
    kept = ids.count_per_row(foreign) == 0
    for index in np.flatnonzero(~kept):
        row_ids = ids[int(index)]
        wrong = int(row_ids[(row_ids < 0) | (row_ids > limit)][0])
        known = "no token" if vocabulary_size is None else f"none of the tokenizer's {vocabulary_size} tokens"
        log.quarantine(int(batch.numbers[index]), f"id {wrong} is {known}", batch.rows[index])
    return batch.filter(kept)


def _without_untrained(batch: Batch, log: RowLog) -> Batch:
    """Rows without a trained token are dropped."""
    labels = batch.tokens[LABELS]
    kept = labels.count_per_row(trained_mask(labels)) > 0
    log.drop(NO_TRAINED_TOKEN, int((~kept).sum()))
    return batch.filter(kept)
