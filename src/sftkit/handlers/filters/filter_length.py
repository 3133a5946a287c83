"""The handler that drops rows with too few or too many messages, characters or tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkit.config.fields import option
from sftkit.core.row_log import RowDroppedError
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError
from sftkit.handlers.base import Step, check_positive
from sftkit.handlers.filters.measures import (
    ANSWER_CHARACTERS,
    CHARACTERS,
    OF_TOKENS,
    TOKENS,
    TRAINED_TOKENS,
    TURNS,
    columns_to_measure,
    measure_conversation,
    token_measure,
)
from sftkit.handlers.filters.row_filter import RowFilter, filter_step

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

_MEASURES = (TURNS, CHARACTERS, ANSWER_CHARACTERS, TOKENS, TRAINED_TOKENS)


@dataclass(frozen=True, kw_only=True)
class FilterLength(RowFilter):
    """Drops rows with fewer or more messages, characters or tokens than the limits, each with the limit as its reason.
    Limits on tokens need a handler before this one that tokenizes; `max_seq_length` applies later.
    """

    registered_as = "filter_length"

    min_turns: int | None = option(None, help="Fewest messages, the system prompt included.")
    max_turns: int | None = option(None, help="Most messages.")
    min_characters: int | None = option(
        None, help="Fewest characters of all messages: contents, reasoning, and tool calls as JSON."
    )
    max_characters: int | None = option(None, help="Most characters of all messages.")
    min_answer_characters: int | None = option(None, help="Fewest characters of the assistant's messages together.")
    max_answer_characters: int | None = option(None, help="Most characters of them.")
    min_tokens: int | None = option(None, help="Fewest tokens.")
    max_tokens: int | None = option(None, help="Most tokens.")
    min_trained_tokens: int | None = option(None, help="Fewest tokens that carry a loss.")
    max_trained_tokens: int | None = option(None, help="Most tokens that carry a loss.")
    conversation_column: str | None = option(
        None,
        help="Column that holds the conversation to measure. Default: `messages`, `conversations` or another usual "
        "one, whichever is there first.",
    )

    def check_arguments(self) -> None:
        """Check that there is a limit, and that no limit contradicts another."""
        if not self._measured:
            names = ", ".join(f"min_{name}, max_{name}" for name in _MEASURES)
            raise ConfigError(f"set at least one limit: {names}")
        for name in self._measured:
            least, most = self._limits(name)
            check_positive(f"min_{name}", least)
            check_positive(f"max_{name}", most)
            if least is not None and most is not None and least > most:
                raise ConfigError(f"min_{name} must not be more than max_{name}, but {least} is more than {most}")

    def needs_token_columns(self) -> tuple[str, ...]:
        """Those whose tokens are limited."""
        return tuple(OF_TOKENS[name] for name in self._measured if name in OF_TOKENS)

    def reads(self) -> tuple[str, ...]:
        """The columns that are measured."""
        conversation = columns_to_measure(self.conversation_column)[0] if self._measures_conversation else ()
        return (*conversation, *self.needs_token_columns())

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """The columns that may hold the conversation, if none is named."""
        return columns_to_measure(self.conversation_column)[1] if self._measures_conversation else ()

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Return the step that drops rows."""
        column, limits = self.conversation_column, {name: self._limits(name) for name in self._measured}
        of_tokens = [name for name in limits if name in OF_TOKENS]
        measures_conversation = self._measures_conversation

        def checks_of(batch: Batch) -> Callable[[int, Row], None]:
            counts = {name: token_measure(name, batch) for name in of_tokens}

            def check(index: int, row: Row) -> None:
                measures = measure_conversation(row, column)._asdict() if measures_conversation else {}
                for name, (least, most) in limits.items():
                    value = counts[name](index, row) if name in counts else measures[name]
                    if least is not None and value < least:
                        raise RowDroppedError(f"fewer than min_{name}={least}")
                    if most is not None and value > most:
                        raise RowDroppedError(f"more than max_{name}={most}")

            return check

        return filter_step(checks_of)

    def _limits(self, name: str) -> tuple[int | None, int | None]:
        return getattr(self, f"min_{name}"), getattr(self, f"max_{name}")

    @property
    def _measured(self) -> tuple[str, ...]:
        return tuple(name for name in _MEASURES if self._limits(name) != (None, None))

    @property
    def _measures_conversation(self) -> bool:
        return any(name not in OF_TOKENS for name in self._measured)
