"""The fast engine for rendering: minijinja."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from sftkit.core.message_fields import TRANSFORMERS_REASONING_FIELDS
from sftkit.core.row_log import RowError
from sftkit.sandbox.chat_templates import DATE_FUNCTION, date_function
from sftkit.sandbox.watchdog import watchdog
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.rendering.minijinja_support import check_template
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from sftkit.tokenization.templates.template_lexer import unmarked_template
from sftkit.tokenization.templates.template_marks import INDEX_FUNCTION, MarkedTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_CHANGED_BY_TRANSFORMERS = frozenset(TRANSFORMERS_REASONING_FIELDS)
_MAX_OPERATIONS = 1_000_000
"""Operations of one rendering. A loop iteration takes some four; common templates need a few hundred a message."""

_MAX_OPERATIONS_TIMES_CHARACTERS = 8 << 30
"""Fewer operations are allowed for long rows, because each may write a text of the row."""

_SEPARATORS = "\x1c\x1d\x1e\x1f"  # white space in Python, not in Rust


class MinijinjaRenderer:
    """Renders with minijinja (Jinja in Rust), configured like the Jinja2 of transformers.

    minijinja renders only what it is known to render like Jinja2; the caller must use the reference for the rest:

    - the template must pass `check_template`, or the constructor raises `UnsupportedByEngineError`;
    - values of the row must be printed the same, or `render` raises `RowError`. Whole floats, numbers that are very
      small or large, and texts with separator characters or lone surrogates are not.

    Before it renders, it gives the conversation to transformers (`ReferenceRenderer.normalize`), unless it consists of
    texts that transformers does not change. Renderings are limited by a number of operations: minijinja can be stopped
    neither by a signal nor by a memory limit.
    """

    name = "minijinja"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reference: ReferenceRenderer) -> None:
        """Prepare for the chat template of a tokenizer.

        Raises:
            UnsupportedByEngineError: minijinja may render the template differently.
        """
        try:
            import minijinja
        except ImportError as error:  # there is no build for this machine
            raise UnsupportedByEngineError(str(error)) from None
        check_template(unmarked_template(reference.source(with_tools=False)))
        self._reference = reference
        self._values = dict(tokenizer.special_tokens_map)
        self._names: dict[str, str] = {}
        self._operations = 0
        self._watchdog = watchdog()
        self._environment = minijinja.Environment(
            keep_trailing_newline=True,
            auto_escape_callback=lambda name: None,
            filters={"tojson": _tojson, "indent": _indent},
            tests={"sequence": _is_sized, "iterable": _is_sized},
            globals={"raise_exception": _raise_exception, DATE_FUNCTION: date_function(reference.template_date)},
            debug=False,
        )

    def source(self, *, with_tools: bool) -> str:
        """Return the template in use; raises `TokenizerError` if there is none."""
        return self._reference.source(with_tools=with_tools)

    def render(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> str:
        """Render a conversation; raises `RowError` if minijinja cannot, or may render it differently."""
        source = self.source(with_tools=conversation.tools is not None) if template is None else template
        return self._render(source, unmarked_template, conversation, add_generation_prompt=add_generation_prompt)

    def render_marked(
        self, conversation: Conversation, marked: MarkedTemplate, *, add_generation_prompt: bool = False
    ) -> str:
        """Render a conversation with a marked template; raises as `render`."""
        return self._render(marked.source, str, conversation, add_generation_prompt=add_generation_prompt)

    def _render(
        self, source: str, prepare: Callable[[str], str], conversation: Conversation, *, add_generation_prompt: bool
    ) -> str:
        name = self._compile(source, prepare)
        if conversation.variables and not _are_printed_the_same(dict(conversation.variables)):
            raise RowError("chat_template_kwargs hold values that minijinja prints differently")
        length = _plain_length(conversation)
        normalized = conversation
        if length is None:
            normalized, length = self._reference.normalize(conversation)
        if normalized is not conversation and not _are_printed_the_same(
            [normalized.messages, normalized.tools, normalized.documents]
        ):
            raise RowError("it holds values that minijinja prints differently")
        messages = normalized.messages
        operations = min(_MAX_OPERATIONS, _MAX_OPERATIONS_TIMES_CHARACTERS // (length + len(source)))
        if operations != self._operations:
            self._environment.fuel = self._operations = operations
        self._watchdog.enter()
        try:
            text: str = self._environment.render_template(
                name,
                **{
                    **self._values,
                    **normalized.variables,
                    "messages": messages,
                    "tools": normalized.tools,
                    "documents": normalized.documents,
                    "add_generation_prompt": add_generation_prompt,
                    INDEX_FUNCTION: lambda message: _index(normalized, message),
                },
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in Rust is not an Exception
            raise RowError(str(error)) from None
        finally:
            self._watchdog.leave()
        return text

    def _compile(self, source: str, prepare: Callable[[str], str]) -> str:
        """Return the name under which a template is compiled; raises `RowError` if it is not supported."""
        if source not in self._names:
            name = f"template {len(self._names)}"
            try:
                prepared = prepare(source)
                check_template(prepared)
                self._environment.add_template(name, prepared)
            except Exception as error:
                name = ""
                _log.info("minijinja cannot be used with a chat template: %s", error)
            self._names[source] = name
        if not self._names[source]:
            raise RowError("minijinja cannot render this template")
        return self._names[source]


def _plain_length(conversation: Conversation) -> int | None:
    """Return the length of a conversation that transformers does not change and both engines read the same.

    That holds for messages that consist of texts only. For others, the result is None.
    """
    messages = conversation.messages
    if conversation.tools is not None or conversation.documents is not None:
        return None
    if isinstance(messages, Mapping):
        values: Iterable[Any] = messages.values()
    elif _CHANGED_BY_TRANSFORMERS.isdisjoint(chain.from_iterable(messages)):
        values = chain.from_iterable([message.values() for message in messages])
    else:
        return None
    try:
        text = "".join(values)
    except TypeError:
        return None
    return len(text) if _is_read_the_same(text) else None


def _are_printed_the_same(value: Any) -> bool:
    """Return whether both engines print and strip all values in JSON data the same."""
    if isinstance(value, str):
        return _is_read_the_same(value)
    if isinstance(value, dict):
        return all(map(_are_printed_the_same, value.values())) and all(map(_are_printed_the_same, value))
    if isinstance(value, list):
        return all(map(_are_printed_the_same, value))
    if isinstance(value, float):
        return not value.is_integer() and 1e-4 <= abs(value) < 1e16  # false for nan
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _is_read_the_same(text: str) -> bool:
    """Return whether a text has no separator characters and no lone surrogates, which the engines treat differently."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return _SEPARATORS[0] not in text and not any(separator in text for separator in _SEPARATORS[1:])


def _index(conversation: Conversation, message: Any) -> int:
    if not isinstance(message, dict):
        return -1
    try:
        return conversation.message_list.index(message)
    except (ValueError, RowError):
        return -1


def _tojson(value: Any, **options: Any) -> str:
    if value is None:  # null or undefined, which Jinja2 tells apart
        raise LookupError
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _indent(value: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    from jinja2.filters import do_indent

    if not isinstance(value, str):
        raise LookupError
    return str(do_indent(value, width, first, blank))


def _is_sized(value: Any) -> bool:
    if value is None:  # null or undefined, which Jinja2 tells apart
        raise LookupError
    return isinstance(value, (str, list, dict, tuple))


def _raise_exception(message: str) -> None:
    raise ValueError(message)
