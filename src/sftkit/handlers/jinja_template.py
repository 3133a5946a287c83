"""The handler that renders a Jinja template over the columns of a row."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.config.fields import option
from sftkit.core.rows import Row
from sftkit.errors import ConfigError
from sftkit.handlers.base import Step, row_step
from sftkit.handlers.text import TextHandler
from sftkit.sandbox.render_limits import render_within_limits
from sftkit.sandbox.row_evaluation import evaluate_on_row
from sftkit.sandbox.template_check import check_template_operations
from sftkit.sandbox.template_variables import keys_of_variable, variables_of

if TYPE_CHECKING:
    from jinja2 import Template

    from sftkit.tokenization.chat_tokenizer import ChatTokenizer

_EOS = "eos_token"
_ROW = "element"
_SPECIAL = re.compile(r"\w+_tokens?")
_PRINTED = re.compile(r"\{\{-?([\s0-9A-Za-z_\-.]+?)-?\}\}")


@dataclass(frozen=True, kw_only=True)
class ApplyCustomJinjaTemplate(TextHandler):
    """Renders a Jinja template over the row's columns, sandboxed. The tokenizer's special tokens are variables, too
    (`{{ eos_token }}`).
    """

    registered_as = "apply_custom_jinja_template"

    template: str = option(
        help="The template; columns are its variables, and `element` is the whole row. A column whose name has spaces "
        "may be written as it is: `{{ Tweet text }}`."
    )
    add_eos_token: bool = option(True, help="End the text with the eos token, unless the template has written one.")

    def may_read(self, tokenizer: ChatTokenizer) -> Collection[str] | None:
        """The columns that the template names; None if it uses the whole row in another way."""
        source = _with_spaced_names(self.template)
        keys = keys_of_variable(source, _ROW)
        return None if keys is None else keys | variables_of(source)

    def bind(self, tokenizer: ChatTokenizer) -> Step:
        """Compile the template once, and render each row.

        Raises:
            ConfigError: the template is not valid Jinja.
            TokenizerError: compiling it exceeds the limits of time or memory. (For a row, the step raises
                `TemplateLimitError`.)
        """
        source = _with_spaced_names(self.template)
        names = variables_of(source)
        eos = tokenizer.eos_token if self.add_eos_token else ""
        ends_itself = _EOS in names or (eos != "" and eos in source)
        # After an eos token, the line end of a YAML block is no part of the text.
        template = _compile(source, keeps_last_line_end=not ends_itself and not tokenizer.follows_fms)
        special: dict[str, str] = {}
        if any(_SPECIAL.fullmatch(name) for name in names):
            special = dict(tokenizer.special_token_variables)

        def render(row: Row) -> Row:
            values: dict[str, Any] = {**special, _ROW: row, **row}
            text = evaluate_on_row(lambda: template.render(values), row, "template", "cannot render this row")
            is_ended = ends_itself and text.rstrip().endswith(eos)
            return {**row, self.dataset_text_field: text if is_ended else text + eos}

        return row_step(render)


def _compile(source: str, *, keeps_last_line_end: bool) -> Template:
    """Compile a template.

    Raises:
        ConfigError: it is not valid Jinja, or does what templates may not do.
        TokenizerError: compiling it exceeds the limits.
    """
    from jinja2 import StrictUndefined, TemplateSyntaxError

    from sftkit.sandbox.steady_environment import SteadyEnvironment

    environment = SteadyEnvironment(undefined=StrictUndefined, keep_trailing_newline=keeps_last_line_end)
    check_template_operations(source)
    try:
        return render_within_limits(lambda: environment.from_string(source), source)
    except TemplateSyntaxError as error:
        raise ConfigError(f"template is not valid Jinja: line {error.lineno}: {error.message}") from None


def _with_spaced_names(source: str) -> str:
    """Replace `{{ Tweet text }}`, which is no Jinja, by the column of that name; leave valid templates alone.

    Example:
        >>> _with_spaced_names("{{ Tweet text }}: {{ label }}")
        "{{ element['Tweet text'] }}: {{ label }}"
    """
    if _is_valid(source):
        return source

    def column(match: re.Match[str]) -> str:
        return match[0] if _is_valid(match[0]) else match[0].replace(match[1], f" element[{match[1].strip()!r}] ")

    replaced = _PRINTED.sub(column, source)
    return replaced if _is_valid(replaced) else source


def _is_valid(source: str) -> bool:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment().parse(source)
    except TemplateSyntaxError:
        return False
    return True
