"""Chat template source -> the same template with marks in its output that say which message is being rendered.

The marks are written between the pieces that the template itself writes, so taking them out gives exactly the
unmarked rendering. Only Jinja source is rewritten: the marked template runs in whatever engine runs the plain one.

How they come to stand between the pieces: see `template_lexing`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from sftkit.tokenization.templates.template_analysis import rebinds_messages
from sftkit.tokenization.templates.template_lexer import (
    TemplatePart,
    jinja_string,
    lex_template,
    literal_source,
    part_source,
)

MARK_START, MARK_END = f"\x0e{secrets.token_hex(8)}", "\x0f"
"""A mark is OPEN + text + CLOSE. OPEN is drawn anew in every process, so that no data can hold it. ASCII, because text
beyond it costs more to pass from engine to engine."""

INDEX_FUNCTION = "sftkit_index"
"""A marked template calls this with a message to learn its place; who renders it says what it is."""

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
    calls_index_function: bool = False
    counted_loop: str = ""


class MarkedBlock(NamedTuple):
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


def mark_template(source: str) -> MarkedTemplate | None:
    """Rewrite a template so that its output carries marks; None when no place for them is safe.

    Raises:
        TokenizerError: the source is not valid Jinja.
    """
    tags = list(lex_template(source))
    if any(tag.kind == "block" and tag.word == "generation" for tag in tags):
        return MarkedTemplate("".join(_with_generation_marks(tags)), has_generation=True)
    counted: list[str] = []
    marked = "".join(_with_loop_marks(tags, counted, runs_over_messages=not rebinds_messages(source)))
    if MARK_START not in marked:
        return None
    only = counted[0] if len(counted) == 1 else ""
    return MarkedTemplate(marked, calls_index_function=f"{INDEX_FUNCTION}(" in marked, counted_loop=only)


def index_function_source(column: str | None) -> str:
    """`sftkit_index` in Jinja itself: the index of the first message that equals the one given, -1 for anything else.

    column: where the messages stand in the whole row, for templates that take one as `messages`.
    """
    messages = "messages" if column is None else f"messages[{jinja_string(column)}]"
    known = "message is mapping and message in sftkit_messages"
    return (
        f"{{% set sftkit_messages = {messages} %}}{{% macro {INDEX_FUNCTION}(message) %}}"
        f"{{{{ sftkit_messages.index(message) if {known} else -1 }}}}{{% endmacro %}}"
    )


def split_iterations(rendered: str, loop: str) -> tuple[str, list[int]] | None:
    """A marked rendering -> the plain text and where in it each turn of a counted loop begins, and the last one ends.

    None when other loops wrote something, or this one not exactly once; then `split_marks` tells more.
    """
    before, *turns = rendered.split(f"{MARK_START}{loop}{MARK_END}")
    if not turns or rendered.count(MARK_START) != len(turns) + 1:
        return None
    last, _, after = turns[-1].partition(f"{MARK_START}/{loop}{MARK_END}")
    turns[-1] = last
    return "".join([before, *turns, after]), list(accumulate(map(len, turns), initial=len(before)))


def split_marks(rendered: str) -> tuple[str, list[MarkedBlock]]:
    """A marked rendering -> the plain text and the blocks in the order in which they began."""
    first, *marked = rendered.split(MARK_START)
    pieces = [first]
    length = len(first)
    turns: dict[str, int] = {}
    open_blocks: dict[str, tuple[int, int, bool]] = {}
    blocks: list[MarkedBlock] = []
    for piece in marked:
        mark, _, text = piece.partition(MARK_END)
        loop, _, index = mark.removeprefix("/").partition(":")
        if loop in open_blocks:
            start, message, exact = open_blocks.pop(loop)
            blocks.append(MarkedBlock(start, length, message, loop, exact))
        if mark.startswith("/"):
            turns.pop(loop, None)
        elif index.startswith("="):
            open_blocks[loop] = (length, int(index[1:]), True)
        elif index:
            open_blocks[loop] = (length, int(index), False)
        else:
            turn = turns.get(loop, 0)
            turns[loop] = turn + 1
            open_blocks[loop] = (length, turn, True)
        pieces.append(text)
        length += len(text)
    return "".join(pieces), sorted(blocks)


def _with_generation_marks(tags: Sequence[TemplatePart]) -> Iterator[str]:
    for tag in tags:
        if tag.kind == "block" and tag.word == "generation":
            yield _mark(_MARK_BEGINS_GENERATION)
        elif tag.kind == "block" and tag.word == "endgeneration":
            yield _mark(_MARK_ENDS_GENERATION)
        else:
            yield part_source(tag)


def _with_loop_marks(tags: Sequence[TemplatePart], counted: list[str], *, runs_over_messages: bool) -> Iterator[str]:
    """Write a mark at the beginning of every turn of a loop over one variable, and after the loop.

    A loop over `messages` itself, when that name means the conversation, needs no index: its turns are counted. Loops
    inside of it need no marks. The names of such loops are added to `counted`. A loop over places
    (`for i in range(...)`, and `messages[i]` inside) says the place.
    """
    stack: list[tuple[str, bool]] = []  # of each open block: its loop, if it is marked, and whether marks may be inside
    loops = 0
    for place, tag in enumerate(tags):
        yield part_source(tag)
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
            elif marked and head is not None and _runs_over_places(tags, head):
                yield f'{{{{ "{MARK_START}{loop}:=" ~ {head[1]} ~ "{MARK_END}" }}}}'
            elif marked and head is not None:
                yield f'{{{{ "{MARK_START}{loop}:" ~ {INDEX_FUNCTION}({head[1]}) ~ "{MARK_END}" }}}}'
            stack.append((loop, not counts and tag.word not in _CAPTURING))


def _runs_over_places(tags: Sequence[TemplatePart], head: re.Match[str]) -> bool:
    """Whether a loop's variable is the place of a message in `messages`."""
    place = re.compile(rf"\b{_MESSAGES}\s*\[\s*{head[1]}\s*\]")
    return head[2].lstrip().startswith("range") and any(place.search(tag.text) for tag in tags if tag.kind != "data")


def _writes(tags: Sequence[TemplatePart], place: int) -> bool:
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
    return literal_source(f"{MARK_START}{text}{MARK_END}")


def _opens_block(tag: TemplatePart) -> bool:
    if tag.word == "set":
        # `{% set x %}...{% endset %}` captures output, `{% set x = ... %}` is no block.
        return "=" not in re.sub(r"==|!=|<=|>=", "", tag.text.split("|")[0])
    return tag.word in _BLOCKS
