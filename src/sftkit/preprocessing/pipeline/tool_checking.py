"""`check_tools`: the tool calls of each conversation are checked before a handler reads it."""

from __future__ import annotations

from collections.abc import Callable

from sftkit.audit.findings import TOOL_JSON_INVALID
from sftkit.audit.tools.argument_schemas import ArgumentSchemas
from sftkit.audit.tools.tool_check import REASONS, ToolFault, check_tool_use
from sftkit.core.row_log import RowDroppedError, RowError, RowLog
from sftkit.core.rows import Batch, Row
from sftkit.handlers.base import Handler, Step, map_rows
from sftkit.handlers.convert_messages import ConvertToMessages
from sftkit.handlers.messages.tool_calls import MalformedCallError
from sftkit.handlers.messages.tool_use import ToolUse, read_tool_use, usual_reader
from sftkit.handlers.text import ApplyTokenizerChatTemplate
from sftkit.handlers.tokens import TokenizeAndApplyChatTemplateWithMasking
from sftkit.tokenization.conversation_reader import CONVERSATION_COLUMNS

OFF, WARN, DROP = "off", "warn", "drop"
"""Values of `check_tools`; `error` is the last one."""


def reads_conversations(handler: Handler) -> bool:
    """Return whether a handler reads conversations, whose tool calls can be checked."""
    return _reader_of(handler) is not None


def with_tool_check(step: Step, handler: Handler, policy: str) -> Step:
    """Return the step of a handler that reads conversations, with a check of their tool calls before it.

    Args:
        step: the handler's step.
        handler: the handler.
        policy: a value of `check_tools`: `warn` flags rows for the audit, `drop` drops and `error` quarantines them.
    """
    read, schemas = _reader_of(handler), ArgumentSchemas()
    assert read is not None

    def check(row: Row) -> list[ToolFault]:
        faults = faults_of_row(row, read, schemas)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        if faults and policy == DROP:
            raise RowDroppedError(f"check_tools: {REASONS[faults[0].rule]}", f" ({faults[0].message}{more})")
        if faults and policy != WARN:
            raise RowError(f"{faults[0].message}{more}, which check_tools={policy} refuses")
        return faults

    def checked(batch: Batch, log: RowLog) -> Batch:
        batch, found = map_rows(batch, log, check)
        for number, faults in zip(batch.numbers.tolist(), found, strict=True):
            for fault in faults:
                log.flag(fault.rule, number)
        return step(batch, log)

    return checked


def faults_of_row(row: Row, read: Callable[[Row], ToolUse | None], schemas: ArgumentSchemas) -> list[ToolFault]:
    """Return what is wrong with the tool calls of a row."""
    try:
        use = read(row)
    except MalformedCallError as error:
        return [ToolFault(TOOL_JSON_INVALID, str(error))]
    return [] if use is None else check_tool_use(use.turns, use.tools, schemas)


def _reader_of(handler: Handler) -> Callable[[Row], ToolUse | None] | None:
    if isinstance(handler, ConvertToMessages):
        return handler.tool_use
    if not isinstance(handler, (ApplyTokenizerChatTemplate, TokenizeAndApplyChatTemplateWithMasking)):
        return None
    named, reader = handler.conversation_column, usual_reader()

    def read(row: Row) -> ToolUse | None:
        column = named or next((name for name in CONVERSATION_COLUMNS if isinstance(row.get(name), list)), None)
        return None if column is None else read_tool_use(row, column, reader)

    return read
