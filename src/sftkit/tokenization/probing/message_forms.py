"""Give messages the form that a chat template writes, where it would lose or misread theirs.

- A `developer` message becomes a `system` message if the template writes only those.
- The content of a message with tool calls, if it is empty, becomes null or "" if the template writes the calls only
  then: Qwen's templates fail without a text.
- Arguments of tool calls that are JSON text become objects if the template would quote the text, and objects become
  JSON text if the template takes only that.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

from sftkit.tokenization.conversations import Conversation, Message
from sftkit.tokenization.probing.written_forms import EMPTY_CONTENTS, WrittenForms
from sftkit.tokenization.rendering.reference_renderer import Renderer

_SYSTEM, _DEVELOPER = "system", "developer"
_CONTENT, _CALLS, _ARGUMENTS = "content", "tool_calls", "arguments"


class MessageFormAdapter:
    """Adapts messages to the template, and tells which forms it writes."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._forms: dict[str, WrittenForms] = {}

    def forms(self, variables: Mapping[str, Any], *, with_tools: bool) -> WrittenForms:
        """Return what is known of the template for conversations with or without tools.

        Args:
            variables: the template's variables; those of the first call are kept.
            with_tools: some tokenizers have another template for conversations with tools.

        Raises:
            TokenizerError: there is no template.
        """
        source = self._renderer.source(with_tools=with_tools)
        if source not in self._forms:
            self._forms[source] = WrittenForms(self._renderer, source, variables)
        return self._forms[source]

    def adapt(self, conversation: Conversation) -> Conversation:
        """Return the conversation in the form that the template writes; the same object if nothing changes.

        Raises:
            TokenizerError: the template is not valid.
        """
        if type(conversation.messages) is not list:
            return conversation
        shape = conversation.shape
        has_developer = _DEVELOPER in shape.roles
        if not has_developer and _CALLS not in shape.keys:
            return conversation
        forms = self.forms(conversation.variables, with_tools=conversation.tools is not None)
        messages = conversation.messages
        if has_developer and not forms.writes_role(_DEVELOPER) and forms.writes_role(_SYSTEM):
            messages = [_as_system(message) for message in messages]
        if _CALLS in shape.keys:
            messages = [_adapt_calls(message, forms) if message.get(_CALLS) else message for message in messages]
        if all(map(operator.is_, messages, conversation.messages)):
            return conversation
        return conversation.with_message_list(messages)


def _as_system(message: Message) -> Message:
    return {**message, "role": _SYSTEM} if message.get("role") == _DEVELOPER else message


def _adapt_calls(message: Message, forms: WrittenForms) -> Message:
    content = message.get(_CONTENT)
    if content in EMPTY_CONTENTS and not forms.writes_calls_beside(content):
        written = next((other for other in EMPTY_CONTENTS if forms.writes_calls_beside(other)), content)
        message = {**message, _CONTENT: written}
    calls = message[_CALLS]
    if not isinstance(calls, list):
        return message
    for convert, other, takes, takes_other in (
        (_to_object, str, forms.takes_texts, forms.takes_objects),
        (_to_text, dict, forms.takes_objects, forms.takes_texts),
    ):
        if any(isinstance(_arguments(call), other) for call in calls) and not takes() and takes_other():
            message = {**message, _CALLS: [_with_arguments(call, convert) for call in calls]}
    return message


def _arguments(call: Any) -> Any:
    return _function_of(call).get(_ARGUMENTS) if isinstance(call, Mapping) else None


def _function_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    return function if isinstance(function, Mapping) else call


def _with_arguments(call: Any, convert: Callable[[Any], Any]) -> Any:
    if not isinstance(call, Mapping) or _arguments(call) is None:
        return call
    function = _function_of(call)
    changed = {**function, _ARGUMENTS: convert(function.get(_ARGUMENTS))}
    return changed if function is call else {**call, "function": changed}


def _to_object(arguments: Any) -> Any:
    """Return JSON text of an object as the object; any other value unchanged."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _to_text(arguments: Any) -> Any:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
