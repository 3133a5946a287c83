"""Converts rows of any format to an input and an output, for tokenizers without a chat template."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkit.config.fields import option
from sftkit.core.rows import Row
from sftkit.handlers.base import Step
from sftkit.handlers.formats.format_handler import FormatHandler
from sftkit.handlers.formats.row_format import RowFormat

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

PAIR_INPUT, PAIR_OUTPUT = "pair_input", "pair_output"


@dataclass(frozen=True, kw_only=True)
class ConvertToPair(FormatHandler):
    """Converts rows of any known format to two texts: all that comes before the answer, and the answer. For tokenizers
    without a chat template; `tokenize_and_apply_input_masking` with `separator: ""` then makes tokens of them.
    """

    registered_as = "convert_to_pair"

    input_column: str = option(PAIR_INPUT, help="Column that the input is written to.")
    output_column: str = option(PAIR_OUTPUT, help="Column that the output is written to.")

    def writes(self) -> tuple[str, ...]:
        """The input and the output."""
        return (self.input_column, self.output_column)

    def columns_of_format(self, found: RowFormat, row: Row) -> Collection[str]:
        """The columns of the pair."""
        return found.columns_of_pair(row)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Convert each row. An eos token that ends the answer is removed, because the next handler adds it."""
        eos = tokenizer.eos_token

        def convert(row: Row) -> Row:
            found, named = self.read_format(row)
            source, target = found.to_pair(named)
            return {**row, self.input_column: source, self.output_column: target.removesuffix(eos)}

        return self.converting(tokenizer, convert)
