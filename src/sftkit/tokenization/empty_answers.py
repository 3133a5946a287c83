"""Answers with nothing in them: empty, or only white space. They train a model to say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftkit.core.row_log import RowDroppedError
from sftkit.tokenization.conversation_reader import messages_of
from sftkit.tokenization.conversations import (
    Conversation,
    Message,
    content_of,
    is_assistant,
    reasoning_texts,
    text_after_reasoning,
    text_of,
)
from sftkit.tokenization.masking.supervision import Supervision

DROP_REASON = "empty answer"

_CALLS = ("tool_calls", "function_call")


class EmptyAnswers:
    """Finds empty answers, and drops rows that have no other (`drop_empty_answers`)."""

    def __init__(self, supervision: Supervision, *, drops: bool) -> None:
        self._supervision = supervision
        self._drops = drops

    def check(self, conversation: Conversation) -> bool:
        """Check the messages of a conversation; see `check_messages`."""
        plain = conversation.plain
        if plain is not None and _end_with_words(plain.contents):
            return False
        return self.check_messages(messages_of(conversation))

    def check_messages(self, messages: Sequence[Message]) -> bool:
        """Return whether an answer of a conversation that carries a loss is empty.

        Raises:
            RowDroppedError: all of them are empty, and such rows are dropped.
            RowError: a loss flag is invalid, or `train_on` refused.
        """
        if not any(map(_is_wordless, messages)):
            return False
        trained, masks = self._supervision.trained_turns(messages), self._supervision.masks
        empty = [
            _is_empty(messages[index], hides_reasoning=masks.hides_reasoning(is_last=index == trained[-1]))
            for index in trained
        ]
        return self._check([*empty, *(False for _ in self._supervision.other_messages(messages))])

    def check_texts(self, answers: Sequence[str], stop_tokens: Sequence[str] = ()) -> bool:
        """Return whether one of the answers is empty, apart from a stop token at its end.

        Raises:
            RowDroppedError: as `check_messages`.
        """
        return self._check([_is_blank(answer, stop_tokens) for answer in answers])

    def _check(self, empty: Sequence[bool]) -> bool:
        if self._drops and empty and all(empty):
            raise RowDroppedError(DROP_REASON)
        return any(empty)


def _is_empty(message: Message, *, hides_reasoning: bool) -> bool:
    """Return whether a message is an assistant's without text, calls, other content, or trained reasoning."""
    if not _is_wordless(message):
        return False
    text = text_of(message)
    if hides_reasoning:
        return not text_after_reasoning(text)
    return not text.strip() and not reasoning_texts(message)


def _is_wordless(message: Message) -> bool:
    """Return whether a message is an assistant's without calls, other content, or text beside its reasoning."""
    content = content_of(message)
    if not is_assistant(message) or any(message.get(key) for key in _CALLS):
        return False
    if isinstance(content, list) and any(isinstance(part, Mapping) and "text" not in part for part in content):
        return False
    return not text_after_reasoning(text_of(message))


def _end_with_words(contents: Sequence[str]) -> bool:
    """Return whether the ends of all contents show that they are not empty, as in most conversations."""
    ends = {content[-1:] for content in contents}
    return not any(end in ("", ">") or end.isspace() for end in ends)


def _is_blank(answer: str, stop_tokens: Sequence[str]) -> bool:
    text = answer.strip()
    for token in stop_tokens:
        text = text.removesuffix(token).strip()
    return not text
