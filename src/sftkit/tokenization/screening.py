"""Special tokens in what the data says, and what the config wants done about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkit.rows import Row, RowDroppedError, RowError
from sftkit.tokenization.content_tokens import SpecialTokens
from sftkit.tokenization.conversations import Conversation, conversation_of

KEEP, ESCAPE, DROP = "keep", "escape", "drop"

_DROPPED = "a special token in its content"
_TEMPLATE_COLUMNS = ("tools", "documents")


class Screen:
    """Looks for special tokens in the conversations of rows.

    policy: `keep` them and say so, `escape` them (they become text), `drop` the row, or `error`: quarantine it.
    """

    def __init__(self, tokens: SpecialTokens, policy: str) -> None:
        self._tokens = tokens
        self._policy = policy

    def row(self, row: Row, column: str | None) -> tuple[Row, bool]:
        """A row as it may go on, and whether it holds special tokens that will be read as such.

        Raises:
            RowDroppedError: the row is to be dropped.
            RowError: the row is to be quarantined, or holds no conversation.
        """
        if column is not None and not self._tokens.may_be_in(row.get(column), row.get("tools"), row.get("documents")):
            return row, False
        conversation = conversation_of(row, column)
        found = self._tokens.found_in(conversation.messages, conversation.tools, conversation.documents)
        if found is None:
            return row, False
        if self._policy == KEEP:
            return row, True
        if self._policy == ESCAPE:
            return self._escaped(row, column, conversation), False
        if self._policy == DROP:
            raise RowDroppedError(_DROPPED)
        place, token = found
        where = f"message {place}" if place is not None else "the row"
        raise RowError(f"{where} holds the special token {token!r} (special_tokens_in_content=error)")

    def text(self, text: str) -> str:
        """A text as it may go on; special tokens in it are somebody's intention unless the policy says otherwise.

        Raises:
            RowDroppedError, RowError: as `row`.
        """
        if self._policy == KEEP:
            return text
        found = self._tokens.found_in([{"content": text}])
        if found is None:
            return text
        if self._policy == ESCAPE:
            return str(self._tokens.escaped(text))
        if self._policy == DROP:
            raise RowDroppedError(_DROPPED)
        raise RowError(f"it holds the special token {found[1]!r} (special_tokens_in_content=error)")

    def _escaped(self, row: Row, column: str | None, conversation: Conversation) -> Row:
        columns = set(row) if column is None else {column, *_TEMPLATE_COLUMNS} & set(row)
        made = {name: self._escaped_value(value) if name in columns else value for name, value in row.items()}
        for name, parsed in zip(_TEMPLATE_COLUMNS, (conversation.tools, conversation.documents), strict=True):
            escaped = self._tokens.escaped(parsed)
            if escaped != parsed:
                made[name] = escaped  # JSON text may write a token so that it is one only when it is parsed
        return made

    def _escaped_value(self, value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(item, Mapping) and "role" in item for item in value):
            return self._tokens.escaped_messages(value)
        return self._tokens.escaped(value)
