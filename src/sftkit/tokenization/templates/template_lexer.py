"""Splits the source of a chat template into parts, and writes parts as source that marks can be inserted into.

The template is lexed with the settings of transformers (`trim_blocks`, `lstrip_blocks`), which removes all white space
that Jinja would remove. Each literal text is then written as `{{ "..." }}`, so that inserting something next to it
neither adds nor removes white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sftkit.errors import TokenizerError

_GENERATION_TAGS = ("generation", "endgeneration")


class TemplatePart(NamedTuple):
    """A part of a template: literal text, `{{ expression }}` or `{% statement %}`."""

    kind: str
    """`data`, `variable` or `block`, as Jinja's lexer calls them."""
    text: str
    """The text, or the source inside of the delimiters."""

    @property
    def word(self) -> str:
        """The first word of a statement."""
        match = re.match(r"\s*([A-Za-z_]\w*)", self.text)
        return match[1] if match else ""


def unmarked_template(source: str) -> str:
    """Return a template in the form of a marked one, but without marks and `{% generation %}` tags.

    It renders the same text as the source.

    Raises:
        TokenizerError: the source is not valid Jinja.

    Example:
        >>> unmarked_template("<s>\\n{% generation %}\\n  {{ messages }}{% endgeneration %}")
        '{{ "<s>\\\\n" }}{{ "  " }}{{ messages }}'
    """
    return "".join(
        part_source(part) for part in lex_template(source) if part.kind != "block" or part.word not in _GENERATION_TAGS
    )


def part_source(part: TemplatePart) -> str:
    """Return the source of a part; white space next to it does not matter."""
    if part.kind == "data":
        return literal_source(part.text)
    return f"{{{{{part.text}}}}}" if part.kind == "variable" else f"{{%{part.text}%}}"


def literal_source(text: str) -> str:
    """Return template source that writes a text unchanged."""
    return f"{{{{ {jinja_string(text)} }}}}" if text else ""


def jinja_string(text: str) -> str:
    """Return a text as a Jinja string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def lex_template(source: str) -> Iterator[TemplatePart]:
    """Yield the parts of a template, with white space control applied.

    Raises:
        TokenizerError: the source is not valid Jinja.
    """
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    inner: list[str] = []
    kind = ""
    try:
        for _, token, value in environment.lexer.tokeniter(source, None):
            if token in ("block_begin", "variable_begin"):
                kind, inner = token.removesuffix("_begin"), []
            elif token in ("block_end", "variable_end"):
                yield TemplatePart(kind, "".join(inner))
                kind = ""
            elif token == "data":
                yield TemplatePart("data", value)
            elif kind:
                inner.append(value)
    except jinja2.TemplateSyntaxError as error:
        raise TokenizerError(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}") from None
