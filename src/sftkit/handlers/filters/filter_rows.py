"""The handler that keeps the rows of which a condition or a function of the user is true."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sftkit.config.fields import option
from sftkit.core.row_log import RowDroppedError, RowError
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError
from sftkit.handlers.base import Step
from sftkit.handlers.filters.condition import Condition, ConditionVariables, variables_of_condition
from sftkit.handlers.filters.measures import (
    OF_CONVERSATIONS,
    OF_TOKENS,
    columns_to_measure,
    measure_conversation,
    token_measure,
)
from sftkit.handlers.filters.row_filter import RowFilter, filter_step
from sftkit.handlers.user_function import bound_function, code_identity, recording_files

if TYPE_CHECKING:
    from sftkit.tokenization.chat_tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True)
class FilterRows(RowFilter):
    """Keeps the rows of which a condition is true, and drops the others with a reason. A row on which the condition
    fails (a column is missing, or of another type) is bad, and quarantined.

    The condition is an expression of Jinja. Its variables are the columns, `element` (the whole row), and measures:
    `turns` (messages), `roles.user`, `roles.assistant`, `roles.tool`, ... (messages of a role), `characters` and
    `answer_characters` of the conversation, and, after a handler that tokenizes, `tokens` and `trained_tokens`. A
    column with the name of a measure is `element.tokens`.
    """

    registered_as = "filter"

    condition: str | None = option(
        None, help="Expression that is true of the rows to keep, such as `turns > 2 and source == 'forum'`."
    )
    function: str | None = option(
        None,
        help="Instead of a condition, `package.module:function` of your own, which gets the row and returns true to "
        "keep it, or false.",
    )
    function_kwargs: Mapping[str, Any] = option(factory=dict, help="Further keyword arguments of the function.")
    reason: str | None = option(
        None, help="Why other rows are dropped, as it is listed and counted. Default: the condition or the function."
    )
    conversation_column: str | None = option(
        None,
        help="Column that holds the conversation to measure. Default: `messages`, `conversations` or another usual "
        "one, whichever is there first.",
    )

    def check_arguments(self) -> None:
        """Compile the condition."""
        if (self.condition is None) == (self.function is None):
            raise ConfigError("`condition` or `function` must be set, and not both")
        if self.function_kwargs and self.function is None:
            raise ConfigError("function_kwargs needs `function`")
        if self.condition is not None:
            Condition(self.condition)
            if self._variables.is_constant:
                raise ConfigError(
                    f"condition {self.condition!r} must use a column or a measure: it is the same for all rows"
                )

    def functions(self) -> tuple[str, ...]:
        """The function."""
        return (self.function,) if self.function is not None else ()

    def needs_token_columns(self) -> tuple[str, ...]:
        """Those whose tokens the condition counts."""
        return tuple(OF_TOKENS[name] for name in sorted(self._variables.measures & OF_TOKENS.keys()))

    def reads(self) -> tuple[str, ...]:
        """The columns that the condition uses."""
        conversation = columns_to_measure(self.conversation_column)[0] if self._measures_conversation else ()
        return tuple(dict.fromkeys((*sorted(self._variables.columns), *conversation, *self.needs_token_columns())))

    def may_read(self, tokenizer: ChatTokenizer) -> tuple[str, ...]:
        """The columns that the condition uses where rows have them."""
        conversation = columns_to_measure(self.conversation_column)[1] if self._measures_conversation else ()
        return (*sorted(self._variables.optional_columns), *conversation)

    def sees_whole_row(self) -> bool:
        """True for a function."""
        return self.function is not None or self._variables.whole_row

    def sees_tokenizer_limits(self) -> bool:
        """True for a function, which can ask for the tokenizer."""
        return self.function is not None

    def identity(self) -> Any:
        """The arguments, and the files of the user's own that the function depends on."""
        return [super().identity(), code_identity(self.function, self.function_kwargs) if self.function else None]

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Return the step that drops rows."""
        if self.function is not None:
            return recording_files(self.function, filter_step(self._function_check(self.function, tokenizer)))
        return filter_step(self._condition_check(self.condition or ""))

    def _function_check(self, path: str, tokenizer: ChatTokenizer) -> Callable[[Batch], Callable[[int, Row], None]]:
        call = bound_function(path, self.function_kwargs, tokenizer)
        reason = self.reason or f"filter: {path} returned False"

        def checks_of(batch: Batch) -> Callable[[int, Row], None]:
            def check(index: int, row: Row) -> None:
                result = call(batch, index)
                if not isinstance(result, (bool, np.bool_)):
                    raise RowError(f"{path} must return True or False, not {type(result).__name__}")
                if not result:
                    raise RowDroppedError(reason)

            return check

        return checks_of

    def _condition_check(self, source: str) -> Callable[[Batch], Callable[[int, Row], None]]:
        condition, column = Condition(source), self.conversation_column
        reason = self.reason or f"filter: not ({' '.join(source.split())})"
        of_tokens = sorted(self._variables.measures & OF_TOKENS.keys())
        measures_conversation = self._measures_conversation

        def checks_of(batch: Batch) -> Callable[[int, Row], None]:
            counts = {name: token_measure(name, batch) for name in of_tokens}

            def check(index: int, row: Row) -> None:
                measures: dict[str, Any] = {name: count(index, row) for name, count in counts.items()}
                if measures_conversation:
                    measures |= measure_conversation(row, column)._asdict()
                if not condition.holds(row, measures):
                    raise RowDroppedError(reason)

            return check

        return checks_of

    @property
    def _variables(self) -> ConditionVariables:
        return variables_of_condition(self.condition or "true")

    @property
    def _measures_conversation(self) -> bool:
        return not self._variables.measures.isdisjoint(OF_CONVERSATIONS)
