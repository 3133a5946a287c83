"""Chat template source taken apart by Jinja's lexer and written again so that marks can stand anywhere in it.

The template is lexed as transformers' environment lexes it (`trim_blocks`, `lstrip_blocks`), which settles all white
space; every literal piece is then written as `{{ "..." }}`, so that no piece gains or loses white space by what stands
beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sftkit.errors import TokenizerError


class TemplatePart(NamedTuple):
    """One piece of a lexed template: literal text, `{{ expression }}` or `{% statement %}`."""

    kind: str
    text: str

    @property
    def word(self) -> str:
        """First word of a statement."""
        match = re.match(r"\s*([A-Za-z_]\w*)", self.text)
        return match[1] if match else ""


def unmarked_template(source: str) -> str:
    """A template in the form that marked ones have, without marks and `{% generation %}` tags: it renders the same.

    Raises:
        TokenizerError: the source is not valid Jinja.
    """
    generation = ("generation", "endgeneration")
    return "".join(
        part_source(tag) for tag in lex_template(source) if tag.kind != "block" or tag.word not in generation
    )


def part_source(tag: TemplatePart) -> str:
    """A piece as template source again."""
    if tag.kind == "data":
        return literal_source(tag.text)
    return f"{{{{{tag.text}}}}}" if tag.kind == "variable" else f"{{%{tag.text}%}}"


def literal_source(text: str) -> str:
    """Template source that writes a text as it is."""
    return f"{{{{ {jinja_string(text)} }}}}" if text else ""


def jinja_string(text: str) -> str:
    """A text as a string of Jinja."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def lex_template(source: str) -> Iterator[TemplatePart]:
    """The pieces of a template, with white space control applied.

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
