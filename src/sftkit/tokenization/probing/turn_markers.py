"""Finds turn markers of a chat template that are no tokens of the tokenizer, such as those of ChatML on a base model.

A marker that is split into several tokens is text to the model: it has to learn the pieces, and cannot stop at one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkit.core.row_log import RowError
from sftkit.errors import TokenizerError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.loading.special_tokens import special_tokens
from sftkit.tokenization.probing.turn_format import PROBE_CONTENT, learn_turn_format, render_question
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Names in angle brackets that are text elsewhere, such as XML tags, do not count without a bar.
_NAMES = (
    r"/?s|bos|eos|pad|unk|eot|eod|endoftext|start_of_turn|end_of_turn|end_of_utterance|start_of_role|end_of_role"
    r"|(?:unused|extra_id_|reserved_|SPECIAL_)\d+"
)
_MARKER = re.compile(
    rf"<[|｜][^\s<>]{{1,40}}>|<[^\s<>|｜]{{1,40}}[|｜]>|\[\|[^\s\[\]]{{1,40}}\|\]|(?<!<)<(?:{_NAMES})>(?!>)"
)
_BAR = re.compile(r"<[|｜]|[|｜]>|\[\||\|\]")
_LIKE = Conversation([{"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE_CONTENT}])


@dataclass(frozen=True)
class SplitMarkers:
    """Turn markers of a template that the tokenizer splits."""

    markers: tuple[str, ...]
    """All of them, in the order in which a conversation has them."""
    stop: str | None
    """The one that ends an answer; None if that is a token."""


def find_split_markers(tokenizer: PreTrainedTokenizerBase, *, is_own_template: bool) -> SplitMarkers | None:
    """Return the turn markers that are no tokens of the tokenizer; None if there are none.

    Only texts with the shape of a special token count, not headers in words (`USER:`, `### Response:`). The headers of
    a tokenizer's own template are right as they are if its turns end with a token: its model was trained with them.

    Args:
        tokenizer: a tokenizer with a chat template.
        is_own_template: whether the template came with the tokenizer.
    """
    tokens = set(special_tokens(tokenizer)) | set(tokenizer.get_added_vocab())
    renderer = ReferenceRenderer(tokenizer)
    try:
        source = renderer.source(with_tools=False)
        if _all_are_tokens(source, tokens):
            return None
        turns = learn_turn_format(renderer, source, _LIKE)
        if turns is None:
            return None
        question = render_question(renderer, source, _LIKE.first_messages(0), _LIKE)
    except (RowError, TokenizerError):
        return None  # the run will say what is wrong
    split = {marker for text in turns.turns for marker in _split_markers(text, tokens, tokenizer)}
    stops = [stop for tail in turns.tails if (stop := _first_if_split(tail, split, tokens)) is not None]
    stop = stops[0] if stops else None
    if stop is None and is_own_template:
        return None
    texts = (question or "", turns.prompt or "", *turns.turns)
    markers = dict.fromkeys(marker for text in texts for marker in _split_markers(text, tokens, tokenizer))
    return SplitMarkers(tuple(markers), stop) if markers else None


def _all_are_tokens(source: str, tokens: set[str]) -> bool:
    """Whether everything in a template's source that looks like a marker is a token: most templates need no probes."""
    rest = _MARKER.sub(lambda match: "" if match[0] in tokens else match[0], source)
    return _MARKER.search(rest) is None and _BAR.search(rest) is None


def _split_markers(text: str, tokens: set[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    for marker in _MARKER.findall(text):
        if marker not in tokens and len(tokenizer.encode(marker, add_special_tokens=False)) != 1:
            yield marker


def _first_if_split(tail: str, split: set[str], tokens: set[str]) -> str | None:
    """Return the marker that ends a turn if it is split; None if a token ends it before."""
    found = [(position, marker) for marker in split if (position := tail.find(marker)) >= 0]
    first = min(found, default=None)
    if first is None or any(0 <= tail.find(token) < first[0] for token in tokens if token):
        return None
    return first[1]
