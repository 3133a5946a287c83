"""Special tokens in what the data says, and what the config wants done about them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from sftkit.core.row_log import RowDroppedError, RowError
from sftkit.core.rows import Row
from sftkit.tokenization.conversations import Conversation, read_conversation

_BREAKS = ("\u200b", "\u200c", "\u2060", *map(chr, range(0xE000, 0xF900)))
"""What may break a special token in two: U+200B, unless a special token holds it."""


class SpecialTokenMatcher:
    """The special tokens of a tokenizer, looked for in content and broken there.

    texts: what the tokenizer reads as a special token wherever it stands.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        tokens = sorted({text for text in texts if text}, key=lambda text: (-len(text), text))
        self._firsts = tuple(sorted({text[0] for text in tokens}))  # every row is searched; this tells most apart
        self._pattern = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")
        self._break = next(mark for mark in _BREAKS if not any(mark in text for text in tokens))

    def may_contain(self, messages: Any, tools: Any = None, documents: Any = None) -> bool:
        """A quick look that tells most rows apart: False where plain messages, beside which there is nothing else, hold
        no character that a special token begins with.
        """
        if tools or documents:
            return True
        try:
            text = "".join(chain.from_iterable([message.values() for message in messages]))
        except (TypeError, AttributeError):  # they hold more than texts, or are none
            return True
        return any(first in text for first in self._firsts)

    def find_special_token(
        self, messages: Sequence[Mapping[str, Any]] | Mapping[str, Any], tools: Any = None, documents: Any = None
    ) -> tuple[int | None, str] | None:
        """The first special token in any text of a conversation but its roles, None where there is none.

        Args:
            messages: the messages, or a whole row for templates that take one.
            tools: the tools, None for none.
            documents: the documents, None for none.

        Returns:
            The index of the message (None for a whole row, tools and documents), and the token's text.
        """
        if isinstance(messages, Mapping):
            tools, messages = [dict(messages), tools], ()
        for index, message in enumerate(messages):
            found = self._in_message(message)
            if found is not None:
                return index, found
        found = self._in(tools) or self._in(documents)
        return None if found is None else (None, found)

    def escape(self, value: Any) -> Any:
        """The same value, a text or any structure of them, with no special token left in any text or key.

        A special token gets U+200B after its first character; one that is a single character becomes U+200B.
        """
        if isinstance(value, str):
            while self._in(value) is not None:  # broken tokens may leave others that overlapped them
                value = self._pattern.sub(self._broken, value)
            return value
        if isinstance(value, dict):
            return {self.escape(key): self.escape(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return self._apart([self.escape(each) for each in value])
        return value

    def escape_messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The same messages with no special token left in anything but their roles."""
        return [
            {key: value if key == "role" else self.escape(value) for key, value in message.items()}
            for message in messages
        ]

    def _apart(self, values: list[Any]) -> list[Any]:
        """Values of a list, those that are parts of a content kept from making a special token together."""
        texts = _texts_of(values)
        if texts is None or self._in_text("".join(texts)) is None:
            return values
        *held, last = zip(values, texts, strict=True)
        return [
            *(
                text + self._break if isinstance(part, str) else {**part, "text": text + self._break}
                for part, text in held
            ),
            last[0],
        ]

    def _broken(self, match: re.Match[str]) -> str:
        token = match[0]
        return token[0] + self._break + token[1:] if len(token) > 1 else self._break

    def _in_message(self, message: Mapping[str, Any]) -> str | None:
        for key, value in message.items():
            if key != "role":
                found = self._in_text(value) if type(value) is str else self._in(value)
                if found is not None:
                    return found
        return None

    def _in(self, value: Any) -> str | None:
        """The first special token in a value and all that it holds, keys included."""
        if isinstance(value, str):
            return self._in_text(value)
        if isinstance(value, dict):
            for key, each in value.items():
                found = self._in(key) or (self._in_text(each) if type(each) is str else self._in(each))
                if found is not None:
                    return found
        elif isinstance(value, (list, tuple)):
            for each in value:
                found = self._in(each)
                if found is not None:
                    return found
            texts = _texts_of(value)
            return self._in_text("".join(texts)) if texts is not None else None
        return None

    def _in_text(self, text: str) -> str | None:
        for first in self._firsts:
            if first in text:
                match = self._pattern.search(text)
                return None if match is None else match[0]
        return None


def _texts_of(values: Sequence[Any]) -> list[str] | None:
    """The texts of the parts of a content, which templates write end to end; None where these are no such parts."""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in values]
    return [text for text in texts if isinstance(text, str)] if all(isinstance(text, str) for text in texts) else None


KEEP, ESCAPE, DROP = "keep", "escape", "drop"

_DROPPED = "a special token in its content"
_TEMPLATE_COLUMNS = ("tools", "documents")


class ContentScreen:
    """Looks for special tokens in the conversations of rows.

    policy: `keep` them and say so, `escape` them (they become text), `drop` the row, or `error`: quarantine it.
    """

    def __init__(self, tokens: SpecialTokenMatcher, policy: str) -> None:
        self._tokens = tokens
        self._policy = policy

    def screen_row(self, row: Row, column: str | None) -> tuple[Row, bool]:
        """A row as it may go on, and whether it holds special tokens that will be read as such.

        Raises:
            RowDroppedError: the row is to be dropped.
            RowError: the row is to be quarantined, or holds no conversation.
        """
        if column is not None and not self._tokens.may_contain(row.get(column), row.get("tools"), row.get("documents")):
            return row, False
        conversation = read_conversation(row, column)
        found = self._tokens.find_special_token(conversation.messages, conversation.tools, conversation.documents)
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

    def screen_text(self, text: str) -> str:
        """A text as it may go on; special tokens in it are somebody's intention unless the policy says otherwise.

        Raises:
            RowDroppedError, RowError: as `row`.
        """
        if self._policy == KEEP:
            return text
        found = self._tokens.find_special_token([{"content": text}])
        if found is None:
            return text
        if self._policy == ESCAPE:
            return str(self._tokens.escape(text))
        if self._policy == DROP:
            raise RowDroppedError(_DROPPED)
        raise RowError(f"it holds the special token {found[1]!r} (special_tokens_in_content=error)")

    def _escaped(self, row: Row, column: str | None, conversation: Conversation) -> Row:
        columns = set(row) if column is None else {column, *_TEMPLATE_COLUMNS} & set(row)
        made = {name: self._escaped_value(value) if name in columns else value for name, value in row.items()}
        for name, parsed in zip(_TEMPLATE_COLUMNS, (conversation.tools, conversation.documents), strict=True):
            escaped = self._tokens.escape(parsed)
            if escaped != parsed:
                made[name] = escaped  # JSON text may write a token so that it is one only when it is parsed
        return made

    def _escaped_value(self, value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(item, Mapping) and "role" in item for item in value):
            return self._tokens.escape_messages(value)
        return self._tokens.escape(value)
