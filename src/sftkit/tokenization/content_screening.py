"""Applies the option `special_tokens_in_content` to rows whose contents contain special tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkit.core.row_log import RowDroppedError, RowError
from sftkit.core.rows import Row
from sftkit.tokenization.conversations import Conversation, read_conversation
from sftkit.tokenization.special_token_matcher import SpecialTokenMatcher

KEEP, ESCAPE, DROP = "keep", "escape", "drop"

_DROP_REASON = "a special token in its content"
_TEMPLATE_COLUMNS = ("tools", "documents")


class ContentScreen:
    """Searches conversations for special tokens and applies a policy to them.

    The policy is a value of `special_tokens_in_content`: `keep` reports special tokens, `escape` turns them into plain
    text, `drop` drops the row, and `error` quarantines it.
    """

    def __init__(self, tokens: SpecialTokenMatcher, policy: str) -> None:
        self._tokens = tokens
        self._policy = policy

    def screen_row(self, row: Row, column: str | None) -> tuple[Row, bool]:
        """Apply the policy to the conversation of a row.

        Args:
            row: the row.
            column: the column of the messages; None for the whole row.

        Returns:
            The row, escaped if necessary, and whether it still contains special tokens.

        Raises:
            RowDroppedError: the policy drops the row.
            RowError: the policy quarantines the row, or it has no conversation.
        """
        return self.screen_conversation(row, column, read_conversation(row, column))

    def screen_conversation(self, row: Row, column: str | None, conversation: Conversation) -> tuple[Row, bool]:
        """Do what `screen_row` does with the conversation of a row, which was read already."""
        plain, others = conversation.plain, conversation.tools or conversation.documents
        if plain is not None and not others and not self._tokens.may_contain(plain.contents):
            return row, False
        found = self._tokens.find_special_token(conversation.messages, conversation.tools, conversation.documents)
        if found is None:
            return row, False
        if self._policy == KEEP:
            return row, True
        if self._policy == ESCAPE:
            return self._escape_row(row, column, conversation), False
        if self._policy == DROP:
            raise RowDroppedError(_DROP_REASON)
        index, token = found
        where = f"message {index}" if index is not None else "the row"
        raise RowError(f"{where} contains the special token {token!r}, which special_tokens_in_content=error refuses")

    def screen_text(self, text: str) -> str:
        """Apply the policy to a text; with `keep`, special tokens in it are taken as intended.

        Raises:
            RowDroppedError, RowError: as `screen_row`.
        """
        if self._policy == KEEP:
            return text
        found = self._tokens.find_special_token([{"content": text}])
        if found is None:
            return text
        if self._policy == ESCAPE:
            return str(self._tokens.escape(text))
        if self._policy == DROP:
            raise RowDroppedError(_DROP_REASON)
        raise RowError(
            f"the text contains the special token {found[1]!r}, which special_tokens_in_content=error refuses"
        )

    def _escape_row(self, row: Row, column: str | None, conversation: Conversation) -> Row:
        columns = set(row) if column is None else {column, *_TEMPLATE_COLUMNS} & set(row)
        escaped_row = {name: self._escape_value(value) if name in columns else value for name, value in row.items()}
        for name, parsed in zip(_TEMPLATE_COLUMNS, (conversation.tools, conversation.documents), strict=True):
            escaped = self._tokens.escape(parsed)
            if escaped != parsed:
                escaped_row[name] = escaped  # escapes in JSON text may hide a token until the text is parsed
        return escaped_row

    def _escape_value(self, value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(item, Mapping) and "role" in item for item in value):
            return self._tokens.escape_messages(value)
        return self._tokens.escape(value)
