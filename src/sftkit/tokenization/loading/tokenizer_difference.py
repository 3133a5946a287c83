"""Shows the first differences between two chat templates or two tokenizers in a few lines."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile, zip_longest
from typing import TYPE_CHECKING, Any

from sftkit.core.escape import escape_unprintable
from sftkit.tokenization.loading.tokenizer_identity import backend_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_LINES = 8
_MAX_COMPARED_LINES = 200
"""Lines after the first difference that are compared: the cost of difflib is quadratic."""
_LINE_WIDTH = 100
_CONTEXT = 30
"""Characters shown before the first difference in a line."""
_MAX_TOKENS = 3


def template_text(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the chat template in use as text, several named templates as JSON; None if there is none."""
    template: Any = tokenizer.chat_template
    return json.dumps(template, sort_keys=True, indent=1) if isinstance(template, dict) else template


def template_difference(theirs: str, ours: str) -> list[str]:
    r"""Return the lines of a short unified diff of two chat templates.

    Long lines are cut to the part that differs, and control characters are escaped.

    Example:
        >>> template_difference("a\nb", "a\nc")
        ['line 2:', ' a', '-b', '+c']
    """
    old, new = theirs.splitlines(), ours.splitlines()
    if old == new:
        return ["the same lines with different line ends"]
    same = next(index for index, (a, b) in enumerate(zip_longest(old, new)) if a != b)
    compared = slice(max(same - 1, 0), max(same - 1, 0) + _MAX_COMPARED_LINES)
    lines = list(difflib.unified_diff(old[compared], new[compared], n=1, lineterm=""))
    lines = lines[3:]  # without the file names and the position of the first part
    part = list(takewhile(lambda line: not line.startswith("@@"), lines))[:_MAX_LINES]
    shown = (line for line in _clipped(part) if line.strip())
    return [f"line {same + 1}:", *shown, *(["..."] if len(part) < len(lines) else [])]


def tokenizer_difference(theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase) -> list[str]:
    """Return lines with the first tokens that differ; if none do, the parts of the tokenizers that differ."""
    old = {number: token for token, number in theirs.get_vocab().items()}
    new = {number: token for token, number in ours.get_vocab().items()}
    differing = sorted(number for number in old.keys() | new.keys() if old.get(number) != new.get(number))
    if differing:
        lines = [f"token {n}: {_token(old.get(n))} there, {_token(new.get(n))} here" for n in differing[:_MAX_TOKENS]]
        more = len(differing) - len(lines)
        return [*lines, *([f"... and {more:,} more"] if more else [])]
    lines = [
        f"{name}: {there!r} there, {here!r} here"
        for name in sorted({*theirs.special_tokens_map, *ours.special_tokens_map})
        if (there := theirs.special_tokens_map.get(name)) != (here := ours.special_tokens_map.get(name))
    ]
    parts = list(islice(_differing_parts(theirs, ours), _MAX_LINES))
    return [*lines, *([f"the same tokens, but not the same {', '.join(parts)}"] if parts else [])]


def _differing_parts(theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase) -> Iterator[str]:
    states = [json.loads(text) if (text := backend_json(each)) is not None else {} for each in (theirs, ours)]
    old, new = ({**state, **(state.get("model") or {}), "model": None} for state in states)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name


def _clipped(lines: Sequence[str]) -> Iterator[str]:
    """Cut each line of a diff to the part that differs from the line it replaces."""
    removed = [line[1:] for line in lines if line.startswith("-")]
    added = [line[1:] for line in lines if line.startswith("+")]
    starts = [
        max(_common_prefix_length(a, b) - _CONTEXT, 0) if max(len(a), len(b)) > _LINE_WIDTH else 0
        for a, b in zip(removed, added, strict=False)
    ]
    seen = {"-": 0, "+": 0}
    for line in lines:
        mark, text = line[:1], line[1:]
        start = 0
        if mark in seen:
            start = starts[seen[mark]] if seen[mark] < len(starts) else 0
            seen[mark] += 1
        end = start + _LINE_WIDTH
        yield mark + escape_unprintable(f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}")


def _common_prefix_length(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    pairs = enumerate(zip_longest(one, other))
    return next((index for index, (a, b) in pairs if a != b), len(one))


def _token(token: str | None) -> str:
    return "none" if token is None else repr(token)
