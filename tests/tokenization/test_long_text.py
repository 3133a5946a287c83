"""Texts encoded in chunks have the same ids as texts encoded whole, and rows that are too long are refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from tokenizers import normalizers

from hard_texts import (
    BYTES,
    CONTRACTIONS,
    DIGITS,
    LINE_ENDS,
    MARKS,
    PIECES,
    SPACES,
    SPECIALS,
    WORDS,
    assert_same_ids,
    assert_same_masks,
    corpus,
    some_spans,
    split,
    steps,
    tokenizer_of,
)
from sftkit.core.row_log import RowError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.encoding import chunked_encoder, encodable
from sftkit.tokenization.encoding.chunked_encoder import ChunkedEncoder, TextChunker
from sftkit.tokenization.encoding.fast import split_patterns
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.engines import EnginePolicy, UnsupportedByEngineError
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from sftkit.tokenization.masking.turns.turn_checks import check_conversation_size
from support import EFFORT, examples

PLAIN = [
    "word",
    "Word",
    "two words",
    "中文",
    "字，字。",
    "。\n中",
    ".\nWord",
    "x\nWord",
    "9 a",
    "9\na",
    "/\nA",
    "' s",
    "'\nll",
]


def odd_texts() -> list[str]:
    """Return texts of words with unusual characters between them; SFTKIT_EXAMPLES scales their number."""
    chance = random.Random(7)
    pools = [PLAIN, PLAIN, PLAIN, [" "], ["\n"], LINE_ENDS, SPACES, MARKS, SPECIALS, CONTRACTIONS, PIECES]
    lengths = [chance.randint(5, 80) for _ in range(examples(500))]
    return ["".join(chance.choice(chance.choice(pools)) for _ in range(length)) for length in lengths]


@pytest.fixture
def chunked_and_whole(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], tuple[ChunkedEncoder, ReferenceEncoder]]:
    monkeypatch.setattr(chunked_encoder, "MIN_CHUNK_CHARACTERS", 1)  # cut wherever it is allowed

    def make(tokenizer: Any) -> tuple[ChunkedEncoder, ReferenceEncoder]:
        whole = ReferenceEncoder(tokenizer)
        return ChunkedEncoder(tokenizer, whole), whole

    return make


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("splits", "normalizer"),
    [
        ([WORDS], None),
        ([DIGITS, WORDS], None),
        *(([split(pattern), BYTES], None) for pattern in sorted(split_patterns.KNOWN_PATTERNS)),
        ([*map(split, split_patterns.DEEPSEEK_PATTERNS), BYTES], normalizers.NFC()),
    ],
)
def test_cutting_a_text_does_not_change_its_ids(
    all_pairs: Any, state_of: Any, chunked_and_whole: Any, splits: list[Any], normalizer: Any
) -> None:
    backend = all_pairs.backend_tokenizer
    backend.pre_tokenizer = tokenizer_of(state_of("bpe"), steps(*splits)).backend_tokenizer.pre_tokenizer
    backend.normalizer = normalizer
    chunked, whole = chunked_and_whole(all_pairs)
    texts = [*odd_texts(), *corpus()[8:]]
    cuts = sum(len(chunked._chunker.bounds(text)) - 2 for text in texts if len(text) > 1)
    assert cuts > 1000 * EFFORT
    assert_same_ids(chunked, whole, texts)


@pytest.mark.parametrize("name", ["bpe", "bos_eos", "sample:model", "qwen3", "granite"])
def test_ids_masks_and_truncation_equal_those_of_the_whole_text(loaded: Any, chunked_and_whole: Any, name: str) -> None:
    chunked, whole = chunked_and_whole(loaded(name))
    odd = odd_texts()[: examples(150)]
    assert_same_masks(chunked, whole, corpus()[8:], some_spans()[8:])
    assert_same_masks(chunked, whole, odd, [[(1, len(text) // 2)] for text in odd], False)
    for length in (2, 5, 40):
        assert_same_ids(chunked, whole, odd, limit=length)


def test_a_text_is_truncated_on_the_side_of_the_tokenizer(
    loaded: Any, chunked_and_whole: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(loaded("bos_eos"), "truncation_side", "left")
    assert_same_ids(*chunked_and_whole(loaded("bos_eos")), odd_texts()[:100], limit=7)


@pytest.mark.parametrize(
    ("content", "options"),
    [("end", {}), (" word", {}), ("x\nWo", {}), ("Wo", {"lstrip": True}), ("9", {"rstrip": True})],
)
def test_added_tokens_and_the_space_next_to_them_are_not_cut(
    state_of: Any, chunked_and_whole: Any, content: str, options: Any
) -> None:
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    state = state_of("bpe")
    state["added_tokens"].append({"id": 5000, "content": content, **token, **options})
    assert_same_ids(*chunked_and_whole(tokenizer_of(state)), [*odd_texts(), f"the {content} word end 9 word\nWord"])


@pytest.mark.parametrize(
    "change", [("normalizer", {"type": "Lowercase"}), ("pre_tokenizer", BYTES), ("model.dropout", 0.5)]
)
def test_unsupported_tokenizers_are_refused(state_of: Any, loaded: Any, change: tuple[str, Any]) -> None:
    with pytest.raises(UnsupportedByEngineError):
        TextChunker(tokenizer_of(state_of("bpe"), change))
    with pytest.raises(UnsupportedByEngineError):
        TextChunker(loaded("metaspace"))


def test_chunks_have_the_minimum_length_or_slightly_more(loaded: Any) -> None:
    text = "words and more words.\n" * 200_000
    bounds = TextChunker(loaded("bpe")).bounds(text)
    assert (bounds[0], bounds[-1]) == (0, len(text))
    assert all(0 <= stop - start - chunked_encoder.MIN_CHUNK_CHARACTERS < 10 for start, stop in pairwise(bounds[:-1]))
    assert TextChunker(loaded("bpe")).bounds("x" * len(text)) == [0, len(text)]


@pytest.mark.parametrize(("name", "text"), [("bpe", "x" * 120), ("metaspace", "one word and another " * 6)])
def test_a_long_text_that_cannot_be_cut_is_refused(
    tokenizer_path: Callable[[str], str], name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_encoder, "MIN_CHUNK_CHARACTERS", 20)
    monkeypatch.setattr(encodable, "MAX_CHUNK_CHARACTERS", 100)
    tokenizer = ChatTokenizer(
        ChatTokenizerSpec(
            TokenizerSpec(tokenizer_path(name)), "assistant", EnginePolicy(frozenset(), verify_fraction=0)
        )
    )
    assert tokenizer.check_encodable(text[:100]) == text[:100]
    with pytest.raises(RowError, match="must be encoded at once; the limit is 100: split the row"):
        tokenizer.check_encodable(text)
    if name == "bpe":
        assert tokenizer.check_encodable("one word and another " * 6)


def test_a_conversation_that_would_take_too_long_is_refused() -> None:
    turns = [{"role": ("user", "assistant")[place % 2], "content": "so"} for place in range(20_000)]
    check_conversation_size(turns[:5000])
    with pytest.raises(RowError, match="20,000 messages is too long for this chat template"):
        check_conversation_size(turns)
