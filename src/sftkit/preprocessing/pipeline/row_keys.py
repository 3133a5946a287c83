"""Keys or signatures of the rows of a staged unit, which tell the rows that repeat another one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sftkit.config.schema.deduplicate_options import ANSWERS, NEAR, PROMPTS, WHOLE_ROW, DeduplicateConfig
from sftkit.core.row_log import UNREADABLE, RowLog
from sftkit.core.rows import IGNORE_INDEX, INPUT_IDS, LABELS, Mask, Offsets, Row
from sftkit.deduplication.banding import Banding
from sftkit.deduplication.exact_keys import Keys, text_keys, token_keys
from sftkit.deduplication.minhash import MinHasher
from sftkit.deduplication.text_form import TextForm
from sftkit.preprocessing.pipeline.comparison.row_texts import TurnText
from sftkit.preprocessing.pipeline.unit_pipeline import Pipeline
from sftkit.shards.staging.staged_rows import StagedBatch, read_staged_rows
from sftkit.sources.work_units import WorkUnit, read_unit
from sftkit.storage.paths import AnyPath

Texts = Sequence[str]
"""What is compared of one row. If all are empty, the row is compared with no other."""


@dataclass(frozen=True)
class KeyTask:
    """A staged unit whose rows get keys."""

    unit: WorkUnit
    path: AnyPath
    """Its rows."""
    number_shift: int
    """As `StagedUnit.number_shift`."""

    def __str__(self) -> str:
        return str(self.unit)


@dataclass(frozen=True)
class RowKeys:
    """Keys of rows."""

    keys: npt.NDArray[Any]
    """The key (uint64, shape (rows, 2)) or the signature (uint8, shape (rows, hashes)) of each row."""
    compared: Mask
    """Which rows are compared with others, shape (rows,)."""

    @classmethod
    def of(cls, keys: Keys) -> RowKeys:
        """Return keys of which 0 means that a row is compared with no other."""
        return cls(keys, (keys[:, 0] != 0) | (keys[:, 1] != 0))


@dataclass(frozen=True)
class RowKeyMaker:
    """Computes the keys of the rows of staged units. It is sent to worker processes."""

    config: DeduplicateConfig
    renamed: Mapping[str, Mapping[str, str]]
    """By data set: `rename_columns`."""
    pipeline: Callable[[], Pipeline]

    def __call__(self, task: KeyTask) -> RowKeys:
        """Compute the key of each row of a unit, in the order of its file.

        Rows that one row was split into have the same key.

        Raises:
            SourceError: the source cannot be read, or has changed.
            OSError: the staged unit cannot be read.
        """
        if not self.config.columns and not self.config.needs_turns:
            return self._joined([self._keys_of_staged(batch) for batch in read_staged_rows(task.path)])
        numbers = np.concatenate([batch.numbers for batch in read_staged_rows(task.path)]) + task.number_shift
        found = [np.zeros(0, np.int64)]
        parts = []
        for some, texts in self._texts_by_number(task.unit):
            is_staged = np.isin(some, numbers)
            found.append(some[is_staged])
            parts.append(self._keys_of_texts([each for each, kept in zip(texts, is_staged, strict=True) if kept]))
        return _rows_of(self._joined(parts), np.concatenate(found), numbers)

    def _keys_of_staged(self, batch: StagedBatch) -> RowKeys:
        texts = batch.texts
        if texts is not None:
            return self._keys_of_texts([[text] for text in texts])
        ids, labels = batch.tokens(INPUT_IDS), batch.tokens(LABELS)
        is_whole = self.config.compared == WHOLE_ROW
        if not is_whole:
            ids = ids.select(labels.values != IGNORE_INDEX)
        if self.config.method == NEAR or not self._form.is_exact:
            decode = self.pipeline().chat_tokenizer.decode
            return self._keys_of_texts([[decode(ids[row])] for row in range(len(ids))])
        return RowKeys.of(token_keys([ids, labels] if is_whole else [ids]))

    def _texts_by_number(self, unit: WorkUnit) -> Iterator[tuple[Offsets, list[Texts]]]:
        """Yield the numbers of rows of the source, and what is compared of each."""
        if self.config.columns:
            renamed = self.renamed.get(unit.file.dataset) or {}
            for batch in read_unit(unit, RowLog(kind=UNREADABLE, on_bad_rows=lambda *_: None)):
                yield batch.numbers, [self._texts_of_columns(row, renamed) for row in batch.rows]
            return
        for numbers, turns in self.pipeline().turns(unit):
            yield numbers, [self._texts_of_turns(each) for each in turns]

    def _texts_of_columns(self, row: Row, renamed: Mapping[str, str]) -> Texts:
        if renamed:
            row = {renamed.get(name, name): value for name, value in row.items()}
        return [_text_of_value(row.get(name), self._form) for name in self.config.columns]

    def _texts_of_turns(self, turns: Sequence[TurnText]) -> Texts:
        compared = self.config.compared
        if compared == ANSWERS:
            return [text for is_answer, text in turns if is_answer]
        if compared == PROMPTS:
            return [text for is_answer, text in turns if not is_answer]
        texts = [text for _, text in turns]
        if self.config.method == NEAR or not any(texts):
            return texts
        return ["".join(["a" if is_answer else "p" for is_answer, _ in turns]), *texts]

    def _keys_of_texts(self, rows: Sequence[Texts]) -> RowKeys:
        form = self._form
        if self.config.method == NEAR:
            return RowKeys(*self._hasher.signatures([form.of("\n".join(texts)) for texts in rows]))
        if not form.is_exact:
            rows = [[form.of(text) for text in texts] for texts in rows]
        return RowKeys.of(text_keys(rows))

    def _joined(self, parts: Sequence[RowKeys]) -> RowKeys:
        is_near = self.config.method == NEAR
        none = np.zeros((0, self._hasher.hashes), np.uint8) if is_near else np.zeros((0, 2), np.uint64)
        keys, compared = [each.keys for each in parts], [each.compared for each in parts]
        return RowKeys(np.concatenate([none, *keys]), np.concatenate([np.zeros(0, np.bool_), *compared]))

    @cached_property
    def _hasher(self) -> MinHasher:
        return MinHasher(Banding.for_threshold(self.config.similarity).hashes, self.config.run_length)

    @cached_property
    def _form(self) -> TextForm:
        return TextForm(self.config.folds_case, self.config.ignore_white_space and self.config.method != NEAR)


def _text_of_value(value: Any, form: TextForm) -> str:
    """Return the value of a column as text: text as it is, nothing for null, anything else as JSON.

    Example:
        >>> form = TextForm(ignores_case=True, ignores_white_space=False)
        >>> _text_of_value("Yes", form), _text_of_value(None, form), _text_of_value({"b": 1, "a": ["A"]}, form)
        ('yes', '', '{"a": ["a"], "b": 1}')
    """
    if isinstance(value, str):
        return form.of(value)
    if value is None:
        return ""
    return json.dumps(form.of_value(value), sort_keys=True, ensure_ascii=False, default=str)


def _rows_of(keys: RowKeys, numbers: Offsets, rows: Offsets) -> RowKeys:
    """Return the keys of rows, given by their numbers; rows that are not there are compared with no other."""
    if not len(numbers):
        return RowKeys(np.zeros((len(rows), *keys.keys.shape[1:]), keys.keys.dtype), np.zeros(len(rows), np.bool_))
    places = np.minimum(np.searchsorted(numbers, rows), len(numbers) - 1)
    return RowKeys(keys.keys[places], keys.compared[places] & (numbers[places] == rows))
