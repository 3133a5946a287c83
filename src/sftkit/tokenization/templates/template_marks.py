"""Rewrites chat templates so that their output contains marks that show which message was rendered where.

Marks are written between the parts of the template (`template_lexer`), so the output without marks is exactly the
output of the original template. Only the source is rewritten: any Jinja engine can render the result.
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
"""A mark is MARK_START + text + MARK_END. MARK_START contains a random number of this process, so no data can contain
it. Both are ASCII, because other text is slower to pass between engines."""

INDEX_FUNCTION = "sftkit_index"
"""A function that marked templates call with a message to get its index. The renderer provides it."""

_GENERATION_START, _GENERATION_END = "g", "/g"
_MESSAGES = "messages"
# The output inside of these is captured, and may be trimmed or repeated: marks in it could change the text.
_CAPTURING = frozenset({"set", "macro", "call", "filter"})
_BLOCKS = _CAPTURING | {"for", "if", "generation", "with", "autoescape", "trans", "block", "raw"}
_SILENT = frozenset({"for", "endfor", "if", "elif", "else", "endif", "set", "break", "continue", "do"})
_LOOP = re.compile(r"\s*for\s+([A-Za-z_]\w*)\s+in\b\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class MarkedTemplate:
    """A template with marks."""

    source: str
    has_generation: bool = False
    """Whether it marks `{% generation %}` blocks; otherwise it marks loops."""
    calls_index_function: bool = False
    """Whether its marks call `sftkit_index`."""
    counted_loop: str = ""
    """Name of its only loop over `messages` itself; "" if it has none or several."""


class MarkedBlock(NamedTuple):
    """A span [start, end) of the rendered text, and what it was rendered from."""

    start: int
    end: int
    message: int
    """Index of the message, or of the first message equal to it; -1 for a loop over something else, and for
    `{% generation %}` blocks."""
    loop: str
    """Name of the loop; `g` for `{% generation %}`."""
    exact: bool
    """Whether `message` is the index of the message itself."""


def mark_template(source: str) -> MarkedTemplate | None:
    """Rewrite a template so that its output contains marks.

    Marks are written at the start and end of `{% generation %}` blocks; in a template without such blocks, at the start
    of each iteration of its loops and after the loops.

    Returns:
        The marked template; None if there is no safe place for marks.

    Raises:
        TokenizerError: the source is not valid Jinja.
    """
    parts = list(lex_template(source))
    if any(part.kind == "block" and part.word == "generation" for part in parts):
        return MarkedTemplate("".join(_mark_generation(parts)), has_generation=True)
    counted: list[str] = []
    marked = "".join(_mark_loops(parts, counted, runs_over_messages=not rebinds_messages(source)))
    if MARK_START not in marked:
        return None
    counted_loop = counted[0] if len(counted) == 1 else ""
    return MarkedTemplate(marked, calls_index_function=f"{INDEX_FUNCTION}(" in marked, counted_loop=counted_loop)


def index_function_source(column: str | None) -> str:
    """Return `sftkit_index` as Jinja source.

    The function returns the index of the first message that equals its argument, or -1.

    Args:
        column: the column of the messages, for templates that take a whole row as `messages`.
    """
    messages = "messages" if column is None else f"messages[{jinja_string(column)}]"
    known = "message is mapping and message in sftkit_messages"
    return (
        f"{{% set sftkit_messages = {messages} %}}{{% macro {INDEX_FUNCTION}(message) %}}"
        f"{{{{ sftkit_messages.index(message) if {known} else -1 }}}}{{% endmacro %}}"
    )


def split_iterations(rendered: str, loop: str) -> tuple[str, list[int]] | None:
    """Split the output of a template with a counted loop.

    Returns:
        The text without marks, and the positions at which the iterations start, followed by the end of the last one;
        None if other loops wrote marks, or this loop did not run exactly once. Then use `split_marks`.
    """
    before, *iterations = rendered.split(f"{MARK_START}{loop}{MARK_END}")
    if not iterations or rendered.count(MARK_START) != len(iterations) + 1:
        return None
    last, _, after = iterations[-1].partition(f"{MARK_START}/{loop}{MARK_END}")
    iterations[-1] = last
    return "".join([before, *iterations, after]), list(accumulate(map(len, iterations), initial=len(before)))


def split_marks(rendered: str) -> tuple[str, list[MarkedBlock]]:
    """Return the text of a marked rendering without marks, and the marked blocks, ordered by their start."""
    first, *marked = rendered.split(MARK_START)
    texts = [first]
    length = len(first)
    iterations: dict[str, int] = {}
    open_blocks: dict[str, tuple[int, int, bool]] = {}
    blocks: list[MarkedBlock] = []
    for piece in marked:
        mark, _, text = piece.partition(MARK_END)
        loop, _, index = mark.removeprefix("/").partition(":")
        if loop in open_blocks:
            start, message, exact = open_blocks.pop(loop)
            blocks.append(MarkedBlock(start, length, message, loop, exact))
        if mark.startswith("/"):
            iterations.pop(loop, None)
        elif index.startswith("="):
            open_blocks[loop] = (length, int(index[1:]), True)
        elif index:
            open_blocks[loop] = (length, int(index), False)
        else:
            iteration = iterations.get(loop, 0)
            iterations[loop] = iteration + 1
            open_blocks[loop] = (length, iteration, True)
        texts.append(text)
        length += len(text)
    return "".join(texts), sorted(blocks)


def _mark_generation(parts: Sequence[TemplatePart]) -> Iterator[str]:
    for part in parts:
        if part.kind == "block" and part.word == "generation":
            yield _mark(_GENERATION_START)
        elif part.kind == "block" and part.word == "endgeneration":
            yield _mark(_GENERATION_END)
        else:
            yield part_source(part)


def _mark_loops(parts: Sequence[TemplatePart], counted: list[str], *, runs_over_messages: bool) -> Iterator[str]:
    """Yield the source of a template with marks in each loop over one variable.

    There are three kinds of marks. A loop over `messages` writes no index: its iterations are counted, and loops inside
    of it need no marks. A loop over indices (`for i in range(...)` with `messages[i]` inside) writes the index. Any
    other loop writes what `sftkit_index` returns for its variable.

    Args:
        parts: the parts of the template.
        counted: the names of counted loops are added to it.
        runs_over_messages: whether the name `messages` always means the conversation.
    """
    # For each open block: the name of its loop, if it is marked, and whether marks are allowed inside.
    stack: list[tuple[str, bool]] = []
    loops = 0
    for position, part in enumerate(parts):
        yield part_source(part)
        if part.kind != "block":
            continue
        if part.word.startswith("end") and stack:
            loop, _ = stack.pop()
            if loop:
                yield _mark(f"/{loop}")
        elif _opens_block(part):
            head = _LOOP.fullmatch(part.text)
            is_marked = head is not None and all(allowed for _, allowed in stack) and _may_write(parts, position)
            loop, loops = (str(loops), loops + 1) if is_marked else ("", loops)
            is_counted = is_marked and head is not None and runs_over_messages and head[2].strip() == _MESSAGES
            if is_counted:
                counted.append(loop)
                yield _mark(loop)
            elif is_marked and head is not None and _runs_over_indices(parts, head):
                yield f'{{{{ "{MARK_START}{loop}:=" ~ {head[1]} ~ "{MARK_END}" }}}}'
            elif is_marked and head is not None:
                yield f'{{{{ "{MARK_START}{loop}:" ~ {INDEX_FUNCTION}({head[1]}) ~ "{MARK_END}" }}}}'
            stack.append((loop, not is_counted and part.word not in _CAPTURING))


def _runs_over_indices(parts: Sequence[TemplatePart], head: re.Match[str]) -> bool:
    """Return whether the variable of a loop is an index into `messages`."""
    use = re.compile(rf"\b{_MESSAGES}\s*\[\s*{head[1]}\s*\]")
    return head[2].lstrip().startswith("range") and any(use.search(part.text) for part in parts if part.kind != "data")


def _may_write(parts: Sequence[TemplatePart], position: int) -> bool:
    """Return whether the loop that starts at a position may write anything."""
    depth = 0
    for part in parts[position:]:
        if part.kind != "block" or part.word not in _SILENT:
            return True
        depth += (part.word == "for") - (part.word == "endfor")
        if depth == 0:
            return False
    return True


def _mark(text: str) -> str:
    return literal_source(f"{MARK_START}{text}{MARK_END}")


def _opens_block(part: TemplatePart) -> bool:
    if part.word == "set":
        # `{% set x %}...{% endset %}` is a block that captures output, `{% set x = ... %}` is not a block.
        return "=" not in re.sub(r"==|!=|<=|>=", "", part.text.split("|")[0])
    return part.word in _BLOCKS
