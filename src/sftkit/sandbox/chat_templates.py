"""Render the chat template of a tokenizer through transformers, so that every run gives the same text.

The time that a template is given (`strftime_now`) is midnight of a given day.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sftkit.sandbox.render_limits import TemplateLimitError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE_FUNCTION = "strftime_now"
"""The function that tells a template the time."""

_LONGEST_FORMAT = 1000  # characters
_ZONE = re.compile(r"%(?:%|[-_0^#+:]*\d*[EO]?([sZz]))")
_WIDTH = re.compile(r"%[-_0^#+]*\d{4}")
_COMPILED = 128  # templates, as in transformers

_day: ContextVar[str | None] = ContextVar("template_date", default=None)


def today() -> str:
    """The current day, as a config holds it."""
    return date.today().isoformat()


def tells_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a chat template of a tokenizer may tell the date."""
    templates: Any = tokenizer.chat_template or ""
    return any(
        DATE_FUNCTION in source for source in (templates.values() if isinstance(templates, dict) else [templates])
    )


def date_function(day: str) -> Callable[[str], str]:
    """Return the function `strftime_now` of templates for midnight of a day, in no time zone.

    Args:
        day: in the form YYYY-MM-DD.

    Example:
        >>> date_function("2024-07-26")("%d %b %Y, %H:%M:%S%Z")
        '26 Jul 2024, 00:00:00'
    """
    midnight = datetime.fromisoformat(day)
    seconds = str(int(midnight.replace(tzinfo=UTC).timestamp()))

    def strftime_now(format: str) -> str:
        if len(format) > _LONGEST_FORMAT or _WIDTH.search(format):
            raise TemplateLimitError(
                f"the template calls {DATE_FUNCTION} with a format of more than {_LONGEST_FORMAT:,} characters, or for "
                "as long a text; fix the template"
            )
        steady = _ZONE.sub(lambda found: {None: found[0], "s": seconds}.get(found[1], ""), format)
        return midnight.strftime(steady)

    return strftime_now


def apply_chat_template(tokenizer: PreTrainedTokenizerBase, messages: Any, day: str | None, **options: Any) -> str:
    """Render a conversation as `tokenizer.apply_chat_template` does, on a given day.

    Args:
        tokenizer: with a chat template.
        messages: the conversation.
        day: what the template is given, in the form YYYY-MM-DD; None for today.
        **options: as `apply_chat_template` takes them.

    Raises:
        TemplateChanceError: the template uses something that differs between runs.
        Exception: whatever the template raises.
    """
    _compile_here()
    token = _day.set(day or today())
    try:
        render: Any = tokenizer.apply_chat_template
        return str(render(messages, tokenize=False, **options))
    finally:
        _day.reset(token)


@lru_cache(maxsize=1)
def _compile_here() -> None:
    """Have transformers compile templates in a `SteadyEnvironment`, while `apply_chat_template` of this module runs."""
    from transformers.utils import chat_template_utils

    from sftkit.sandbox.steady_environment import SteadyEnvironment

    module: Any = chat_template_utils
    original = module._compile_jinja_template

    @lru_cache(maxsize=_COMPILED)
    def compiled(source: str, day: str) -> Any:
        plain = module.ImmutableSandboxedEnvironment
        module.ImmutableSandboxedEnvironment = SteadyEnvironment
        try:
            template = original.__wrapped__(source)
        finally:
            module.ImmutableSandboxedEnvironment = plain
        template.environment.globals[DATE_FUNCTION] = date_function(day)
        template.environment.hide_functions()
        return template

    def compile_template(source: str) -> Any:
        day = _day.get()
        return original(source) if day is None else compiled(source, day)

    module._compile_jinja_template = compile_template
