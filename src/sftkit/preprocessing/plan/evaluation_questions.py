"""Reads the questions of the evaluation sets that `decontaminate` names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sftkit.config.reading.interpolated import interpolated_values, replace_values
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.decontaminate_options import DecontaminateConfig
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.message_fields import USER_ROLES
from sftkit.core.row_log import UNREADABLE, RowLog
from sftkit.core.rows import Batch, Row
from sftkit.decontamination.comparable_words import comparable_words
from sftkit.decontamination.question_index import MOST_QUESTIONS, Question, QuestionIndex
from sftkit.errors import ConfigError, DataError, SourceError
from sftkit.preprocessing.pipeline.comparison.all_texts import parsed_json, texts_in
from sftkit.preprocessing.plan.evaluation_files import find_evaluation_files, is_text
from sftkit.sources.source_file import ReadLimits
from sftkit.sources.streams.text_streams import open_utf8
from sftkit.sources.work_units import read_unit, scan_files

_KEY = "dataprocessor.decontaminate"
_QUESTION_COLUMNS = ("question", "problem", "prompt", "instruction", "input", "query", "text")
_CONVERSATION_COLUMNS = ("messages", "conversations", "conversation")
_MIN_WORDS = 3
"""Shorter texts, such as `yes`, would be found everywhere."""

_UNIT_SIZE = 64 << 20


def read_questions(options: DataOptions) -> QuestionIndex | None:
    """Read and index the questions of the evaluation sets; None if the config names none.

    Raises:
        ConfigError: the lengths of runs are no lengths.
        SourceError: a file cannot be found or read.
        DataError: a row cannot be read, or no column with questions is found.
    """
    config = options.dataprocessor.decontaminate
    if config is None:
        return None
    if not config.paths:
        raise ConfigError(f"{_KEY}.paths names no evaluation set; name one, or remove {_KEY}")
    if not config.ngrams or min(config.ngrams) < 1:
        raise ConfigError(f"{_KEY}.ngrams must be lengths of runs, in words, of 1 or more, such as [8, 13]")
    values = interpolated_values(options)
    questions = [
        replace(question, place=replace_values(question.place, values))
        for path in config.paths
        for question in _questions_in(path, config, options)
    ]
    return QuestionIndex(questions, config.ngrams, config.min_share)


def check_texts(dataset: DatasetConfig, rows: Batch) -> None:
    """Raise `DataError` if rows have no texts, which could be compared with questions: they came as tokens."""
    if not any(True for row in rows.rows for _ in texts_in(row)):
        raise DataError(
            f"dataset {dataset.name!r} ({dataset.data_paths[0]}): its rows have no text to compare with evaluation "
            f"questions; use the data that they were made from, or remove {_KEY}"
        )


def _questions_in(path: str, config: DecontaminateConfig, options: DataOptions) -> Iterator[Question]:
    """Yield the questions of an evaluation set, without those that many of its rows have in common."""
    place_of: dict[tuple[tuple[str, ...], ...], str] = {}  # of different rows
    for place, texts in _lines(path, options) if is_text(path) else _texts_of_rows(path, config, options):
        place_of.setdefault(tuple(tuple(comparable_words(text)) for text in texts), place)
    rows = Counter(words for row in place_of for words in set(row))
    questions = [
        Question(place, words)
        for row, place in place_of.items()
        for words in row
        if len(words) >= _MIN_WORDS and rows[words] <= MOST_QUESTIONS
    ]
    if not questions:
        raise DataError(
            f"{path}: holds no question of {_MIN_WORDS} words or more that is not the same in more than "
            f"{MOST_QUESTIONS} rows; name an evaluation set in {_KEY}.paths, or its questions in {_KEY}.columns"
        )
    yield from questions


def _lines(path: str, options: DataOptions) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, questions) of the lines of text files."""
    limits = ReadLimits(options.max_row_bytes, options.max_expansion)
    for file in find_evaluation_files(path, limits, options.storage_options):
        with open_utf8(file) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield f"{file.name}:{number}", [line.decode()]
                except UnicodeDecodeError:
                    raise SourceError(
                        f"{file.name}:{number}: is not UTF-8; convert the file, or name another one in {_KEY}.paths"
                    ) from None


def _texts_of_rows(path: str, config: DecontaminateConfig, options: DataOptions) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, questions) of all rows."""
    limits = ReadLimits(options.max_row_bytes, options.max_expansion)
    for file in scan_files(find_evaluation_files(path, limits, options.storage_options), _UNIT_SIZE):
        for unit in file.units:
            log = RowLog(kind=UNREADABLE)
            for batch in read_unit(unit, log):
                for number, row in zip(batch.numbers.tolist(), batch.rows, strict=True):
                    place = f"{file.file.name}:{number}"
                    yield place, list(_question_texts(row, config.columns, place))
            if log.bad:
                bad = log.bad[0]
                raise DataError(
                    f"{file.file.name}:{bad.number}: {bad.reason}; every row of an evaluation set is needed"
                )


def _question_texts(row: Row, columns: tuple[str, ...], place: str) -> Iterator[str]:
    present = [name for name in columns or (*_QUESTION_COLUMNS, *_CONVERSATION_COLUMNS) if name in row]
    if not present:
        wanted = " or ".join(map(repr, columns or (*_QUESTION_COLUMNS, *_CONVERSATION_COLUMNS)))
        raise DataError(f"{place}: no column {wanted}; columns there: {', '.join(row)}; set {_KEY}.columns")
    for name in present:
        value = row[name]
        if isinstance(value, str) and name in _CONVERSATION_COLUMNS:
            value = parsed_json(value) or value
        is_conversation = isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
        yield from texts_in([item for item in value if _is_asked(item)] if is_conversation else value)


def _is_asked(message: Any) -> bool:
    """Whether a message of a conversation is the user's."""
    if not isinstance(message, Mapping):
        return True
    role = message.get("role", message.get("from"))
    return not isinstance(role, str) or role.lower() in USER_ROLES
