"""Find out which forms of messages a chat template writes, by rendering short made-up conversations.

Templates differ in the roles that they know, in what they make of a tool call without content, and in whether they take
the arguments of a call as text. Data sets differ in the same points, and transformers hands messages over as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.probing.turn_format import PROBE_CONTENT
from sftkit.tokenization.rendering.reference_renderer import Renderer

_QUESTION: Message = {"role": "user", "content": "a"}
_ANSWER: Message = {"role": "assistant", "content": "b"}
_PROBE: Message = {"role": "user", "content": PROBE_CONTENT}
_OTHER_ROLE = "sftkitrole"
"""A role that no template knows."""

_NAME, _KEY, _VALUE = "sftkitname", "sftkitkey", "sftkitvalue"
_ID = "sftkitids"  # Mistral's templates want nine letters
_FUNCTION = {"name": _NAME, "arguments": {_KEY: _VALUE}}
_FUNCTION_OF_TEXT = {"name": _NAME, "arguments": f'{{"{_KEY}": "{_VALUE}"}}'}
_CALL = {"id": _ID, "type": "function", "function": _FUNCTION}
_CALLING: Message = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_RESULT: Message = {"role": "tool", "tool_call_id": _ID, "name": _NAME, "content": "c"}

EMPTY_CONTENTS: Final = ("", None)
"""The contents that a message with nothing but tool calls may have; transformers leaves out what is null."""

_PARTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "thinking": ("assistant", {"type": "thinking", "thinking": PROBE_CONTENT}),
    "tool_use": ("assistant", {"type": "tool_use", "id": _ID, "name": PROBE_CONTENT, "input": {}}),
    "tool_result": ("user", {"type": "tool_result", "tool_use_id": _ID, "content": PROBE_CONTENT}),
}
"""A part of each type, and the role of messages that have it."""


class WrittenForms:
    """Tells which forms of messages one template writes. Each is tried once.

    Raises:
        TokenizerError: from all methods; the template is not valid, or needs too much time or memory.
    """

    def __init__(self, renderer: Renderer, source: str, variables: Mapping[str, Any]) -> None:
        """Prepare for a template, which gets some variables."""
        self._renderer = renderer
        self._source = source
        self._variables = variables
        self._found: dict[Any, bool] = {}

    def writes_role(self, role: str) -> bool:
        """Return whether the template writes the text of messages with a role."""
        return self._once(("role", role), lambda: bool(self._texts_with(role)))

    def knows_role(self, role: str) -> bool:
        """Return whether the template writes messages with a role, and not just as it does with any role."""
        return self._once(("own role", role), lambda: self._has_own_form(role))

    def writes_calls(self) -> bool:
        """Return whether the template writes `tool_calls`."""
        return self.takes_objects() or self.takes_texts()

    def writes_calls_beside(self, content: Any) -> bool:
        """Return whether the template writes tool calls of a message with a content: "" or None."""
        return self._writes_calls(content, _FUNCTION) or self._writes_calls(content, _FUNCTION_OF_TEXT)

    def takes_objects(self) -> bool:
        """Return whether the template writes arguments of calls that are objects."""
        return any(self._writes_calls(content, _FUNCTION) for content in EMPTY_CONTENTS)

    def takes_texts(self) -> bool:
        """Return whether the template writes arguments of calls that are JSON text, and does not quote it."""
        return any(self._writes_calls(content, _FUNCTION_OF_TEXT) for content in EMPTY_CONTENTS)

    def writes_bare_calls(self) -> bool:
        """Return whether the template writes tool calls whose name is not under `function`."""
        bare = {**_CALLING, "tool_calls": [{"id": _ID, **_FUNCTION}]}
        return self._once("bare calls", lambda: self._writes_call(bare))

    def writes_part(self, kind: str) -> bool:
        """Return whether the template writes content parts of a type: `thinking`, `tool_use`, `tool_result`."""
        return kind in _PARTS and self._once(("part", kind), lambda: self._writes_part(kind))

    def writes_objects_as_json(self) -> bool:
        """Return whether the template writes the result of a tool that is an object as JSON."""
        result = {**_RESULT, "content": {_KEY: _VALUE}}
        return self._once(
            "objects", lambda: f'"{_KEY}": "{_VALUE}"' in (self._render([_QUESTION, _CALLING, result, _ANSWER]) or "")
        )

    def ignores_calls(self, value: Any) -> bool:
        """Return whether the template writes a message whose `tool_calls` are null or empty like one without."""
        return self._once(("no calls", repr(value)), lambda: self._ignores_calls(value))

    def _ignores_calls(self, value: Any) -> bool:
        text = self._render([_QUESTION, {**_ANSWER, "tool_calls": value}])
        return text is not None and text == self._render([_QUESTION, _ANSWER])

    def _texts_with(self, role: str) -> dict[int, str]:
        """Return the texts of conversations with a message of some role, by their number, that contain its content."""
        message = {"role": role, "content": PROBE_CONTENT}
        contexts: Sequence[list[Message]] = (
            [message, _QUESTION, _ANSWER],
            [_QUESTION, message, _ANSWER],
            [_QUESTION, _ANSWER, message],
            [_QUESTION, _CALLING, {**message, "tool_call_id": _ID, "name": _NAME}, _ANSWER],
        )
        texts = {number: self._render(messages) for number, messages in enumerate(contexts)}
        return {number: text for number, text in texts.items() if text is not None and PROBE_CONTENT in text}

    def _has_own_form(self, role: str) -> bool:
        others = self._texts_of_any_role
        return any(
            number not in others or text not in _renamed(others[number], role)
            for number, text in self._texts_with(role).items()
        )

    @cached_property
    def _texts_of_any_role(self) -> dict[int, str]:
        return self._texts_with(_OTHER_ROLE)

    def _writes_calls(self, content: Any, function: Mapping[str, Any]) -> bool:
        message = {**_CALLING, "content": content, "tool_calls": [{**_CALL, "function": function}]}
        return self._once((content, function is _FUNCTION), lambda: self._writes_call(message))

    def _writes_call(self, message: Message) -> bool:
        written = self._render([_QUESTION, message, _RESULT, _ANSWER])
        if written is None:
            written = self._render([_QUESTION, message])
        # Kimi's templates write the id of a call in place of its name.
        if written is None or _VALUE not in written or f'\\"{_KEY}\\"' in written:
            return False
        with_text = self._render([_QUESTION, {**message, "content": PROBE_CONTENT}]) or ""
        return written.count("None") <= with_text.count("None")

    def _writes_part(self, kind: str) -> bool:
        role, part = _PARTS[kind]
        message = {"role": role, "content": [part, {"type": "text", "text": "d"}]}
        for messages in ([_QUESTION, message], [_QUESTION, _CALLING, message, _ANSWER]):
            text = self._render(messages)
            if text is not None and PROBE_CONTENT in text:
                return repr(PROBE_CONTENT) not in text and f'"{PROBE_CONTENT}"' not in text
        return False

    def _render(self, messages: Sequence[Message]) -> str | None:
        """Render messages, with contents in the form that the template takes; None if the template refuses them."""
        takes_text = self._once("text", lambda: PROBE_CONTENT in (self._render_as_is([_PROBE, _ANSWER]) or ""))
        return self._render_as_is(messages if takes_text else [_in_parts(message) for message in messages])

    def _render_as_is(self, messages: Sequence[Message]) -> str | None:
        conversation = Conversation(list(messages), None, None, self._variables)
        try:
            return self._renderer.render(conversation, template=self._source)
        except RowError:
            return None

    def _once(self, key: Any, find: Callable[[], bool]) -> bool:
        if key not in self._found:
            self._found[key] = find()
        return self._found[key]


def _in_parts(message: Message) -> Message:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _renamed(text: str, role: str) -> Iterator[str]:
    """Return a text with another role in place of the unknown one, which may be capitalized in some way."""
    for capitalize in (str.capitalize, str.title):
        renamed = text.replace(_OTHER_ROLE, role).replace(_OTHER_ROLE.upper(), role.upper())
        yield renamed.replace(_OTHER_ROLE.capitalize(), capitalize(role))
