"""Shows quickly, for most values of a conversation, that a template wrote them.

A value that these functions do not find may still have been written, in another form.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from sftkit.tokenization.conversations import Message, content_of, text_after_reasoning, text_of
from sftkit.tokenization.masking.turn_parts import call_names
from sftkit.tokenization.templates.recording import GENERATION, NO_MESSAGE, Recording

_DISTINCTIVE_CHARACTERS = 8
"""A shorter text may stand in a rendering by chance."""


def texts_of_messages(recording: Recording) -> dict[int, str]:
    """Return what the iterations over each message wrote, by the index of the message.

    Example:
        >>> texts_of_messages(Recording("<s>ab!", ["<s>", "a", "b", "!"], [(1, 0, 0), (2, 0, 1), (3, 0, NO_MESSAGE)]))
        {0: 'a', 1: 'b'}
    """
    positions = list(accumulate(map(len, recording.pieces), initial=0))
    begun: dict[int, tuple[int, int]] = {}
    written: dict[int, str] = {}
    for piece, loop, message in recording.marks:
        if loop == GENERATION:
            continue
        if loop in begun:
            start, owner = begun.pop(loop)
            text = recording.text[start : positions[piece]]
            written[owner] = written[owner] + text if owner in written else text
        if message != NO_MESSAGE:
            begun[loop] = positions[piece], message
    return written


def is_empty(value: Any) -> bool:
    """Return whether there is nothing to write: null, false, an empty list or object, or only white space."""
    return not value.strip() if isinstance(value, str) else not value


def stands_in(content: Any, written: str) -> bool:
    """Return whether the texts of a content stand in what was written for its message, apart from earlier reasoning."""
    if isinstance(content, str):
        return _text_stands_in(content, written)
    if not isinstance(content, list):
        return False
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return all(_text_stands_in(text, written) for text in texts if isinstance(text, str))


def calls_stand_in(message: Message, written: str) -> bool:
    """Return whether the names of all calls of a message stand in what was written for it, beside its content."""
    names = Counter(each[0] for each in call_names(message) if each)
    content = text_of(message)
    return bool(names) and all(
        written.count(name) >= count + (content.count(name) if content else 0) for name, count in names.items()
    )


def reasoning_stands_in(texts: Sequence[str], written: str) -> bool:
    """Return whether a line of some reasoning stands in what was written for its message, and not by chance."""
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return any(len(line) >= _DISTINCTIVE_CHARACTERS and line in written for line in lines)


def stands_elsewhere(messages: Sequence[Message], index: int, text: str) -> bool:
    """Return whether the content of a message stands in a rendering, and in no other content."""
    content = content_of(messages[index])
    if not isinstance(content, str) or len(content := content.strip()) < _DISTINCTIVE_CHARACTERS:
        return False
    return content in text and not any(
        content in text_of(message) for other, message in enumerate(messages) if other != index
    )


def _text_stands_in(text: str, written: str) -> bool:
    stripped = text.strip()
    if stripped in written:
        return True
    answer = text_after_reasoning(stripped)
    return (bool(answer) and answer in written) or json.dumps(stripped, ensure_ascii=False)[1:-1] in written
