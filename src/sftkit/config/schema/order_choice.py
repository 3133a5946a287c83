"""The values of `order`: how the rows of the train split are arranged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkit.config.words import parse_boolean
from sftkit.errors import ConfigError

SHUFFLED, AS_IS, BY_LENGTH, LENGTH_GROUPED, CURRICULUM = (
    "shuffled",
    "as_is",
    "by_length",
    "length_grouped",
    "curriculum",
)
_WITHOUT_COLUMN = (SHUFFLED, AS_IS, BY_LENGTH, LENGTH_GROUPED)
_FORMS = f"{', '.join(_WITHOUT_COLUMN)} or {CURRICULUM}: COLUMN"


@dataclass(frozen=True)
class RowOrder:
    """How rows are arranged."""

    kind: str
    column: str = ""
    """The column that `curriculum` sorts by; "" for other orders."""
    descending: bool = False

    def __str__(self) -> str:
        return f"{self.kind}:{'-' if self.descending else ''}{self.column}" if self.column else self.kind


def read_row_order(value: Any) -> RowOrder | None:
    """Return the order that a value of `order` stands for; None if it is not set.

    Raises:
        ConfigError: there is no such order.

    Example:
        >>> read_row_order("by_length"), str(read_row_order("curriculum:-score"))
        (RowOrder(kind='by_length', column='', descending=False), 'curriculum:-score')
        >>> read_row_order({"curriculum": {"column": "score", "descending": True}})
        RowOrder(kind='curriculum', column='score', descending=True)
    """
    if value is None:
        return None
    if isinstance(value, Mapping) and list(value) == [CURRICULUM]:
        return _curriculum(value[CURRICULUM])
    if isinstance(value, str):
        kind, _, column = value.partition(":")
        if kind.strip() in _WITHOUT_COLUMN and not column:
            return RowOrder(kind.strip())
        if kind.strip() == CURRICULUM:
            return _curriculum(column.strip())
    raise ConfigError(f"dataprocessor.order must be {_FORMS}, not {value!r}")


def _curriculum(value: Any) -> RowOrder:
    if isinstance(value, str) and value.strip("- "):
        return RowOrder(CURRICULUM, value.strip().removeprefix("-"), descending=value.strip().startswith("-"))
    if isinstance(value, Mapping) and {"column"} <= {*value} <= {"column", "descending"}:
        column, descending = value["column"], parse_boolean(value.get("descending", False))
        if isinstance(column, str) and column and descending is not None:
            return RowOrder(CURRICULUM, column, descending)
    raise ConfigError(
        f"dataprocessor.order: {CURRICULUM} needs the name of a column with numbers, such as {CURRICULUM}: difficulty "
        "(-difficulty for the highest first)"
    )
