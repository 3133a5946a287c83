"""Texts -> flat ids, and where each token lies in its text. The reference engine: transformers' own `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sftkit.errors import TokenizerError
from sftkit.rows import Offsets, Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """Ids of a batch of texts with the characters each token covers.

    ids: the tokens, row by row. starts, ends: int64, shape (total tokens,): token t covers characters
    [starts[t], ends[t]) of its row's text; tokens that stand for no text (an added BOS) cover [0, 0).
    """

    ids: Ragged
    starts: Offsets
    ends: Offsets


class ReferenceEncoder:
    """Encodes as the tokenizer's own call does. Takes the tokenizer over: settings of its backend are changed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        _keep_whole_offsets(tokenizer)

    def encode(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> Ragged:
        """`tokenizer(text)["input_ids"]` of each text; `max_length` is in tokens."""
        if not texts:
            return Ragged.from_lists([])
        called = self._tokenizer(
            list(texts),
            add_special_tokens=add_special_tokens,
            truncation=truncation,
            max_length=max_length if truncation else None,
            return_attention_mask=False,
            verbose=False,
        )
        return Ragged.from_lists(called["input_ids"])

    def encode_with_offsets(self, texts: Sequence[str], *, add_special_tokens: bool) -> Encoded:
        """The same ids, and the characters of each token.

        Raises:
            TokenizerError: the tokenizer is a slow one, which knows no offsets.
        """
        if not self._tokenizer.is_fast:
            raise TokenizerError(
                f"{type(self._tokenizer).__name__} is a Python tokenizer without character offsets; "
                "masks need a fast tokenizer (a tokenizer.json)"
            )
        if not texts:
            nothing = np.zeros(0, np.int64)
            return Encoded(Ragged.from_lists([]), nothing, nothing)
        called = self._tokenizer(
            list(texts),
            add_special_tokens=add_special_tokens,
            return_attention_mask=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        ids = Ragged.from_lists(called["input_ids"])
        total = len(ids.values)
        pairs = np.fromiter(
            (edge for row in called["offset_mapping"] for pair in row for edge in pair), np.int64, 2 * total
        ).reshape(total, 2)
        return Encoded(ids, pairs[:, 0], pairs[:, 1])


def _keep_whole_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let offsets include the white space of a token.

    Byte-level post-processors may trim it (`trim_offsets`): a token that is white space only would then cover
    nothing, and could not be told to lie inside or outside of a span. The ids are not touched by this.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    state = json.loads(backend.to_str())
    if _untrim(state.get("post_processor")):
        from tokenizers import Tokenizer

        backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor


def _untrim(part: Any) -> bool:
    """Switch `trim_offsets` off wherever it stands in a serialised post-processor; True when it was on."""
    found = False
    if isinstance(part, dict):
        if part.get("trim_offsets"):
            part["trim_offsets"] = False
            found = True
        for value in part.values():
            found = _untrim(value) or found
    elif isinstance(part, list):
        for value in part:
            found = _untrim(value) or found
    return found
