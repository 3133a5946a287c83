"""Conditions: expressions of Jinja over a row, evaluated in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sftkit.errors import ConfigError, TokenizerError
from sftkit.handlers.filters.measures import OF_CONVERSATIONS, OF_TOKENS
from sftkit.sandbox.render_limits import render_within_limits
from sftkit.sandbox.row_evaluation import evaluate_on_row
from sftkit.sandbox.template_check import check_template_operations
from sftkit.sandbox.template_variables import keys_of_variable, optional_variables_of, variables_of

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.environment import TemplateExpression

WHOLE_ROW = "element"
"""The variable of a condition that is the whole row, as in `apply_custom_jinja_template`."""


@dataclass(frozen=True)
class ConditionVariables:
    """What a condition uses of a row."""

    columns: frozenset[str]
    """Columns that every row must have."""
    optional_columns: frozenset[str]
    """Columns that a row may lack."""
    measures: frozenset[str]
    """Measures among its variables."""
    whole_row: bool
    """Whether it uses the row in another way than by columns it names."""

    @property
    def is_constant(self) -> bool:
        """Whether it uses nothing of a row."""
        return not (self.columns or self.optional_columns or self.measures or self.whole_row)


def variables_of_condition(source: str) -> ConditionVariables:
    """Find what a condition uses of a row.

    Example:
        >>> found = variables_of_condition("turns > 2 and source == 'x' and (score is undefined or score > 3)")
        >>> sorted(found.columns), sorted(found.optional_columns), sorted(found.measures)
        (['source'], ['score'], ['turns'])
    """
    template = _as_template(source)
    keys = keys_of_variable(template, WHOLE_ROW)
    names = variables_of(template) - {WHOLE_ROW} - _environment().globals.keys()
    measures = names & (OF_CONVERSATIONS | OF_TOKENS.keys())
    optional = (optional_variables_of(template) & names) - measures
    return ConditionVariables(names - measures - optional, optional | (keys or frozenset()), measures, keys is None)


class Condition:
    """An expression of Jinja, compiled.

    Example:
        >>> Condition("len(text) > 2 and source in ['a', 'b']").holds({"text": "abc", "source": "a"}, {})
        True
    """

    def __init__(self, source: str) -> None:
        """Compile an expression.

        Raises:
            ConfigError: it is not one, or does what expressions may not do.
        """
        self._expression = _compile(source)

    def holds(self, row: Mapping[str, Any], measures: Mapping[str, Any]) -> bool:
        """Return whether the condition is true of a row.

        Args:
            row: its columns.
            measures: values that are known under names of their own; a column of the same name is hidden.

        Raises:
            RowError: the condition uses a value that the row lacks, or of another type.
            TemplateLimitError: evaluating it exceeds a limit on time or memory.
        """
        values = {WHOLE_ROW: row, **row, **measures}
        return evaluate_on_row(lambda: bool(self._expression(values)), row, "condition", "cannot be evaluated")


def _compile(source: str) -> TemplateExpression:
    from jinja2 import TemplateSyntaxError

    try:
        check_template_operations(_as_template(source))
        return render_within_limits(lambda: _environment().compile_expression(source, undefined_to_none=False), source)
    except TemplateSyntaxError as error:
        problem = str(error.message).replace("end of template", "end")
        raise ConfigError(f"condition {source!r} is not a valid expression: {problem}") from None
    except TokenizerError as error:
        raise ConfigError(f"`condition`: {str(error).replace('the template', 'the expression')}") from None


def _as_template(source: str) -> str:
    """Return a template that evaluates the expression and nothing else."""
    return "{{ (" + source + "\n) }}"


@cache
def _environment() -> Environment:
    from jinja2 import StrictUndefined

    from sftkit.sandbox.steady_environment import SteadyEnvironment

    environment = SteadyEnvironment(undefined=StrictUndefined)
    environment.globals["len"] = len
    environment.hide_functions()
    return environment
