"""Reads the questions of the evaluation sets that `decontaminate` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sftkit.config.reading.interpolated import interpolated_values, replace_values
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.decontaminate_options import DecontaminateConfig
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.row_log import UNREADABLE, RowLog
from sftkit.core.rows import Batch, Row
from sftkit.decontamination.comparable_words import comparable_words
from sftkit.decontamination.question_index import Question, QuestionIndex
from sftkit.errors import ConfigError, DataError, SourceError
from sftkit.preprocessing.pipeline.comparison.all_texts import texts_in
from sftkit.sources.discovery.source_files import find_sources
from sftkit.sources.source_file import ReadLimits
from sftkit.sources.work_units import read_unit, scan_files

_KEY = "dataprocessor.decontaminate"
_QUESTION_COLUMNS = ("question", "problem", "prompt", "instruction", "input", "query", "text")
_CONVERSATION_COLUMNS = ("messages", "conversations", "conversation")
_USER_ROLES = frozenset({"user", "human"})
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
        Question(replace_values(place, values), words)
        for path in config.paths
        for place, words in _questions_in(path, config, options)
    ]
    return QuestionIndex(questions, config.ngrams, config.min_share)


def check_texts(dataset: DatasetConfig, rows: Batch) -> None:
    """Raise `DataError` if rows have no texts, which could be compared with questions: they came as tokens."""
    if not any(True for row in rows.rows for _ in texts_in(row)):
        raise DataError(
            f"dataset {dataset.name!r} ({dataset.data_paths[0]}): its rows have no text to compare with evaluation "
            f"questions; use the data that they were made from, or remove {_KEY}"
        )


def _questions_in(
    path: str, config: DecontaminateConfig, options: DataOptions
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (place, words) of the questions of an evaluation set."""
    found = 0
    texts = _lines(path) if path.endswith(".txt") else _texts_of_rows(path, config, options)
    for place, text in texts:
        words = comparable_words(text)
        if len(words) >= _MIN_WORDS:
            found += 1
            yield place, tuple(words)
    if not found:
        raise DataError(
            f"{path}: holds no question of {_MIN_WORDS} words or more; name an evaluation set in {_KEY}.paths"
        )


def _lines(path: str) -> Iterator[tuple[str, str]]:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{path}:{number}", line
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}; check {_KEY}.paths") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: is not UTF-8; convert it, or name another file in {_KEY}.paths") from None


def _texts_of_rows(path: str, config: DecontaminateConfig, options: DataOptions) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of the questions of all rows."""
    limits = ReadLimits(options.max_row_bytes, options.max_expansion)
    sources = find_sources(DatasetConfig(name=path, data_paths=(path,)), limits, options.storage_options)
    for file in scan_files(sources.files, _UNIT_SIZE):
        for unit in file.units:
            log = RowLog(kind=UNREADABLE)
            for batch in read_unit(unit, log):
                for number, row in zip(batch.numbers.tolist(), batch.rows, strict=True):
                    place = f"{file.file.name}:{number}"
                    for text in _question_texts(row, config.columns, place):
                        yield place, text
            if log.bad:
                bad = log.bad[0]
                raise DataError(
                    f"{file.file.name}:{bad.number}: {bad.reason}; every row of an evaluation set is needed"
                )


def _question_texts(row: Row, columns: tuple[str, ...], place: str) -> Iterator[str]:
    names = columns or tuple(name for name in (*_QUESTION_COLUMNS, *_CONVERSATION_COLUMNS) if row.get(name))
    present = [name for name in names if name in row]
    if not present:
        wanted = " or ".join(map(repr, columns or (*_QUESTION_COLUMNS, *_CONVERSATION_COLUMNS)))
        raise DataError(f"{place}: no column {wanted}; columns there: {', '.join(row)}; set {_KEY}.columns")
    for name in present:
        value = row[name]
        is_conversation = isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
        yield from texts_in([item for item in value if _is_asked(item)] if is_conversation else value)


def _is_asked(message: Any) -> bool:
    """Whether a message of a conversation is the user's."""
    if not isinstance(message, Mapping):
        return True
    role = message.get("role", message.get("from"))
    return not isinstance(role, str) or role.lower() in _USER_ROLES
