"""Chat template source -> the same template with marks in its output that say which message is being rendered.

The marks are written between the pieces that the template itself writes, so taking them out gives exactly the
unmarked rendering. Only Jinja source is rewritten: the marked template runs in whatever engine runs the plain one.

How: the template is lexed as transformers' environment lexes it (`trim_blocks`, `lstrip_blocks`), which settles all
white space; every literal piece is then written as `{{ "..." }}`, so that marks can stand anywhere without another
piece losing or gaining white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sftkit.errors import TokenizerError

OPEN, CLOSE = "\ue0f0", "\ue0f1"
"""A mark is OPEN + text + CLOSE. Private-use characters: rows that hold them are never rendered with marks."""

_MESSAGES = "sftkit_all_messages"
_MARK = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
# Inside these the output is captured and may be trimmed or repeated: marks there could change the text.
_CAPTURING = frozenset({"set", "macro", "call", "filter"})
_BLOCKS = _CAPTURING | {"for", "if", "generation", "with", "autoescape", "trans", "block", "raw"}


@dataclass(frozen=True)
class MarkedTemplate:
    """A rewritten template. `has_generation`: it marks `{% generation %}` blocks, otherwise loops over messages."""

    source: str
    has_generation: bool


class Block(NamedTuple):
    """A stretch [start, end) of the rendered text and what it was rendered from.

    message: index of the first message equal to the one rendered, -1 when the loop ran over something else, or a
    `{% generation %}` block. loop: number of the loop, -1 for `{% generation %}`.
    """

    start: int
    end: int
    message: int
    loop: int


class _Tag(NamedTuple):
    """One piece of a lexed template: literal text, `{{ expression }}` or `{% statement %}`."""

    kind: str
    text: str

    @property
    def word(self) -> str:
        """First word of a statement."""
        match = re.match(r"\s*([A-Za-z_]\w*)", self.text)
        return match[1] if match else ""


def mark_template(source: str) -> MarkedTemplate | None:
    """Rewrite a template so that its output carries marks; None when no place for them is safe.

    Raises:
        TokenizerError: the source is not valid Jinja.
    """
    tags = list(_tags(source))
    if holds_marks(source):
        return None
    if any(tag.kind == "block" and tag.word == "generation" for tag in tags):
        return MarkedTemplate("".join(_with_generation_marks(tags)), has_generation=True)
    marked = "".join(_with_loop_marks(tags))
    if OPEN not in marked:
        return None
    return MarkedTemplate(f"{{% set {_MESSAGES} = messages %}}{marked}", has_generation=False)


def split_marks(rendered: str) -> tuple[str, list[Block]]:
    """A marked rendering -> the plain text and the blocks in the order in which they began."""
    pieces: list[str] = []
    length = position = 0
    open_blocks: dict[int, tuple[int, int]] = {}
    blocks: list[Block] = []

    def close(loop: int) -> None:
        if loop in open_blocks:
            start, message = open_blocks.pop(loop)
            blocks.append(Block(start, length, message, loop))

    for mark in _MARK.finditer(rendered):
        pieces.append(rendered[position : mark.start()])
        length += len(pieces[-1])
        position = mark.end()
        loop, _, message = mark[1].partition(":")
        close(int(loop))
        if message:
            open_blocks[int(loop)] = (length, int(message))
    pieces.append(rendered[position:])
    return "".join(pieces), sorted(blocks)


def holds_marks(text: str) -> bool:
    """Whether a text has one of the characters that marks are made of."""
    return OPEN in text or CLOSE in text


def _with_generation_marks(tags: list[_Tag]) -> Iterator[str]:
    for tag in tags:
        if tag.kind == "block" and tag.word == "generation":
            yield _literal(f"{OPEN}-1:-1{CLOSE}")
        elif tag.kind == "block" and tag.word == "endgeneration":
            yield _literal(f"{OPEN}-1{CLOSE}")
        else:
            yield _written(tag)


def _with_loop_marks(tags: list[_Tag]) -> Iterator[str]:
    """Write a mark at the beginning of every turn of a loop over one variable, and after the loop."""
    stack: list[tuple[str, int]] = []
    loops = 0
    for tag in tags:
        yield _written(tag)
        if tag.kind != "block":
            continue
        if tag.word.startswith("end") and stack:
            _, loop = stack.pop()
            if loop >= 0:
                yield _literal(f"{OPEN}{loop}{CLOSE}")
        elif _opens_block(tag):
            loop = -1
            variable = re.match(r"\s*for\s+([A-Za-z_]\w*)\s+in\b", tag.text)
            if variable and not any(word in _CAPTURING for word, _ in stack):
                loop, loops = loops, loops + 1
                yield _begin_mark(variable[1], loop)
            stack.append((tag.word, loop))


def _opens_block(tag: _Tag) -> bool:
    if tag.word == "set":
        # `{% set x %}...{% endset %}` captures output, `{% set x = ... %}` is no block.
        return "=" not in re.sub(r"==|!=|<=|>=", "", tag.text.split("|")[0])
    return tag.word in _BLOCKS


def _begin_mark(variable: str, loop: int) -> str:
    index = f"({_MESSAGES}.index({variable}) if {variable} is mapping and {variable} in {_MESSAGES} else -1)"
    return f'{{{{ "{OPEN}{loop}:" ~ {index} ~ "{CLOSE}" }}}}'


def _written(tag: _Tag) -> str:
    if tag.kind == "data":
        return _literal(tag.text)
    return f"{{{{{tag.text}}}}}" if tag.kind == "variable" else f"{{%{tag.text}%}}"


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'{{{{ "{escaped}" }}}}' if text else ""


def _tags(source: str) -> Iterator[_Tag]:
    """Lex a template; white space control is applied here and needs no further mention."""
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    inner: list[str] = []
    kind = ""
    try:
        for _, token, value in environment.lexer.tokeniter(source, None):
            if token in ("block_begin", "variable_begin"):
                kind, inner = token.removesuffix("_begin"), []
            elif token in ("block_end", "variable_end"):
                yield _Tag(kind, "".join(inner))
                kind = ""
            elif token == "data":
                yield _Tag("data", value)
            elif kind:
                inner.append(value)
    except jinja2.TemplateSyntaxError as error:
        raise TokenizerError(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}") from None
