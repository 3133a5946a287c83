"""When retained columns are kept: when rows are read, in the rows of the handlers, or beside the handlers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sftkit.core.row_log import RowLog
from sftkit.core.rows import TOKEN_COLUMNS, Batch, Row
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.handlers.base import Step
from sftkit.handlers.filters.row_filter import RowFilter
from sftkit.handlers.registry import ConfiguredHandler
from sftkit.tokenization.chat_tokenizer import ChatTokenizer


@dataclass(frozen=True)
class Retained:
    """How the columns in `retain_columns` of a data set are kept."""

    names: frozenset[str]
    at_load: bool
    """Whether all other columns are removed when rows are read, as fms-hf-tuning does."""
    riding: frozenset[str]
    """Those that no handler makes anything of, or writes. They stay whatever handlers remove."""


def retained_columns(
    names: Collection[str], handlers: Sequence[ConfiguredHandler], tokenizer: ChatTokenizer
) -> Retained:
    """Decide how the columns in `retain_columns` are kept.

    Other columns are removed when rows are read if the handlers can do without them: `retain_columns` names all columns
    of the source that they need, and none that they write.
    """
    needed: set[str] = set()
    used: set[str] = set()
    written: set[str] = {*TOKEN_COLUMNS, TOKEN_KINDS}
    at_load = bool(names) and not any(each.handler.makes_new_rows for each in handlers)
    for each in handlers:
        optional = each.handler.may_read(tokenizer)
        needed |= set(each.reads()) - written
        used |= {*each.handler.writes(), *(name for name in names if each.handler.content_goes_to(name, tokenizer))}
        if not each.handler.reads() and optional and not set(optional) & {*names, *written}:
            at_load = False  # a template without one of its columns
        if isinstance(each.handler, RowFilter) and (
            each.handler.sees_whole_row() or not set(optional or ()) <= {*names, *written}
        ):
            at_load = False  # it would decide without a column that rows have
        written |= set(each.handler.writes())
    at_load = at_load and needed <= set(names) and not (written - {*TOKEN_COLUMNS, TOKEN_KINDS}) & set(names)
    return Retained(frozenset(names), at_load, frozenset(names) - used - {*TOKEN_COLUMNS, TOKEN_KINDS})


class RidingColumns:
    """Remembers columns before the handlers run, and puts them back into the rows that are left after each."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._values: dict[int, Row] = {}

    def around(
        self, name: str, before: Sequence[tuple[str, Step]], handlers: Sequence[tuple[str, Step]]
    ) -> list[tuple[str, Step]]:
        """Return the steps before the handlers, then the handlers, with the steps here around each.

        Args:
            name: the name of the steps here.
            before: steps with their names.
            handlers: steps with their names.
        """
        if not self._names:
            return [*before, *handlers]
        putting_back = [step for each in handlers for step in (each, (name, self._put_back))]
        return [*before, (name, self._remember), *putting_back]

    def _remember(self, batch: Batch, log: RowLog) -> Batch:
        self._values = {
            number: {name: row[name] for name in self._names if name in row}
            for number, row in zip(batch.numbers.tolist(), batch.rows, strict=True)
        }
        return batch

    def _put_back(self, batch: Batch, log: RowLog) -> Batch:
        numbers = batch.numbers.tolist()
        rows = [{**self._values.get(number, {}), **row} for number, row in zip(numbers, batch.rows, strict=True)]
        return batch.with_rows(rows)
