"""What sets two chat templates, or two tokenizers, apart: the first of it, in a few lines."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile, zip_longest
from typing import TYPE_CHECKING, Any

from sftkit.tokenization.tokenizer_loading import backend_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LINES = 8  # of a difference
_COMPARED = 200  # lines from the first that differs: difflib takes their square
_WIDTH = 100  # characters of a line
_BEFORE = 30  # of them in front of the first that differs
_TOKENS = 3


def template_text(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template in force, as text: of several that have names, their JSON. None where there is none."""
    template: Any = tokenizer.chat_template
    return json.dumps(template, sort_keys=True, indent=1) if isinstance(template, dict) else template


def template_difference(theirs: str, ours: str) -> list[str]:
    """A short unified diff of two chat templates, from the first line that differs.

    Long lines are cut to where they differ; what a terminal would obey is escaped.
    """
    old, new = theirs.splitlines(), ours.splitlines()
    if old == new:
        return ["the same lines; they end differently"]
    same = next(place for place, (a, b) in enumerate(zip_longest(old, new)) if a != b)
    first = max(same - 1, 0)
    lines = list(
        difflib.unified_diff(old[first : first + _COMPARED], new[first : first + _COMPARED], n=1, lineterm="")
    )[3:]  # without the names of the files and the place of the first part
    part = list(takewhile(lambda line: not line.startswith("@@"), lines))[:_LINES]
    shown = (line for line in _clipped(part) if line.strip())
    return [f"line {same + 1}:", *shown, *(["..."] if len(part) < len(lines) else [])]


def tokenizer_difference(theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase) -> list[str]:
    """The first tokens that differ by id; where none does, the parts of the tokenizers that do."""
    old = {number: token for token, number in theirs.get_vocab().items()}
    new = {number: token for token, number in ours.get_vocab().items()}
    differing = sorted(number for number in old.keys() | new.keys() if old.get(number) != new.get(number))
    if differing:
        lines = [f"token {n}: {_token(old.get(n))} there, {_token(new.get(n))} here" for n in differing[:_TOKENS]]
        more = len(differing) - len(lines)
        return [*lines, *([f"... and {more:,} more"] if more else [])]
    lines = [
        f"{name}: {there!r} there, {here!r} here"
        for name in sorted({*theirs.special_tokens_map, *ours.special_tokens_map})
        if (there := theirs.special_tokens_map.get(name)) != (here := ours.special_tokens_map.get(name))
    ]
    parts = list(islice(_differing_parts(theirs, ours), _LINES))
    return [*lines, *([f"the same tokens, but not the same {', '.join(parts)}"] if parts else [])]


def _differing_parts(theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase) -> Iterator[str]:
    states = [json.loads(text) if (text := backend_json(each)) is not None else {} for each in (theirs, ours)]
    old, new = ({**state, **(state.get("model") or {}), "model": None} for state in states)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name


def _clipped(lines: Sequence[str]) -> Iterator[str]:
    """Lines of a diff, each cut to what differs from the line it is put in the place of."""
    removed = [line[1:] for line in lines if line.startswith("-")]
    added = [line[1:] for line in lines if line.startswith("+")]
    starts = [
        max(_alike(a, b) - _BEFORE, 0) if max(len(a), len(b)) > _WIDTH else 0
        for a, b in zip(removed, added, strict=False)
    ]
    seen = {"-": 0, "+": 0}
    for line in lines:
        mark, text = line[:1], line[1:]
        start = 0
        if mark in seen:
            start = starts[seen[mark]] if seen[mark] < len(starts) else 0
            seen[mark] += 1
        cut = f"{'…' if start else ''}{text[start : start + _WIDTH]}{'…' if len(text) > start + _WIDTH else ''}"
        yield mark + _printable(cut)


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip_longest(one, other))
    return next((place for place, (a, b) in pairs if a != b), len(one))


def _token(token: str | None) -> str:
    return "none" if token is None else repr(token)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
