"""Chooses handlers by the format of the first rows, for runs without a data config."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from sftkit.config.schema.data_config import HandlerConfig
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.errors import ConfigError
from sftkit.handlers.convert_pairs import PAIR_INPUT, PAIR_OUTPUT
from sftkit.handlers.formats.input_output import InputOutput
from sftkit.handlers.formats.message_lists import CONVERSATION_COLUMNS, MessageList, conversation_column
from sftkit.handlers.formats.preferences import Preference
from sftkit.handlers.formats.recognition import fitting_format, format_with_columns, with_answer
from sftkit.handlers.formats.row_format import MESSAGES, NeedsTemplateError, RowFormat, is_filled
from sftkit.handlers.text import DEFAULT_TEXT_FIELD

_log = logging.getLogger(__name__)

FORMATTED_TEXT_FIELD = "formatted_text"

Recognized = list[tuple[RowFormat, Row]]
"""Rows with their formats."""


def handlers_by_format(
    rows: Sequence[Row], options: DataOptions, has_chat_template: Callable[[], bool], path: str
) -> list[HandlerConfig] | None:
    """Return the handlers for the formats of some rows; None if none of them has a known format.

    Args:
        rows: the first rows of a data set.
        options: of the run.
        has_chat_template: whether the tokenizer has a chat template.
        path: names the data in errors.

    Raises:
        ConfigError: the rows are preference rows, or `output_field_name` names no column.
    """
    answer = options.output_field_name
    if answer is not None:
        if not any(answer in row for row in rows):
            columns = ", ".join(dict.fromkeys(name for row in rows for name in row)) or "none"
            raise ConfigError(f"{path}: output_field_name: column {answer!r} not found; columns there: {columns}")
        rows = [with_answer(row, answer) for row in rows if answer in row]
    found = _recognize(rows, fitting_format)
    if not found and not any(is_filled(row.get(DEFAULT_TEXT_FIELD)) for row in rows):
        found = _recognize(rows, format_with_columns)
    if not found:
        return None
    for each, row in found:
        if isinstance(each, Preference):
            raise ConfigError(f"{path}: {each.refusal(row)}")
    if answer is None and all(isinstance(each, MessageList) for each, _ in found):
        candidates = dict.fromkeys((*CONVERSATION_COLUMNS, *(conversation_column(row) for _, row in found)))
        used = [name for name in candidates if name is not None and any(is_filled(row.get(name)) for _, row in found)]
        if len(used) <= 1:
            return conversation_handlers(options, *(used or [MESSAGES]))
    names = {each.name for each, _ in found}
    arguments = {"format": names.pop()} if len(names) == 1 else {}
    arguments |= {} if answer is None else {"answer_column": answer}
    if _is_chat(found, options.chat, has_chat_template):
        return message_handlers(options, **arguments)
    if all(isinstance(each, InputOutput) and "output" in row for each, row in found):
        return [pair_handler("input", "output")]
    convert = handler_config("convert_to_pair", **arguments)
    return [convert, pair_handler(PAIR_INPUT, PAIR_OUTPUT, separator="")]


def conversation_handlers(options: DataOptions, column: str) -> list[HandlerConfig]:
    """Convert formats that chat templates do not know; the columns do not tell which rows need it."""
    convert = handler_config(
        "convert_to_messages", conversation_column=column, messages_column=column, only_if_needed=True
    )
    return [convert, _rendering(options, column)]


def message_handlers(options: DataOptions, **arguments: object) -> list[HandlerConfig]:
    """Convert rows of any format to messages, and mask those."""
    return [handler_config("convert_to_messages", **arguments, only_if_needed=True), _rendering(options, MESSAGES)]


def pair_handler(source: str, target: str, **arguments: object) -> HandlerConfig:
    """Mask the input of a pair."""
    return handler_config(
        "tokenize_and_apply_input_masking", input_field_name=source, output_field_name=target, **arguments
    )


def handler_config(name: str, **arguments: object) -> HandlerConfig:
    """Return a handler with its arguments, as a data config has it."""
    return HandlerConfig(name=name, arguments={"fn_kwargs": arguments})


def _rendering(options: DataOptions, column: str) -> HandlerConfig:
    if options.response_template is not None:
        field = options.dataset_text_field or FORMATTED_TEXT_FIELD
        return handler_config("apply_tokenizer_chat_template", dataset_text_field=field, conversation_column=column)
    return handler_config("tokenize_and_apply_chat_template_with_masking", conversation_column=column)


def _recognize(rows: Sequence[Row], format_of: Callable[[Row], RowFormat | None]) -> Recognized:
    return [(each, row) for row in rows if (each := format_of(row)) is not None]


def _is_chat(found: Recognized, chat: bool | None, has_chat_template: Callable[[], bool]) -> bool:
    """Whether rows become conversations: if the config says so, or if they are some and there is a chat template."""
    if chat is not None:
        return chat
    conversations = [(each, row) for each, row in found if not each.is_pair(row)]
    if not conversations:
        return False
    if has_chat_template() or any(_needs_template(each, row) for each, row in conversations):
        return True
    _log.warning(
        "the tokenizer has no chat template: rows of the format %s become the text that docs/formats.md shows for this "
        "case; to make conversations of them, set chat_template",
        conversations[0][0].name,
    )
    return False


def _needs_template(each: RowFormat, row: Row) -> bool:
    with suppress(RowError):
        try:
            each.to_pair(row)
        except NeedsTemplateError:
            return True
    return False
