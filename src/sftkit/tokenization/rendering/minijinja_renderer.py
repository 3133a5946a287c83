"""The fast engine for rendering: minijinja. Where it may not be used, for a template or a row, the reference is."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from sftkit.core.message_fields import TRANSFORMERS_REASONING_FIELDS
from sftkit.core.row_log import RowError
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
_MOST_STEPS = 1_000_000
"""Steps of one rendering, of which a turn of a loop takes some four. Templates in use take a few hundred a message."""

_STEPS_TIMES_CHARACTERS = 8 << 30
"""Steps are fewer where rows are long: each may write a text of the row."""

_SEPARATORS = "\x1c\x1d\x1e\x1f"  # white space to Python, not to Rust


class MinijinjaRenderer:
    """Renders with minijinja, set up as transformers sets up Jinja2.

    Raises:
        EngineRefusedError: the tokenizer's template is not one that minijinja is known to render alike.
    """

    name = "minijinja"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reference: ReferenceRenderer) -> None:
        try:
            import minijinja
        except ImportError as error:  # it has no build for this machine
            raise UnsupportedByEngineError(str(error)) from None
        check_template(unmarked_template(reference.source(with_tools=False)))
        self._reference = reference
        self._values = dict(tokenizer.special_tokens_map)
        self._names: dict[str, str] = {}
        self._steps = 0
        self._environment = minijinja.Environment(
            keep_trailing_newline=True,
            auto_escape_callback=lambda name: None,
            filters={"tojson": _tojson, "indent": _indent},
            tests={"sequence": _is_sized, "iterable": _is_sized},
            globals={"raise_exception": _raise_exception, "strftime_now": _strftime_now},
            debug=False,
        )

    def source(self, *, with_tools: bool) -> str:
        """The template in force; `TokenizerError` when there is none."""
        return self._reference.source(with_tools=with_tools)

    def render(
        self, conversation: Conversation, *, template: str | None = None, add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation; `RowError` when it cannot be rendered."""
        source = self.source(with_tools=conversation.tools is not None) if template is None else template
        return self._rendered(source, unmarked_template, conversation, add_generation_prompt=add_generation_prompt)

    def render_marked(
        self, conversation: Conversation, marked: MarkedTemplate, *, add_generation_prompt: bool = False
    ) -> str:
        """The text of a conversation with the marks of a marked template in it."""
        return self._rendered(marked.source, str, conversation, add_generation_prompt=add_generation_prompt)

    def _rendered(
        self, source: str, form: Callable[[str], str], conversation: Conversation, *, add_generation_prompt: bool
    ) -> str:
        name = self._template(source, form)
        if conversation.variables and not _are_alike(dict(conversation.variables)):
            raise RowError("chat_template_kwargs hold values that minijinja prints in another way")
        length = _plain_length(conversation)
        seen = conversation
        if length is None:
            seen, length = self._reference.normalize(conversation)
        if seen is not conversation and not _are_alike([seen.messages, seen.tools, seen.documents]):
            raise RowError("it holds values that minijinja prints in another way")
        messages = seen.messages
        steps = min(_MOST_STEPS, _STEPS_TIMES_CHARACTERS // (length + len(source)))
        if steps != self._steps:
            self._environment.fuel = self._steps = steps
        try:
            text: str = self._environment.render_template(
                name,
                **{
                    **self._values,
                    **seen.variables,
                    "messages": messages,
                    "tools": seen.tools,
                    "documents": seen.documents,
                    "add_generation_prompt": add_generation_prompt,
                    INDEX_FUNCTION: lambda message: _index(seen, message),
                },
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # what panics in Rust is no Exception
            raise RowError(str(error)) from None
        return text

    def _template(self, source: str, form: Callable[[str], str]) -> str:
        """The name under which a template was compiled; `RowError` where it is not one to be trusted."""
        if source not in self._names:
            name = f"template {len(self._names)}"
            try:
                written = form(source)
                check_template(written)
                self._environment.add_template(name, written)
            except Exception as error:
                name = ""
                _log.info("minijinja cannot be used with a chat template: %s", error)
            self._names[source] = name
        if not self._names[source]:
            raise RowError("minijinja cannot render this template")
        return self._names[source]


def _plain_length(conversation: Conversation) -> int | None:
    """Characters of a conversation that reaches its template as it is, and that both engines read alike: texts only.
    None for others.
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
    return len(text) if _is_alike(text) else None


def _are_alike(value: Any) -> bool:
    """Whether both engines print, and strip, every value in JSON data alike."""
    if isinstance(value, str):
        return _is_alike(value)
    if isinstance(value, dict):
        return all(map(_are_alike, value.values())) and all(map(_are_alike, value))
    if isinstance(value, list):
        return all(map(_are_alike, value))
    if isinstance(value, float):
        return not value.is_integer() and 1e-4 <= abs(value) < 1e16  # false for nan
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _is_alike(text: str) -> bool:
    """White space to both engines, no half surrogate pair, which only one of them keeps."""
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


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
