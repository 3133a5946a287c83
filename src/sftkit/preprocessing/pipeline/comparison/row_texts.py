"""The texts of a row that a comparison of turns needs: what is asked, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from sftkit.core.message_fields import USER_ROLES
from sftkit.core.rows import Row
from sftkit.handlers.base import text_in
from sftkit.handlers.registry import ConfiguredHandler
from sftkit.handlers.text import ApplyTokenizerChatTemplate
from sftkit.handlers.tokens import TokenizeAndApplyChatTemplateWithMasking, TokenizeAndApplyInputMasking
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.conversations import (
    Message,
    is_assistant,
    read_conversation,
    reasoning_texts,
    role_of,
    text_of,
)

TurnText = tuple[bool, str]
"""A turn of a conversation, or a half of a pair: whether it is an answer, and its text. System turns, tools and their
results are none."""


TurnTextReader = Callable[[Row], list[TurnText]]
"""Reads the turns of a row; raises `RowError` if it has none."""


def find_turn_handler(handlers: Sequence[ConfiguredHandler]) -> int | None:
    """Return the index of the first handler that takes conversations or pairs; None if there is none."""
    kinds = (TokenizeAndApplyChatTemplateWithMasking, ApplyTokenizerChatTemplate, TokenizeAndApplyInputMasking)
    return next((index for index, each in enumerate(handlers) if isinstance(each.handler, kinds)), None)


def turn_reader(configured: ConfiguredHandler, tokenizer: ChatTokenizer) -> TurnTextReader:
    """Return what reads the turns of the rows that a handler of `find_turn_handler` takes."""
    handler = configured.handler
    if isinstance(handler, TokenizeAndApplyInputMasking):
        return lambda row: [
            (False, text_in(row, handler.input_field_name)),
            (True, text_in(row, handler.output_field_name)),
        ]
    if isinstance(handler, ApplyTokenizerChatTemplate):
        named = handler.conversation_column
        return lambda row: turns_of(row, named or tokenizer.find_conversation_column(row))
    assert isinstance(handler, TokenizeAndApplyChatTemplateWithMasking)
    column = handler.conversation_column
    return lambda row: turns_of(row, column)


def turns_of(row: Row, column: str | None) -> list[TurnText]:
    """Return the user and assistant turns of the conversation in a column, or somewhere in the row.

    The text of an assistant turn includes its reasoning and its tool calls.

    Raises:
        RowError: there is none.

    Example:
        >>> messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
        >>> turns_of({"messages": [*messages, {"role": "assistant", "content": "4"}]}, "messages")
        [(False, '2+2?'), (True, '4')]
    """
    conversation = read_conversation(row, column)
    if conversation.plain is not None and {"user", "assistant", "system"}.issuperset(conversation.plain.roles):
        plain = zip(conversation.plain.roles, conversation.plain.contents, strict=True)
        return [(role == "assistant", content) for role, content in plain if role != "system"]
    turns: list[TurnText] = []
    for message in conversation.message_list:
        role = role_of(message)
        if is_assistant(message):
            turns.append((True, _answer_of(message)))
        elif isinstance(role, str) and role.lower() in USER_ROLES:
            turns.append((False, text_of(message)))
    return turns


def _answer_of(message: Message) -> str:
    calls = [message[key] for key in ("tool_calls", "function_call") if message.get(key)]
    written = [json.dumps(each, sort_keys=True, ensure_ascii=False, default=str) for each in calls]
    return "\n".join(filter(None, [*reasoning_texts(message), text_of(message), *written]))
