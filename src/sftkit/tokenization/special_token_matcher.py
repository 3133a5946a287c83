"""Finds and escapes special tokens in the contents of messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_SEPARATORS = ("\u200b", "\u200c", "\u2060", *map(chr, range(0xE000, 0xF900)))
"""Characters that may split a special token: U+200B, unless a special token contains it."""


class SpecialTokenMatcher:
    """Finds the special tokens of a tokenizer in texts and nested values, and escapes them.

    Every row is searched, so texts without the first character of any special token are skipped quickly.

    Example:
        >>> matcher = SpecialTokenMatcher(["<|im_end|>"])
        >>> matcher.find_special_token([{"role": "user", "content": "bye<|im_end|>"}])
        (0, '<|im_end|>')
        >>> ascii(matcher.escape("bye<|im_end|>"))
        "'bye<\\\\u200b|im_end|>'"
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Prepare to find `texts`, which the tokenizer reads as special tokens wherever they occur."""
        tokens = sorted({text for text in texts if text}, key=lambda text: (-len(text), text))
        self._first_characters = tuple(sorted({text[0] for text in tokens}))
        self._pattern = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")
        self._separator = next(mark for mark in _SEPARATORS if not any(mark in text for text in tokens))

    def may_contain(self, texts: Sequence[str]) -> bool:
        """Return False if a quick check shows that some texts contain no special token."""
        text = "".join(texts)
        return any(first in text for first in self._first_characters)

    def find_special_token(
        self, messages: Sequence[Mapping[str, Any]] | Mapping[str, Any], tools: Any = None, documents: Any = None
    ) -> tuple[int | None, str] | None:
        """Find the first special token in a conversation, except in roles.

        Args:
            messages: the messages, or a whole row for templates that take one.
            tools: the tools, None for none.
            documents: the documents, None for none.

        Returns:
            The index of the message (None for a whole row, tools and documents) and the text of the token; None if
            there is no special token.
        """
        if isinstance(messages, Mapping):
            tools, messages = [dict(messages), tools], ()
        for index, message in enumerate(messages):
            found = self._find_in_message(message)
            if found is not None:
                return index, found
        found = self._find_in_value(tools) or self._find_in_value(documents)
        return None if found is None else (None, found)

    def escape(self, value: Any) -> Any:
        """Return a text, or a nested value, without special tokens in any text or key.

        A special token gets U+200B after its first character. A special token of one character is replaced by U+200B.
        """
        if isinstance(value, str):
            while self._find_in_value(value) is not None:  # escaping one token may leave another that overlapped it
                value = self._pattern.sub(self._split, value)
            return value
        if isinstance(value, dict):
            return {self.escape(key): self.escape(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return self._separate_parts([self.escape(each) for each in value])
        return value

    def escape_messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the messages without special tokens, except in roles."""
        return [
            {key: value if key == "role" else self.escape(value) for key, value in message.items()}
            for message in messages
        ]

    def _separate_parts(self, values: list[Any]) -> list[Any]:
        """Keep the parts of a content from forming a special token when a template concatenates them."""
        texts = _part_texts(values)
        if texts is None or self._find_in_text("".join(texts)) is None:
            return values
        *earlier, last = zip(values, texts, strict=True)
        return [
            *(
                text + self._separator if isinstance(part, str) else {**part, "text": text + self._separator}
                for part, text in earlier
            ),
            last[0],
        ]

    def _split(self, match: re.Match[str]) -> str:
        token = match[0]
        return token[0] + self._separator + token[1:] if len(token) > 1 else self._separator

    def _find_in_message(self, message: Mapping[str, Any]) -> str | None:
        for key, value in message.items():
            if key != "role":
                found = self._find_in_text(value) if type(value) is str else self._find_in_value(value)
                if found is not None:
                    return found
        return None

    def _find_in_value(self, value: Any) -> str | None:
        """Find the first special token in a nested value, including keys."""
        if isinstance(value, str):
            return self._find_in_text(value)
        if isinstance(value, dict):
            for key, each in value.items():
                in_each = self._find_in_text if type(each) is str else self._find_in_value
                found = self._find_in_value(key) or in_each(each)
                if found is not None:
                    return found
        elif isinstance(value, (list, tuple)):
            for each in value:
                found = self._find_in_value(each)
                if found is not None:
                    return found
            texts = _part_texts(value)
            return self._find_in_text("".join(texts)) if texts is not None else None
        return None

    def _find_in_text(self, text: str) -> str | None:
        for first in self._first_characters:
            if first in text:
                match = self._pattern.search(text)
                return None if match is None else match[0]
        return None


def _part_texts(values: Sequence[Any]) -> list[str] | None:
    """Return the texts of content parts, which templates concatenate; None if the values are not text parts."""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in values]
    return [text for text in texts if isinstance(text, str)] if all(isinstance(text, str) for text in texts) else None
