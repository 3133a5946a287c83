"""The input/output format of fms-hf-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from sftkit.core.rows import Row
from sftkit.handlers.base import text_in
from sftkit.handlers.formats.exchanges import Exchange, after_space


@dataclass(frozen=True)
class InputOutput(Exchange):
    """An input and an output: a pair of texts with a space between them, whether or not there is a chat template."""

    def is_pair(self, row: Row) -> bool:
        """Always: fms-hf-tuning uses no chat template for them."""
        return True

    def columns_of_pair(self, row: Row) -> tuple[str, ...]:
        """Both texts."""
        return (self.question, self.answer_column(row))

    def to_pair(self, row: Row) -> tuple[str, str]:
        """Return both texts, which may be empty."""
        source = text_in(row, self.question)
        return source, after_space(source, text_in(row, self.answer_column(row)))
