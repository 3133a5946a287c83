"""MinHash signatures, bands and groups, compared with the similarities themselves on small sets."""

from __future__ import annotations

import random
import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.deduplication.banding import Banding
from sftkit.deduplication.minhash import MinHasher, Signatures, jaccard
from sftkit.deduplication.near_groups import first_of_near
from sftkit.deduplication.word_hashes import words_of

BANDING = Banding.for_threshold(0.8)


def words_by_pattern(text: str) -> list[str]:
    """The words of a text by their definition, cut where they are long."""
    found = re.findall(r"[0-9A-Za-z_\u00c0-\u07ff]+|[^\s\x00-\x20\x7f]", text)
    pieces = []
    for word in found:
        encoded = word.encode()
        pieces += [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    return [repr(piece) for piece in pieces]


def jaccard_of_sets(first: str, second: str, ngram: int) -> float:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = words_by_pattern(text)
        return {tuple(words[at : at + ngram]) for at in range(max(1, len(words) - ngram + 1))} if words else set()

    ones, others = runs(first), runs(second)
    return len(ones & others) / len(ones | others) if ones | others else 0.0


PIECES = ["a", "b", "ab", "B", " ", "\n", "+", "é", "日", "本", "…", "😀", "x_1", "w" * 70, "\u0416"]
texts = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(max_examples=200)
@given(st.lists(texts, max_size=6))
def test_words_are_those_of_their_definition(given_texts: list[str]) -> None:
    words = words_of([text.encode() for text in given_texts])
    expected = [word for text in given_texts for word in words_by_pattern(text)]
    assert words.counts.tolist() == [len(words_by_pattern(text)) for text in given_texts]
    hashes = words.hashes.tolist()
    by_word: dict[str, int] = {}
    assert [by_word.setdefault(word, value) for word, value in zip(expected, hashes, strict=True)] == hashes
    assert len(set(by_word.values())) == len(by_word)


@settings(max_examples=100)
@given(texts, texts, st.integers(1, 4))
def test_the_similarity_is_that_of_sets_of_runs(first: str, second: str, ngram: int) -> None:
    assert jaccard(first, second, ngram) == pytest.approx(jaccard_of_sets(first, second, ngram))


@settings(max_examples=50)
@given(st.lists(texts, min_size=1, max_size=8))
def test_a_signature_depends_on_its_text_alone(given_texts: list[str]) -> None:
    hasher = MinHasher(hashes=64, ngram=3)
    together, has_words = hasher.signatures(given_texts)
    for index, text in enumerate(given_texts):
        alone, alone_has_words = hasher.signatures([text])
        assert (alone[0] == together[index]).all()
        assert alone_has_words[0] == has_words[index] == bool(words_by_pattern(text))


def test_texts_that_are_processed_in_pieces() -> None:
    rng = random.Random(3)
    words = [f"w{rng.randrange(10**6)}" for _ in range(300_000)]  # 2 MB
    long = " ".join(words)
    other = " ".join([*words[:150_000], "changed", *words[150_001:]])
    signatures, has_words = MinHasher(64, 5).signatures([long, "short", other, long])
    assert has_words.all()
    assert (signatures[0] == signatures[3]).all()
    assert np.count_nonzero(signatures[0] == signatures[2]) >= 62
    assert np.count_nonzero(signatures[0] == signatures[1]) <= 5


def test_signatures_are_the_same_on_every_machine() -> None:
    signatures, _ = MinHasher(8, 2).signatures(["To be, or not to be", "日本 be"])
    assert signatures.tolist() == [[215, 138, 127, 112, 141, 194, 131, 75], [104, 209, 187, 47, 17, 240, 189, 250]]


def planted_pairs(count: int, similarity: float, seed: int) -> tuple[list[str], list[float]]:
    """Pairs of texts that share so many of their words; words in no two pairs are the same."""
    rng = np.random.default_rng(seed)
    found: list[str] = []
    similarities = []
    for _ in range(count):
        length = int(rng.integers(40, 120))
        shared = round(2 * length * similarity / (1 + similarity))
        words = [f"{word:x}" for word in rng.integers(0, 2**60, 2 * length - shared)]
        found += [" ".join(words[:length]), " ".join([*words[:shared], *words[length:]])]
        similarities.append(shared / (2 * length - shared))
    return found, similarities


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_planted_pairs_are_found_as_the_bands_promise(threshold: float) -> None:
    banding = Banding.for_threshold(threshold)
    count = 600
    for similarity in (threshold - 0.25, threshold - 0.1, threshold, threshold + 0.05):
        pairs, exact = planted_pairs(count, similarity, seed=round(similarity * 100))
        signatures, has_words = MinHasher(banding.hashes, 1).signatures(pairs)
        first = first_of_near(signatures, has_words, banding)
        found = np.count_nonzero(first[1::2] == np.arange(0, 2 * count, 2))
        assert (first[::2] == np.arange(0, 2 * count, 2)).all(), "a row of another pair"
        if similarity >= threshold:
            assert found >= 0.975 * count  # 0.98, and two standard deviations
        elif similarity == threshold - 0.25:
            assert found <= 0.01 * count
        agrees = (signatures[::2] == signatures[1::2]).reshape(count, banding.bands, banding.width).all(2).any(1)
        expected = np.mean([banding.candidate_probability(each) for each in exact])
        deviation = np.sqrt(expected * (1 - expected) / count)
        assert abs(np.mean(agrees) - expected) <= 4 * deviation + 0.01


def signatures_of(groups: list[list[int]], rng: np.random.Generator) -> Signatures:
    """One signature for each entry: the base of its group, of which so many bytes are changed."""
    rows = []
    for changes in groups:
        base = rng.integers(0, 256, BANDING.hashes)
        for changed in changes:
            row = base.copy()
            places = rng.permutation(BANDING.hashes)[:changed]
            row[places] = (row[places] + 1 + rng.integers(0, 255, changed)) % 256
            rows.append(row)
    return np.array(rows, np.uint8).reshape(-1, BANDING.hashes)


def matches(signatures: Signatures, one: int, other: int) -> int:
    return int(np.count_nonzero(signatures[one] == signatures[other]))


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), max_size=8), st.integers(0, 2**32 - 1), st.data())
def test_groups_of_signatures(groups: list[list[int]], seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    signatures = signatures_of(groups, rng)
    signatures = signatures[rng.permutation(len(signatures))]
    compared = np.array(data.draw(st.lists(st.booleans(), min_size=len(signatures), max_size=len(signatures))), bool)
    first = first_of_near(signatures, compared, BANDING).tolist()
    kept = [row for row, each in enumerate(first) if row == each]
    for row, each in enumerate(first):
        assert each <= row
        assert first[each] == each, "what is kept instead is kept"
        assert each == row or (compared[row] and compared[each])
        assert each == row or matches(signatures, row, each) >= BANDING.fewest_matches
    for one, other in combinations([row for row in kept if compared[row]], 2):
        is_candidate = (signatures[one] == signatures[other]).reshape(BANDING.bands, BANDING.width).all(1).any()
        assert not is_candidate or matches(signatures, one, other) < BANDING.fewest_matches


def test_a_chain_keeps_what_is_not_similar_to_the_first_row() -> None:
    base = np.zeros(BANDING.hashes, np.uint8)
    chain = np.stack([base] * 4)
    for step in range(1, 4):  # each differs from the one before in 40 bytes, and so from the first in 40, 80, 120
        chain[step:, (step - 1) * 40 : step * 40] = step
    assert first_of_near(chain, np.ones(4, np.bool_), BANDING).tolist() == [0, 0, 2, 2]


def test_a_large_bucket_of_equal_rows() -> None:
    rows = np.tile(np.arange(BANDING.hashes, dtype=np.uint8), (5000, 1))
    assert not first_of_near(rows, np.ones(5000, np.bool_), BANDING).any()


def test_no_rows() -> None:
    assert len(first_of_near(np.zeros((0, BANDING.hashes), np.uint8), np.zeros(0, np.bool_), BANDING)) == 0


@pytest.mark.parametrize("threshold", [0.5, 0.55, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0])
def test_bands_of_every_threshold(threshold: float) -> None:
    banding = Banding.for_threshold(threshold)
    assert 128 <= banding.hashes <= 256
    assert banding.candidate_probability(threshold) >= 0.99
    assert banding.fewest_matches <= threshold * banding.hashes
