"""Checks the tool calls of rows whose shards retain the conversation and the tools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from sftkit.audit.findings import EXAMPLES, TOOL_JSON_INVALID, RuleCount
from sftkit.audit.tools.argument_schemas import ArgumentSchemas
from sftkit.audit.tools.tool_check import check_tool_use
from sftkit.core.error_text import first_line
from sftkit.errors import SourceError
from sftkit.handlers.messages.tool_calls import MalformedCallError
from sftkit.handlers.messages.tool_use import TOOLS, read_tool_use, usual_reader
from sftkit.inspection.columns.column_layout import ColumnLayout
from sftkit.inspection.columns.text_columns import row_reference
from sftkit.shards.readers.open_file import open_shard_file

_CONVERSATIONS = ("messages", "conversations")
_ROWS_AT_ONCE = 256


def check_retained_tools(layout: ColumnLayout, name: str) -> dict[str, RuleCount]:
    """Check the tool calls of a shard, if its rows have a conversation and tools; packs have neither.

    Args:
        layout: the columns of the file.
        name: what examples call the file.

    Returns:
        Rule -> rows that break it.

    Raises:
        SourceError: the file cannot be read.
    """
    column = next((each for each in _CONVERSATIONS if each in layout.names), None)
    tools = [each for each in TOOLS if each in layout.names]
    if column is None or not tools or layout.packed:
        return {}
    schemas, broken = ArgumentSchemas(), dict[str, list[int]]()
    try:
        with open_shard_file(layout.path) as file:
            batches = (
                batch for table in file.iter_groups([column, *tools]) for batch in table.to_batches(_ROWS_AT_ONCE)
            )
            for index, row in enumerate(row for batch in batches for row in batch.to_pylist()):
                for rule in set(_broken_rules(row, column, schemas)):
                    broken.setdefault(rule, []).append(index)
    except (OSError, ValueError, pa.ArrowException) as error:
        names = ", ".join(map(repr, (column, *tools)))
        raise SourceError(f"{layout.path}: the columns {names} cannot be read: {first_line(error)}") from None
    return {
        rule: RuleCount(len(rows), tuple(row_reference(name, row) for row in rows[:EXAMPLES]))
        for rule, rows in broken.items()
    }


def _broken_rules(row: dict[str, Any], column: str, schemas: ArgumentSchemas) -> Iterator[str]:
    try:
        use = read_tool_use(row, column, usual_reader())
    except MalformedCallError:
        yield TOOL_JSON_INVALID
        return
    if use is not None:
        yield from (fault.rule for fault in check_tool_use(use.turns, use.tools, schemas))
