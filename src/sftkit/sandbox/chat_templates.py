"""Render the chat template of a tokenizer through transformers, so that every run gives the same text.

The time that a template is given (`strftime_now`) is midnight of a given day.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from sftkit.sandbox.render_limits import TemplateLimitError

if TYPE_CHECKING:
    from jinja2 import Template
    from transformers import PreTrainedTokenizerBase

DATE_FUNCTION = "strftime_now"
"""The function that tells a template the time."""

_LONGEST_FORMAT = 1000  # characters
_ZONE = re.compile(r"%(?:%|[-_0^#+:]*\d*[EO]?([sZz]))")
_WIDTH = re.compile(r"%[-_0^#+]*\d{4}")
_COMPILED = 128  # templates, as in transformers

_compile: ContextVar[Callable[[str], CompiledByTransformers] | None] = ContextVar("compile_template", default=None)


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


class CompiledByTransformers(Protocol):
    """What transformers renders with: a template of Jinja, or something that stands for one."""

    def render(self, **values: Any) -> str:
        """Render with the variables that transformers gives the template."""


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
    return _apply(tokenizer, messages, lambda source: compiled_by_transformers(source, day or today()), options)


def apply_compiled_template(
    tokenizer: PreTrainedTokenizerBase, messages: Any, template: CompiledByTransformers, **options: Any
) -> str:
    """Render a conversation as `tokenizer.apply_chat_template` does, with a template that is already compiled.

    Raises:
        Exception: whatever the template raises.
    """
    return _apply(tokenizer, messages, lambda source: template, options)


def _apply(
    tokenizer: PreTrainedTokenizerBase,
    messages: Any,
    compile_template: Callable[[str], CompiledByTransformers],
    options: dict[str, Any],
) -> str:
    _compile_here()
    token = _compile.set(compile_template)
    try:
        render: Any = tokenizer.apply_chat_template
        return str(render(messages, tokenize=False, **options))
    finally:
        _compile.reset(token)


@lru_cache(maxsize=_COMPILED)
def compiled_by_transformers(source: str, day: str) -> Template:
    """Compile a template as transformers does, in a `SteadyEnvironment`, for a day in the form YYYY-MM-DD.

    Raises:
        jinja2.TemplateSyntaxError: it is not valid Jinja.
    """
    from transformers.utils import chat_template_utils

    from sftkit.sandbox.steady_environment import SteadyEnvironment

    module: Any = chat_template_utils
    plain = module.ImmutableSandboxedEnvironment
    module.ImmutableSandboxedEnvironment = SteadyEnvironment
    try:
        template: Template = _original_compile().__wrapped__(source)
    finally:
        module.ImmutableSandboxedEnvironment = plain
    environment: Any = template.environment
    environment.globals[DATE_FUNCTION] = date_function(day)
    environment.hide_functions()
    return template


@lru_cache(maxsize=1)
def _original_compile() -> Any:
    """The function by which transformers compiles templates, as it was before `_compile_here`."""
    from transformers.utils import chat_template_utils

    return chat_template_utils._compile_jinja_template


@lru_cache(maxsize=1)
def _compile_here() -> None:
    """Have transformers use what `_apply` gives it to compile templates, while `_apply` runs."""
    from transformers.utils import chat_template_utils

    original = _original_compile()

    def compile_template(source: str) -> Any:
        return (_compile.get() or original)(source)

    module: Any = chat_template_utils
    module._compile_jinja_template = compile_template
