"""Tells where a conversation that cannot be used could be, if its messages were converted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.handlers.messages.conversion_need import needs_conversion
from sftkit.handlers.messages.roles import known_role
from sftkit.handlers.messages.template_forms import NoTemplate

T = TypeVar("T")

_HINT = "put the handler convert_to_messages before this one, which reads conversations of this form"


class _AnyTemplate(NoTemplate):
    """Stands for a template that writes roles of its own, which the conversion would not change."""

    def knows_role(self, role: str) -> bool:
        """Whether no other role is meant."""
        return known_role(role) is None


def with_conversion_hint(function: Callable[[Row], T], column: str | None) -> Callable[[Row], T]:
    """Return a function of a row whose errors name `convert_to_messages` if the conversation needs it."""

    def hinting(row: Row) -> T:
        try:
            return function(row)
        except RowError as error:
            if column is None or not needs_conversion(row.get(column), _AnyTemplate):
                raise
            raise RowError(f"{error}; {_HINT}") from None

    return hinting
