"""Chat template source -> the same template with marks in its output that say which message is being rendered.

The marks are written between the pieces that the template itself writes, so taking them out gives exactly the
unmarked rendering. Only Jinja source is rewritten: the marked template runs in whatever engine runs the plain one.

How: the template is lexed as transformers' environment lexes it (`trim_blocks`, `lstrip_blocks`), which settles all
white space; every literal piece is then written as `{{ "..." }}`, so that marks can stand anywhere without another
piece losing or gaining white space.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from sftkit.errors import TokenizerError

OPEN, CLOSE = f"\x0e{secrets.token_hex(8)}", "\x0f"
"""A mark is OPEN + text + CLOSE. OPEN is drawn anew in every process, so that no data can hold it. ASCII, because text
beyond it costs more to pass from engine to engine."""

INDEX = "sftkit_index"
"""A marked template calls this with a message to learn its place; who renders it says what it is."""

INDEX_MACRO = (
    "{% set sftkit_messages = messages %}{% macro sftkit_index(message) %}"
    "{{ sftkit_messages.index(message) if message is mapping and message in sftkit_messages else -1 }}{% endmacro %}"
)
"""`sftkit_index` in Jinja itself: the index of the first message that equals the one given, -1 for anything else."""

_MARK_BEGINS_GENERATION, _MARK_ENDS_GENERATION = "g", "/g"
_MESSAGES = "messages"
# Inside these the output is captured and may be trimmed or repeated: marks there could change the text.
_CAPTURING = frozenset({"set", "macro", "call", "filter"})
_BLOCKS = _CAPTURING | {"for", "if", "generation", "with", "autoescape", "trans", "block", "raw"}
_SILENT = frozenset({"for", "endfor", "if", "elif", "else", "endif", "set", "break", "continue", "do"})
_LOOP = re.compile(r"\s*for\s+([A-Za-z_]\w*)\s+in\b\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class MarkedTemplate:
    """A rewritten template.

    has_generation: it marks `{% generation %}` blocks, otherwise loops. calls_index: its marks call `sftkit_index`.
    counted: name of its one loop over the messages themselves, "" when it has none or several.
    """

    source: str
    has_generation: bool = False
    calls_index: bool = False
    counted: str = ""


class Block(NamedTuple):
    """A stretch [start, end) of the rendered text and what it was rendered from.

    message: index of the first message equal to the one rendered, -1 when the loop ran over something else, or a
    `{% generation %}` block. loop: name of the loop, `g` for `{% generation %}`. exact: the index is that of the
    message itself, not only of one that equals it.
    """

    start: int
    end: int
    message: int
    loop: str
    exact: bool


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
    if any(tag.kind == "block" and tag.word == "generation" for tag in tags):
        return MarkedTemplate("".join(_with_generation_marks(tags)), has_generation=True)
    counted: list[str] = []
    marked = "".join(_with_loop_marks(tags, counted, runs_over_messages=not _binds_messages(source)))
    if OPEN not in marked:
        return None
    only = counted[0] if len(counted) == 1 else ""
    return MarkedTemplate(marked, calls_index=f"{INDEX}(" in marked, counted=only)


def plain_template(source: str) -> str:
    """A template in the form that marked ones have, without marks and `{% generation %}` tags: it renders the same.

    Raises:
        TokenizerError: the source is not valid Jinja.
    """
    generation = ("generation", "endgeneration")
    return "".join(_written(tag) for tag in _tags(source) if tag.kind != "block" or tag.word not in generation)


def split_turns(rendered: str, loop: str) -> tuple[str, list[int]] | None:
    """A marked rendering -> the plain text and where in it each turn of a counted loop begins, and the last one ends.

    None when other loops wrote something, or this one not exactly once; then `split_marks` tells more.
    """
    before, *turns = rendered.split(f"{OPEN}{loop}{CLOSE}")
    if not turns or rendered.count(OPEN) != len(turns) + 1:
        return None
    last, _, after = turns[-1].partition(f"{OPEN}/{loop}{CLOSE}")
    turns[-1] = last
    return "".join([before, *turns, after]), list(accumulate(map(len, turns), initial=len(before)))


def split_marks(rendered: str) -> tuple[str, list[Block]]:
    """A marked rendering -> the plain text and the blocks in the order in which they began."""
    first, *marked = rendered.split(OPEN)
    pieces = [first]
    length = len(first)
    turns: dict[str, int] = {}
    open_blocks: dict[str, tuple[int, int, bool]] = {}
    blocks: list[Block] = []
    for piece in marked:
        mark, _, text = piece.partition(CLOSE)
        loop, _, index = mark.removeprefix("/").partition(":")
        if loop in open_blocks:
            start, message, exact = open_blocks.pop(loop)
            blocks.append(Block(start, length, message, loop, exact))
        if mark.startswith("/"):
            turns.pop(loop, None)
        elif index:
            open_blocks[loop] = (length, int(index), False)
        else:
            turn = turns.get(loop, 0)
            turns[loop] = turn + 1
            open_blocks[loop] = (length, turn, True)
        pieces.append(text)
        length += len(text)
    return "".join(pieces), sorted(blocks)


def _binds_messages(source: str) -> bool:
    """Whether a template gives the name `messages` to anything of its own."""
    import jinja2
    from jinja2 import nodes

    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
    except jinja2.TemplateSyntaxError:
        return True  # a tag of another extension: nothing is known
    return any(name.name == _MESSAGES and name.ctx != "load" for name in tree.find_all(nodes.Name))


def _with_generation_marks(tags: Sequence[_Tag]) -> Iterator[str]:
    for tag in tags:
        if tag.kind == "block" and tag.word == "generation":
            yield _mark(_MARK_BEGINS_GENERATION)
        elif tag.kind == "block" and tag.word == "endgeneration":
            yield _mark(_MARK_ENDS_GENERATION)
        else:
            yield _written(tag)


def _with_loop_marks(tags: Sequence[_Tag], counted: list[str], *, runs_over_messages: bool) -> Iterator[str]:
    """Write a mark at the beginning of every turn of a loop over one variable, and after the loop.

    A loop over `messages` itself, when that name means the conversation, needs no index: its turns are counted. Loops
    inside of it need no marks. The names of such loops are added to `counted`.
    """
    stack: list[tuple[str, bool]] = []  # of each open block: its loop, if it is marked, and whether marks may be inside
    loops = 0
    for place, tag in enumerate(tags):
        yield _written(tag)
        if tag.kind != "block":
            continue
        if tag.word.startswith("end") and stack:
            loop, _ = stack.pop()
            if loop:
                yield _mark(f"/{loop}")
        elif _opens_block(tag):
            head = _LOOP.fullmatch(tag.text)
            marked = head is not None and all(open_inside for _, open_inside in stack) and _writes(tags, place)
            loop, loops = (str(loops), loops + 1) if marked else ("", loops)
            counts = marked and head is not None and runs_over_messages and head[2].strip() == _MESSAGES
            if counts:
                counted.append(loop)
                yield _mark(loop)
            elif marked and head is not None:
                yield f'{{{{ "{OPEN}{loop}:" ~ {INDEX}({head[1]}) ~ "{CLOSE}" }}}}'
            stack.append((loop, not counts and tag.word not in _CAPTURING))


def _writes(tags: Sequence[_Tag], place: int) -> bool:
    """Whether the loop that opens at `place` may write anything."""
    depth = 0
    for tag in tags[place:]:
        if tag.kind != "block" or tag.word not in _SILENT:
            return True
        depth += (tag.word == "for") - (tag.word == "endfor")
        if depth == 0:
            return False
    return True


def _mark(text: str) -> str:
    return _literal(f"{OPEN}{text}{CLOSE}")


def _opens_block(tag: _Tag) -> bool:
    if tag.word == "set":
        # `{% set x %}...{% endset %}` captures output, `{% set x = ... %}` is no block.
        return "=" not in re.sub(r"==|!=|<=|>=", "", tag.text.split("|")[0])
    return tag.word in _BLOCKS


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
