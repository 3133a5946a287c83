"""What decides what becomes of a row, as plain data that is sent to worker processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.shared_options import DataOptions
from sftkit.decontamination.question_index import QuestionIndex
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what becomes of a row, apart from the row.

    A recipe is plain data. It is made once, by `plan`, and sent to every process that runs tasks; each makes a
    `Pipeline` of it.
    """

    options: DataOptions
    """Limits, masking and other options that apply to all data sets."""
    datasets: tuple[DatasetConfig, ...]
    """The data sets with their handlers. Work units refer to them by name."""
    chat_tokenizer: ChatTokenizerSpec
    """The tokenizer and how it is used."""
    questions: QuestionIndex | None = None
    """The evaluation questions that rows must not overlap with."""
    functions: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The user's own functions, and `code_digests` of each when the run was planned."""
