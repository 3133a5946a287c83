"""The fast encoder compared with the reference, on difficult texts and tokenizers, and its verification."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from hard_texts import (
    BYTES,
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
    engines_of,
    some_spans,
    split,
    steps,
    tokenizer_of,
)
from sftkit.core.row_log import EngineDifferenceError
from sftkit.core.rows import Mask, Ragged
from sftkit.tokenization.encoding.fast import split_patterns
from sftkit.tokenization.encoding.fast.byte_level import BYTE_CHARACTERS
from sftkit.tokenization.encoding.fast.character_classes import COMPOSABLE, PLAIN, UNSAFE, classify_characters
from sftkit.tokenization.encoding.fast.fast_encoder import FastEncoder
from sftkit.tokenization.encoding.fast.id_engines import GigatokenEngine, TokenizersEngine
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.encoding.spans import CharacterCounts, Span, tokens_in_spans_by_count
from sftkit.tokenization.encoding.surrounding_tokens import SurroundingTokens
from sftkit.tokenization.engines import UnsupportedByEngineError
from sftkit.tokenization.loading.tokenizer_identity import backend_json
from sftkit.tokenization.verification import VerificationSampler, VerifiedEncoder
from support import ALL_TOKENIZERS, OWN_TOKENIZERS


@pytest.fixture(scope="module")
def engines(loaded: Any) -> Callable[[str], tuple[FastEncoder, ReferenceEncoder]]:
    return cache(lambda name: engines_of(loaded(name)))


@pytest.fixture(params=ALL_TOKENIZERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_ids_and_masks_equal_those_of_the_reference(engines: Any, name: str) -> None:
    assert_same_masks(*engines(name), corpus()[::2], some_spans()[::2])
    assert_same_masks(*engines(name), corpus()[3::6], some_spans()[3::6], False)
    assert_same_ids(*engines(name), corpus()[1::2], add_special_tokens=True)
    assert_same_ids(*engines(name), corpus()[2::6], add_special_tokens=False)
    assert_same_masks(*engines(name), [], [])


@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_are_truncated_like_the_reference_does(
    loaded: Any, engines: Any, name: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = loaded(name)
    fast, reference = engines(name)
    if side == "left":
        monkeypatch.setattr(tokenizer, "truncation_side", side)
        fast = FastEncoder(tokenizer, TokenizersEngine(tokenizer, reference), reference)
    for length in (1, 2, 5, None):
        assert_same_ids(fast, reference, corpus()[10::16], limit=length)
    assert_same_ids(fast, reference, corpus()[10::16], limit=2, add_special_tokens=False)


@pytest.mark.parametrize("name", OWN_TOKENIZERS)
def test_gigatoken_encodes_with_every_small_tokenizer(engines: Any, name: str) -> None:
    assert engines(name)[0].name == "gigatoken"
    assert engines(name)[0].locates_spans_by_count == (name != "metaspace")


@pytest.mark.slow
def test_a_text_of_5_mb_has_the_ids_of_the_reference(loaded: Any, engines: Any) -> None:
    tokens = sorted(loaded("sample:model").get_vocab(), key=len)[-90:] * 20
    words = [token.replace("Ġ", " ") for token in tokens] + PIECES + LINE_ENDS + SPACES
    text = "".join(random.Random(3).choices(words, k=520_000))
    assert len(text.encode()) > 5_000_000
    assert_same_ids(*engines("sample:model"), [text])


@st.composite
def text_and_spans(draw: st.DrawFn) -> tuple[str, list[Span]]:
    odd = st.sampled_from([*MARKS, *PIECES, *SPECIALS, *SPACES, *LINE_ENDS])
    text = "".join(draw(st.lists(st.one_of(st.text(max_size=6), odd), max_size=6)))
    edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return text, list(zip(edges[::2], edges[1::2], strict=False))


@pytest.mark.parametrize("name", ["bos_eos", "metaspace", "nfc"])
@settings(max_examples=40)
@given(rows=st.lists(text_and_spans(), max_size=4))
def test_masks_of_random_texts_and_spans_equal_those_of_the_reference(
    engines: Any, composing: Any, name: str, rows: list[tuple[str, list[Span]]]
) -> None:
    pair = composing if name == "nfc" else engines(name)
    texts, spans = [text for text, _ in rows], [spans for _, spans in rows]
    assert_same_masks(*pair, texts, spans)
    assert_same_ids(*pair, texts, limit=3)


@pytest.fixture(scope="module")
def composing(state_of: Any) -> tuple[FastEncoder, ReferenceEncoder]:
    pair = engines_of(tokenizer_of(state_of("bpe"), ("normalizer", {"type": "NFC"})))
    assert (pair[0].name, pair[0].locates_spans_by_count) == ("gigatoken", True)
    return pair


def test_ids_and_masks_of_composed_texts_equal_those_of_the_reference(composing: Any) -> None:
    assert_same_ids(*composing, corpus())
    assert_same_masks(*composing, corpus(), some_spans())


[QWEN] = [pattern for pattern in split_patterns.KNOWN_PATTERNS if r"]?\p{L}+|\p{N}| " in pattern]
SPLITS, NORMALIZES = "splits text in an unknown way", "normalizes text in an unknown way"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("model.end_of_word_suffix", "</w>"), "has end_of_word_suffix"),
        (("model.continuing_subword_prefix", "##"), "has continuing_subword_prefix"),
        (("model.type", "WordPiece"), "is WordPiece, not BPE"),
        (("model.type", "WordLevel"), "is WordLevel, not BPE"),
        (("added_tokens.3.single_word", True), "depends on the text next to the added token '<|im_start|>'"),
        (("added_tokens.3.normalized", True), "finds added tokens in normalized text"),
        (("normalizer", {"type": "Lowercase"}), NORMALIZES),
        (("normalizer", {"type": "NFKC"}), NORMALIZES),
        (("normalizer", {"type": "NFD"}), NORMALIZES),
        (("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}]}), NORMALIZES),
        (steps(split(QWEN, "Removed"), BYTES), SPLITS),
        (steps(split(QWEN, "MergedWithPrevious"), BYTES), SPLITS),
        (steps(split(QWEN, "Isolated", True), BYTES), SPLITS),
        (steps(split(r"\w+|\W"), BYTES), SPLITS),
        (steps(split(QWEN), WORDS), SPLITS),
        (steps(DIGITS, WORDS), SPLITS),
        (steps(WORDS, DIGITS), SPLITS),
        (("pre_tokenizer", BYTES), SPLITS),
        (("pre_tokenizer", {**WORDS, "add_prefix_space": True}), SPLITS),
        (("pre_tokenizer", None), SPLITS),
    ],
)
def test_gigatoken_refuses_tokenizers_with_which_it_may_differ(
    state_of: Any, change: tuple[str, Any], reason: str
) -> None:
    state = state_of("bpe")
    if change[0].startswith("model."):  # merges would need other names for their results
        state["model"].update(merges=[], unk_token="<unk>", max_input_chars_per_word=100)
        if change[1] == "WordPiece":
            state["model"]["continuing_subword_prefix"] = "##"
    tokenizer = tokenizer_of(state, change)
    with pytest.raises(UnsupportedByEngineError, match=re.escape(reason)):
        GigatokenEngine(tokenizer, backend_json(tokenizer))
    fast, reference = engines_of(tokenizer)
    assert fast.name == "tokenizers"
    assert_same_ids(fast, reference, corpus()[10::6])
    assert_same_masks(fast, reference, corpus()[10::6], some_spans()[10::6])


def test_gigatoken_refuses_dropout_and_split_special_tokens(state_of: Any) -> None:
    dropping, splitting = tokenizer_of(state_of("bpe"), ("model.dropout", 0.1)), tokenizer_of(state_of("bpe"))
    with pytest.raises(UnsupportedByEngineError, match="has dropout"):
        GigatokenEngine(dropping, backend_json(dropping))
    for owner, setting in ((splitting, "split_special_tokens"), (splitting.backend_tokenizer, "encode_special_tokens")):
        setattr(owner, setting, True)
        with pytest.raises(UnsupportedByEngineError, match="splits special tokens"):
            GigatokenEngine(splitting, backend_json(splitting))
        assert_same_masks(*engines_of(splitting), corpus()[10::6], some_spans()[10::6])
        setattr(owner, setting, False)


def test_ids_and_masks_of_a_unigram_model_over_bytes_equal_those_of_the_reference(state_of: Any) -> None:
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], *([letter, -1.0] for letter in BYTE_CHARACTERS)]}
    fast, reference = engines_of(tokenizer_of(state_of("bpe"), ("model", model)))
    assert_same_masks(fast, reference, corpus()[10::6], some_spans()[10::6])


@pytest.mark.parametrize(("form", "text"), [("NFD", "é <|im_start|>ab"), ("NFKC", "½  <|im_start|>ab")])
def test_characters_added_by_a_normalizer_do_not_hide_characters_removed_by_a_token(
    state_of: Any, form: str, text: str
) -> None:
    swallowing = tokenizer_of(state_of("bpe"), ("normalizer", {"type": form}), ("added_tokens.3.lstrip", True))
    assert_same_masks(*engines_of(swallowing), [text], [[(0, 1)]])


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("splits", "normalizer"),
    [
        ([], None),
        *(([split(pattern)], None) for pattern in sorted(split_patterns.KNOWN_PATTERNS)),
        ([split(QWEN, "Removed", True)], normalizers.NFC()),
        ([*map(split, split_patterns.DEEPSEEK_PATTERNS)], None),
    ],
)
def test_texts_are_split_like_the_reference_does(
    all_pairs: Any, state_of: Any, splits: list[Any], normalizer: Any
) -> None:
    way = steps(*splits, BYTES) if splits else ("pre_tokenizer", WORDS)
    like = tokenizer_of(state_of("bpe"), way).backend_tokenizer
    all_pairs.backend_tokenizer.pre_tokenizer = like.pre_tokenizer
    all_pairs.backend_tokenizer.normalizer = normalizer
    fast, reference = engines_of(all_pairs)
    assert fast.name == "gigatoken"
    assert_same_ids(fast, reference, corpus()[8:])


@pytest.mark.parametrize(
    ("name", "prefix", "suffix"), [("bpe", [], []), ("bos", [1], []), ("bos_eos", [1], [2]), ("metaspace", [1], [])]
)
def test_surrounding_tokens_are_learned(engines: Any, name: str, prefix: list[int], suffix: list[int]) -> None:
    surrounding = SurroundingTokens.learn(engines(name)[1])
    assert (surrounding.prefix.tolist(), surrounding.suffix.tolist()) == (prefix, suffix)
    assert surrounding.count == len(prefix) + len(suffix)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda ids: [1, *ids] if ids else ids, id="nothing around an empty text"),
        pytest.param(lambda ids: [len(ids), *ids], id="its length before it"),
        pytest.param(lambda ids: [*ids[:1], 99, *ids[1:]], id="something inside of it"),
        pytest.param(lambda ids: ids[:1], id="less than it"),
    ],
)
def test_surrounding_tokens_that_depend_on_the_text_are_refused(wrap: Callable[[list[int]], list[int]]) -> None:
    def encode(texts: Sequence[str], add_special_tokens: bool = True) -> Ragged:
        bare = [[ord(character) for character in text] for text in texts]
        return Ragged.from_lists([wrap(ids) if add_special_tokens else ids for ids in bare])

    with pytest.raises(UnsupportedByEngineError, match="around every text"):
        SurroundingTokens.learn(SimpleNamespace(encode=encode))  # type: ignore[arg-type]


def test_the_class_of_a_text_is_the_highest_of_its_characters() -> None:
    table = {
        PLAIN: ["", "the cat\n\x00", "Grüße", "中文 かな 한국어", "😀👍🏽", "Русский", "“a” – €"],
        COMPOSABLE: ["e\u0301", "\u0323", "क\u093c", "か\u3099", "\u1100\u1161", "\u2126", "👩\u200d🚀", "\ue000"],
        UNSAFE: ["\u088f", "a\u0897", "\ua7ce", "\U000323b0", "\u0898", "中e\u0301\U00010d24", "\U0001e2ae"],
    }
    texts = [(text, expected_class) for expected_class, some in table.items() for text in some]
    random.Random(5).shuffle(texts)
    assert classify_characters([text for text, _ in texts]).tolist() == [expected_class for _, expected_class in texts]


def test_composition_does_not_change_plain_characters() -> None:
    every = [chr(point) for point in range(0x30000) if not 0xD800 <= point < 0xE000]
    plain = {
        character
        for character, expected_class in zip(every, classify_characters(every), strict=True)
        if expected_class == PLAIN
    }
    assert len(plain) > 30_000
    assert {c for c in plain if unicodedata.normalize("NFC", c) != c or unicodedata.combining(c)} == set()
    decomposed = [unicodedata.decomposition(c).split() for c in every]
    seconds = {chr(int(parts[1], 16)) for parts in decomposed if len(parts) == 2 and parts[0][0] != "<"}
    seconds |= {chr(point) for point in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    assert plain & seconds == set()
    text = "".join(sorted(plain))
    assert normalizers.NFC().normalize_str(text) == text


def test_gigatoken_is_replaced_when_it_has_grown(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sftkit.tokenization.encoding.fast import id_engines

    held, load = itertools.count(0, 50 << 20), id_engines._load
    made: list[Any] = []

    def loading(state: str) -> Any:
        made.append(load(state))
        return made[-1]

    monkeypatch.setattr(id_engines, "resident_bytes", lambda: next(held))
    monkeypatch.setattr(id_engines, "_load", loading)
    tokenizer = loaded("bpe")
    engine, texts = GigatokenEngine(tokenizer, backend_json(tokenizer)), corpus()[10:60]
    expected = ReferenceEncoder(tokenizer).encode(texts, add_special_tokens=False).values.tolist()
    assert [engine.ids(texts).values.tolist() for _ in range(6)] == [expected] * 6
    assert len(made) == 1 + 3
    assert len(engine.vocabulary()) == len(tokenizer)


@st.composite
def cut_text(draw: st.DrawFn) -> tuple[str, list[bytes], list[Span]]:
    """Draw a text, its bytes cut at random, and spans of it."""
    text = draw(st.text(alphabet="ab é中😀", max_size=8))
    data = text.encode()
    cuts = sorted(draw(st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=12)) & set(range(1, len(data))))
    tokens = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]
    edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return text, tokens, list(zip(edges[::2], edges[1::2], strict=False))


@settings(max_examples=150)
@given(rows=st.lists(cut_text(), max_size=4))
def test_spans_by_count_contain_the_tokens_with_any_of_their_bytes(
    rows: list[tuple[str, list[bytes], list[Span]]],
) -> None:
    vocabulary = sorted({b"?", *(token for _, tokens, _ in rows for token in tokens)})
    begins = [[byte & 0xC0 != 0x80 for byte in token] for token in vocabulary]
    counts = CharacterCounts(np.array([sum(b) for b in begins], np.int64), np.array([not b[0] for b in begins]))
    expected = []
    for text, tokens, spans in rows:
        character_of = [at for at, character in enumerate(text) for _ in character.encode()]
        for token in tokens:
            mine, character_of = character_of[: len(token)], character_of[len(token) :]
            expected.append(any(start <= at < end for at in mine for start, end in spans))
    ids = Ragged.from_lists([[vocabulary.index(token) for token in tokens] for _, tokens, _ in rows])
    assert tokens_in_spans_by_count(ids, counts, [spans for _, _, spans in rows]).tolist() == expected


class WrongEncoder:
    """Gives a wrong id, or a wrong mask, for the last token of one text."""

    name = "wrong"

    def __init__(self, right: FastEncoder, row: int) -> None:
        self._right, self._row = right, row

    def encode(self, texts: Sequence[str], **how: Any) -> Ragged:
        ids = self._right.encode(texts, **how)
        ids.values[ids.offsets[self._row + 1] - 1] += 1
        return ids

    def encode_spans(self, texts: Sequence[str], spans: Any, **how: Any) -> tuple[Ragged, Mask]:
        ids, inside = self._right.encode_spans(texts, spans, **how)
        inside[ids.offsets[self._row + 1] - 1] ^= True
        return ids, inside


ROWS = ["one", "", "two words", "the cat sat"]
WHOLE = [[(0, len(text))] for text in ROWS]


@pytest.mark.parametrize("row", [0, 2, 3])
@pytest.mark.parametrize("ids", [True, False])
def test_a_wrong_id_or_mask_is_found_with_the_index_of_its_text(engines: Any, row: int, ids: bool) -> None:
    fast, reference = engines("bos_eos")
    verified = VerifiedEncoder(WrongEncoder(fast, row), reference, VerificationSampler(0))
    with pytest.raises(EngineDifferenceError) as found:
        _ = verified.encode(ROWS) if ids else verified.encode_spans(ROWS, WHOLE, add_special_tokens=True)
    assert (found.value.engine, found.value.index, found.value.sample) == ("encoder", row, ROWS[row])


def test_equal_ids_and_masks_are_returned(engines: Any) -> None:
    fast, reference = engines("bos_eos")
    verified = VerifiedEncoder(fast, reference, VerificationSampler(1))
    assert verified.name == "gigatoken"
    assert_same_ids(verified, reference, ROWS, limit=3)
    assert_same_masks(verified, reference, ROWS, WHOLE)


def test_a_row_that_is_not_sampled_is_not_compared(engines: Any) -> None:
    fast, reference = engines("bpe")
    VerifiedEncoder(WrongEncoder(fast, 8), reference, VerificationSampler(0)).encode(["x"] * 9)
    with pytest.raises(EngineDifferenceError):
        VerifiedEncoder(WrongEncoder(fast, 7), reference, VerificationSampler(0)).encode(["x"] * 9)


@pytest.mark.parametrize(("fraction", "others"), [(0, 0), (0.01, 10), (0.1, 100), (0.37, 370), (1, 1000)])
def test_the_first_rows_of_a_unit_and_a_fraction_of_the_others_are_verified(fraction: float, others: int) -> None:
    sampler = VerificationSampler(fraction)
    for _ in range(3):
        sampler.start_unit()
        assert [sampler.take_next() for _ in range(8)] == [True] * 8
        assert sum(sampler.take_next() for _ in range(1000)) == pytest.approx(others, abs=9)
