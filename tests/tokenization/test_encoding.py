"""Ids and offsets compared with transformers, and tokens in spans compared with a simple loop."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.core.rows import Ragged
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.encoding.spans import TokensWithOffsets, tokens_in_spans
from sftkit.tokenization.loading.tokenizer_identity import fingerprint
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.masking.labels import labels_after_prefix, labels_from_mask
from support import ALL_TOKENIZERS, OWN_TOKENIZERS

TEXTS = [
    "The cat sat on the mat.",
    "",
    " ",
    "  leading and trailing  \n\n",
    "Grüße, 你好! 😀👩‍👩‍👧 e\u0301 ﬁ",
    "a</s>b<s>c<|im_end|>\n<|im_start|>assistant\n",
    "\t\tdef f(x):\r\n    return x\n",
    "ع\u200d\u0000�",
]


@pytest.fixture(params=ALL_TOKENIZERS)
def name(request: pytest.FixtureRequest, tokenizer_path: Callable[[str], str]) -> str:
    tokenizer_path(request.param)
    return str(request.param)


@pytest.fixture
def encoder(name: str, tokenizer_path: Callable[[str], str]) -> ReferenceEncoder:
    return ReferenceEncoder(load_tokenizer(TokenizerSpec(tokenizer_path(name))))


@pytest.fixture
def tokenizer(name: str, reference: Callable[[str], Any]) -> Any:
    return reference(name)


def lists(ids: Ragged) -> list[list[int]]:
    return [ids[row].tolist() for row in range(len(ids))]


def test_ids_are_those_of_the_tokenizer_called_text_by_text(encoder: ReferenceEncoder, tokenizer: Any) -> None:
    assert lists(encoder.encode(TEXTS)) == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert lists(encoder.encode(TEXTS, add_special_tokens=False)) == [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS
    ]


def test_truncation_is_that_of_the_tokenizer_and_affects_one_call_only(
    encoder: ReferenceEncoder, tokenizer: Any
) -> None:
    cut = [tokenizer(text, truncation=True, max_length=4)["input_ids"] for text in TEXTS]
    assert lists(encoder.encode(TEXTS, limit=4)) == cut
    whole = [tokenizer(text)["input_ids"] for text in TEXTS]
    assert lists(encoder.encode(TEXTS)) == whole


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_ids_with_offsets_are_the_same_ids(encoder: ReferenceEncoder, tokenizer: Any, add_special_tokens: bool) -> None:
    encoded = encoder.encode_with_offsets(TEXTS, add_special_tokens=add_special_tokens)
    assert lists(encoded.ids) == [tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"] for text in TEXTS]


def test_offsets_cover_every_character_in_order(encoder: ReferenceEncoder) -> None:
    texts = [text for text in TEXTS if text]
    encoded = encoder.encode_with_offsets(texts, add_special_tokens=False)
    for row, text in enumerate(texts):
        span = slice(encoded.ids.offsets[row], encoded.ids.offsets[row + 1])
        starts, ends = encoded.starts[span].tolist(), encoded.ends[span].tolist()
        assert starts == sorted(starts)
        assert ends == sorted(ends)
        covered = {at for start, end in zip(starts, ends, strict=True) for at in range(start, end)}
        # a normalizer (NFC) may merge a combining character with the one before
        assert covered >= {at for at, character in enumerate(text) if not unicodedata.combining(character)}


def test_no_texts_give_no_rows(encoder: ReferenceEncoder) -> None:
    assert len(encoder.encode([])) == 0
    assert len(encoder.encode_with_offsets([], add_special_tokens=True).ids) == 0


def test_fingerprints_depend_on_everything_that_changes_ids_and_on_nothing_else(
    tokenizer_path: Callable[[str], str],
) -> None:
    prints = {name: fingerprint(load_tokenizer(TokenizerSpec(tokenizer_path(name)))) for name in OWN_TOKENIZERS}
    assert len(set(prints.values())) == len(OWN_TOKENIZERS)
    for name in OWN_TOKENIZERS:
        used = load_tokenizer(TokenizerSpec(tokenizer_path(name)))
        ReferenceEncoder(used).encode(["a b c d e"], limit=2)
        assert fingerprint(used) == prints[name]
    added = load_tokenizer(TokenizerSpec(tokenizer_path("bpe"), added_special_tokens=("<|new|>",)))
    assert fingerprint(added) != prints["bpe"]


def naive_labels(ids: list[int], pairs: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[int]:
    """Train each token that shares a character with a span; appended tokens like the last token of the text."""
    trained = [any(max(start, s) < min(end, e) for s, e in spans) for start, end in pairs]
    last = len(pairs)
    while last and pairs[last - 1][1] == 0:
        last -= 1
    if 0 < last < len(pairs):
        trained[last:] = [trained[last - 1]] * (len(pairs) - last)
    return [token if loss else -100 for token, loss in zip(ids, trained, strict=True)]


@st.composite
def tokenized_text(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    """Draw the length of a text, what its tokens cover, with special tokens around them, and ordered disjoint spans."""
    length = draw(st.integers(0, 20))
    pairs, at = [(0, 0)] * draw(st.integers(0, 1)), 0
    while at < length:
        end = draw(st.integers(at + 1, length))
        pairs += [(at, end)] * draw(st.integers(1, 2))  # several tokens may be bytes of one character
        at = end
    pairs += [(0, 0)] * draw(st.integers(0, 2))
    edges = sorted(draw(st.lists(st.integers(0, length), max_size=6)))
    spans = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    return length, pairs, spans


@settings(max_examples=200)
@given(rows=st.lists(tokenized_text(), max_size=5))
def test_labels_from_spans_equal_those_of_a_loop_over_tokens(
    rows: list[tuple[int, list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    flat = [pair for _, pairs, _ in rows for pair in pairs]
    ids = Ragged.from_lists([range(10, 10 + len(pairs)) for _, pairs, _ in rows])
    edges = np.array(flat, np.int64).reshape(-1, 2)
    encoded = TokensWithOffsets(ids, edges[:, 0], edges[:, 1])
    inside = tokens_in_spans(encoded, [length for length, _, _ in rows], [spans for _, _, spans in rows])
    labels = labels_from_mask(ids, inside)
    assert lists(labels) == [naive_labels(list(range(10, 10 + len(pairs))), pairs, spans) for _, pairs, spans in rows]


@given(rows=st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 8)), max_size=6))
def test_labels_after_a_prefix_are_the_ids_after_it(rows: list[tuple[list[int], int]]) -> None:
    labels = labels_after_prefix(Ragged.from_lists([ids for ids, _ in rows]), np.array([n for _, n in rows], np.int64))
    assert lists(labels) == [[-100] * min(n, len(ids)) + ids[n:] for ids, n in rows]


@given(
    rows=st.lists(st.lists(st.integers(-100, 100), max_size=6), max_size=6),
    data=st.data(),
)
def test_ragged_rows_are_filtered_truncated_and_counted_like_lists(rows: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.from_lists(rows)
    assert lists(ragged) == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    keep = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    assert lists(ragged.filter(np.array(keep, np.bool_))) == [row for row, kept in zip(rows, keep, strict=True) if kept]
    limits = data.draw(st.lists(st.integers(0, 7), min_size=len(rows), max_size=len(rows)))
    cut = ragged.truncate(np.array(limits, np.int64))
    assert lists(cut) == [row[:limit] for row, limit in zip(rows, limits, strict=True)]
    assert ragged.count_per_row(ragged.values > 0).tolist() == [sum(value > 0 for value in row) for row in rows]
