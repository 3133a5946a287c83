"""Makes a straight-line Python function of a trace."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sftkit.tokenization.templates.recording import Mark, Part, Program, Variable
from sftkit.tokenization.tracing.trace import Trace

_NAME = re.compile(r"\bv\d+\b")


def content_name(message: int) -> str:
    """Return the variable of a program that holds the content of a message."""
    return f"c{message}"


def make_program(
    trace: Trace, count: int, written: Sequence[Sequence[Part]], marks: Sequence[Mark], functions: Mapping[str, Any]
) -> Program:
    """Make a program of a trace.

    Args:
        trace: its steps compute what is written from the contents, whose names are those of `content_name`.
        count: how many messages the conversation has.
        written: the parts of each text that the template wrote.
        marks: the marks between these texts.
        functions: functions that the steps call.
    """
    pieces, places = _merged(written, {place for place, _, _ in marks})
    contents = [content_name(message) for message in range(count)]
    variables = {part.name for part in pieces if isinstance(part, Variable)}
    lines = [
        "def run(contents):",
        f"    {''.join(f'{name}, ' for name in contents)} = contents",
        *_statements(trace, variables),
        f"    return [{', '.join(part.name if isinstance(part, Variable) else repr(part) for part in pieces)}]",
    ]
    names: dict[str, Any] = dict(functions)
    exec("\n".join(lines), names)
    return Program(
        names["run"],
        tuple(pieces),
        tuple((places[place], loop, message) for place, loop, message in marks),
        _unwritten(trace, variables, contents),
        tuple(trace.steps),
    )


def _merged(written: Sequence[Sequence[Part]], marked: set[int]) -> tuple[list[Part], list[int]]:
    """Return the pieces of a text, neighbouring constant ones joined, and where each written text starts among them."""
    pieces: list[Part] = []
    places = []
    for index, parts in enumerate(written):
        if index in marked:
            pieces.append("")  # a piece must start here
        places.append(len(pieces) - (index in marked))
        for part in parts:
            if isinstance(part, str) and pieces and isinstance(pieces[-1], str):
                pieces[-1] += part
            else:
                pieces.append(part)
    return pieces, [*places, len(pieces)]


def _unwritten(trace: Trace, variables: set[str], contents: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of the contents that none of some variables depends on."""
    needed = set(variables)
    for name, source in reversed(trace.steps):
        if name in needed:
            needed.update(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return tuple(message for message, name in enumerate(contents) if name not in needed)


def _statements(trace: Trace, variables: set[str]) -> Iterator[str]:
    """Yield the steps of a trace as code, without values that nothing uses."""
    needed = set(variables)
    kept = []
    for name, source in reversed(trace.steps):
        if name is None or name in needed:
            kept.append((name, source))
            needed.update(_NAME.findall(source))
    for is_condition, steps in groupby(reversed(kept), lambda step: step[0] is None):
        if is_condition:
            yield f"    if not ({' and '.join(source for _, source in steps)}): return None"
        else:
            yield from (f"    {name} = {source}" for name, source in steps)
