"""Finds what of a conversation the chat template did not write: messages, keys of messages, tools and documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sftkit.config.fields import did_you_mean
from sftkit.core.accounting.row_notes import FIELD_NOT_RENDERED, MESSAGE_NOT_RENDERED, ROLE_PREFIX, RowNotes
from sftkit.core.message_fields import KNOWN_ROLES, LOSS_FLAGS, PARTIAL_LOSS_FLAGS, REASONING_FIELDS
from sftkit.core.row_log import RowError
from sftkit.tokenization.conversation_reader import messages_of
from sftkit.tokenization.conversations import Conversation, Message, content_of, is_assistant, reasoning_texts, role_of
from sftkit.tokenization.omissions.altered_conversations import CALLS, Place, part_key
from sftkit.tokenization.omissions.omission_judge import OmissionJudge
from sftkit.tokenization.omissions.quick_checks import (
    calls_stand_in,
    is_empty,
    reasoning_stands_in,
    stands_elsewhere,
    stands_in,
    texts_of_messages,
)
from sftkit.tokenization.templates.recording import Recording
from sftkit.tokenization.verification import conversation_kind

_TOOLS, _DOCUMENTS = "tools", "documents"
_PLAIN = frozenset({"role", "content", "from", "value"})
_UNCOUNTED = _PLAIN | {*LOSS_FLAGS, *PARTIAL_LOSS_FLAGS, *CALLS, *REASONING_FIELDS}
"""Keys of messages that are no part of the text, or are looked for in every row."""
_MEDIA = ("image", "image_url", "audio", "input_audio", "video", "video_url", "file")
_CONTENT_KEYS = frozenset({*_MEDIA, "images", "audios", "videos", *map(part_key, _MEDIA)})
"""Other keys without which a message says something else."""
_MOST_KINDS = 512


NOTHING = RowNotes()


class OmissionFinder:
    """Finds out, for each conversation, what its template did not write.

    A program tells it once for all conversations that it renders: the contents that no piece of its text depends on. In
    other conversations, a value that stands in what was written for its message is written. What is then still in doubt
    is judged by rendering the conversation again with other values (`OmissionJudge`). For values that are rarely
    written, such as `tool_call_id`, this is done once per unit for each kind of conversation.
    """

    def __init__(self, render: Callable[[Conversation], str]) -> None:
        """Prepare for a template, given how it is rendered."""
        self._judge = OmissionJudge(render)
        self._kinds: dict[object, dict[tuple[str, str], bool]] = {}

    def start_unit(self) -> None:
        """Forget kinds of conversations: what is found in a unit must not depend on other units."""
        self._kinds.clear()

    def find(self, conversation: Conversation, recording: Recording, first: int = 0) -> RowNotes:
        """Return what the rendering of a conversation leaves out.

        Args:
            conversation: the conversation.
            recording: its rendering.
            first: index of the first message that is looked at.

        Raises:
            RowError: a message of an unknown role is left out.
        """
        program, messages = recording.program, messages_of(conversation)
        if not messages or (program is not None and not program.unwritten):
            return NOTHING
        text = recording.text
        if program is not None:
            doubtful = [(index, "content") for index in program.unwritten if index >= first]
            doubtful = [(index, key) for index, key in doubtful if not is_empty(messages[index][key])]
            return _of_messages(messages, self._judge.omitted(conversation, text, doubtful))
        written = texts_of_messages(recording)
        doubtful = [place for place in _doubtful(messages, text, written) if place[0] >= first]
        found = _of_messages(messages, self._judge.omitted(conversation, text, doubtful))
        if _is_plain(conversation):
            return found
        others = [*self._reasoning(conversation, text, written, first), *self._other_keys(conversation, text, first)]
        warned = [key for key, is_warned in others if is_warned]
        rules = found.rules if not warned else tuple(dict.fromkeys((*found.rules, FIELD_NOT_RENDERED)))
        return RowNotes(rules, tuple(dict.fromkeys((*found.not_rendered, *(key for key, _ in others)))))

    def _reasoning(
        self, conversation: Conversation, text: str, written: Mapping[int, str], first: int
    ) -> Iterator[tuple[str, bool]]:
        """Yield the reasoning keys of a row if none of its reasoning is written, and whether the last turn has any.

        Templates leave out the reasoning of earlier turns on purpose.
        """
        if conversation.shape.keys.isdisjoint(REASONING_FIELDS):
            return
        messages = conversation.message_list
        having = {index: texts for index, message in enumerate(messages) if (texts := reasoning_texts(message))}
        having = {index: texts for index, texts in having.items() if index >= first}
        if not having or any(reasoning_stands_in(texts, written.get(index, text)) for index, texts in having.items()):
            return
        places = [
            (index, key)
            for index in having
            for key in REASONING_FIELDS
            if isinstance(messages[index].get(key), str) and not is_empty(messages[index][key])
        ]
        last = max((index for index, message in enumerate(messages) if is_assistant(message)), default=-1)
        kind = f"reasoning {last in having}"
        verdicts = self._verdicts(conversation)
        if (kind, "") not in verdicts:
            verdicts[kind, ""] = len(self._judge.omitted(conversation, text, places)) == len(places)
        if verdicts[kind, ""]:
            yield from dict.fromkeys((key, last in having) for _, key in places)

    def _other_keys(self, conversation: Conversation, text: str, first: int) -> Iterator[tuple[str, bool]]:
        """Yield other keys that are not written, and whether the audit should say so."""
        verdicts = self._verdicts(conversation)
        without = {}
        if conversation.tools:
            without[_TOOLS] = replace(conversation, tools=[])
        if conversation.documents:
            without[_DOCUMENTS] = replace(conversation, documents=[])
        for column, changed in without.items():
            if (column, "") not in verdicts:
                verdicts[column, ""] = self._judge.is_same(changed, text)
            if verdicts[column, ""]:
                yield column, True
        places: dict[tuple[str, str], list[Place]] = {}
        for index, message in enumerate(conversation.message_list):
            for key in _keys_to_count(message) if index >= first else ():
                places.setdefault((str(role_of(message)), key), []).append((index, key))
        unknown = [place for name in places if name not in verdicts for place in places[name]]
        if unknown:
            omitted = set(self._judge.omitted(conversation, text, unknown))
            verdicts.update((name, omitted.issuperset(places[name])) for name in places if name not in verdicts)
        for name in places:
            if verdicts[name]:
                yield name[1], name[1] in _CONTENT_KEYS

    def _verdicts(self, conversation: Conversation) -> dict[tuple[str, str], bool]:
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        return self._kinds.setdefault(conversation_kind(conversation), {})


def _is_plain(conversation: Conversation) -> bool:
    """Return whether a conversation has nothing but roles and texts."""
    _, keys, types = conversation.shape
    return not (conversation.tools or conversation.documents or list in types) and keys <= _PLAIN


def _keys_to_count(message: Message) -> Iterator[str]:
    for key, value in message.items():
        if key not in _UNCOUNTED and not is_empty(value):
            yield key
        elif key == "content" and isinstance(value, list):
            kinds = {part.get("type") for part in value if isinstance(part, Mapping) and "text" not in part}
            yield from sorted(part_key(kind) for kind in kinds if isinstance(kind, str))


def _doubtful(messages: Sequence[Message], text: str, written: Mapping[int, str]) -> Iterator[Place]:
    """Yield the contents and calls that do not stand in what was written for their messages."""
    for index, message in enumerate(messages):
        own = written.get(index, "")
        content = content_of(message)
        if not is_empty(content) and not stands_in(content, own) and not stands_elsewhere(messages, index, text):
            yield index, "content" if "content" in message else "value"
        for key in CALLS:
            if key in message and not is_empty(message[key]) and not calls_stand_in(message, own):
                yield index, key


def _of_messages(messages: Sequence[Message], omitted: Sequence[Place]) -> RowNotes:
    """Return what it means that the contents and calls at some places are not written.

    Raises:
        RowError: nothing is written of a message, and its role is unknown.
    """
    if not omitted:
        return NOTHING
    keys: list[str] = []
    rules: list[str] = []
    lost: dict[int, list[str]] = {}
    for index, key in omitted:
        lost.setdefault(index, []).append(key)
    for index, lost_keys in lost.items():
        message = messages[index]
        calls = [key for key in CALLS if not is_empty(message.get(key))]
        if set(calls) <= set(lost_keys) and (len(lost_keys) > len(calls) or is_empty(content_of(message))):
            _check_role(index, role_of(message))
            keys += calls or [f"{ROLE_PREFIX}{role_of(message)}"]
            rules.append(MESSAGE_NOT_RENDERED)
        else:  # something else of the message is written
            keys += lost_keys
            rules.append(MESSAGE_NOT_RENDERED if set(calls) & set(lost_keys) else FIELD_NOT_RENDERED)
    return RowNotes(tuple(dict.fromkeys(rules)), tuple(dict.fromkeys(keys)))


def _check_role(index: int, role: Any) -> None:
    if role in (None, ""):
        raise RowError(f"message {index} has no role, and the chat template does not render it; give it one")
    if isinstance(role, str) and role in KNOWN_ROLES:
        return
    hint = did_you_mean(str(role), sorted(KNOWN_ROLES))
    raise RowError(
        f"message {index} has the role {str(role)[:100]!r}, which the chat template does not render{hint}; correct it, "
        "or map it to another role with convert_to_messages"
    )
