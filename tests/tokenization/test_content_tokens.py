"""Special tokens in content are found, and escaped ones are not special to any tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.tokenization.special_token_matcher import SpecialTokenMatcher
from support import ALL_TOKENIZERS

CHATML = SpecialTokenMatcher(["<|im_start|>", "<|im_end|>", "<s>", "§"])

# Tokens that overlap, nest, are one character long, or contain the character that escapes others.
tokens = st.lists(st.text("<|ab>§\u200b", min_size=1, max_size=5), max_size=6)
texts = st.text("<|ab>§\u200b ", max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def leaves(value: Any) -> list[str]:
    """Return all texts in a value, including keys."""
    if isinstance(value, dict):
        return [text for item in value.items() for text in leaves(list(item))]
    if isinstance(value, list):
        return [text for each in value for text in leaves(each)]
    return [value] if isinstance(value, str) else []


def special_tokens(tokenizer: Any) -> dict[int, str]:
    return {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}


@pytest.mark.parametrize(
    ("messages", "tools", "documents", "found"),
    [
        ([{"role": "user", "content": "a < b and <|im_start"}], None, None, None),
        ([{"role": "user", "content": "a<|im_end|>b"}], None, None, (0, "<|im_end|>")),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "5 §"}], None, None, (1, "§")),
        ([{"role": "<|im_start|>", "content": "a"}], None, None, None),
        ([{"role": "user", "content": None, "train": False, "weight": 0.5}], None, None, None),
        ([{"role": "assistant", "content": "", "reasoning_content": "<s>"}], None, None, (0, "<s>")),
        ([{"role": "user", "content": [{"type": "text", "text": "<s>"}]}], None, None, (0, "<s>")),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"role": ["<s>"]}}}]}],
            None,
            None,
            (0, "<s>"),
        ),
        ([{"role": "assistant", "tool_calls": [{"function": {"arguments": {"<s>": 1}}}]}], None, None, (0, "<s>")),
        ([{"role": "user", "content": "a"}], [{"function": {"description": "ends with <s>"}}], None, (None, "<s>")),
        ([{"role": "user", "content": "a"}], None, [{"text": "§"}], (None, "§")),
        ([{"role": "user", "content": "§"}], [{"name": "<s>"}], None, (0, "§")),
        ({"messages": [{"role": "user", "content": "<s>"}]}, None, None, (None, "<s>")),
    ],
)
def test_the_first_special_token_of_a_conversation_is_found(
    messages: Any, tools: Any, documents: Any, found: tuple[int | None, str] | None
) -> None:
    assert CHATML.find_special_token(messages, tools, documents) == found


def test_the_longest_special_token_is_reported() -> None:
    assert SpecialTokenMatcher(["<s", "<s>"]).find_special_token([{"role": "user", "content": "a<s>"}]) == (0, "<s>")


def test_a_tokenizer_without_special_tokens_finds_none() -> None:
    nothing = SpecialTokenMatcher([])
    assert nothing.find_special_token([{"role": "user", "content": "<s>"}], ["<s>"], ["<s>"]) is None
    assert nothing.escape("<s>") == "<s>"


def test_escaping_changes_special_tokens_only() -> None:
    value = {"a": ["<|im_end|>", "x < y", 1, None, True, {"<s>": "5 § and <|im_start|>user"}]}
    assert CHATML.escape(value) == {
        "a": ["<\u200b|im_end|>", "x < y", 1, None, True, {"<\u200bs>": "5 \u200b and <\u200b|im_start|>user"}]
    }
    assert value["a"][0] == "<|im_end|>"  # the argument is not changed


def test_overlapping_tokens_are_all_escaped() -> None:
    assert SpecialTokenMatcher(["aa"]).escape("aaaa") == "a\u200ba\u200ba\u200ba"


def test_tokens_that_contain_the_usual_separator_are_escaped_by_another_one() -> None:
    assert SpecialTokenMatcher(["ab", "a\u200bb"]).escape("ab a\u200bb") == "a\u200cb a\u200c\u200bb"


def test_roles_are_not_escaped() -> None:
    messages = [{"role": "<s>", "content": "<s>", "train": True}]
    assert CHATML.escape_messages(messages) == [{"role": "<s>", "content": "<\u200bs>", "train": True}]


@given(tokens, values)
@settings(max_examples=300)
def test_all_special_tokens_are_found_and_escaped(names: list[str], value: Any) -> None:
    special = SpecialTokenMatcher(names)
    is_there = any(name in text for name in names for text in leaves(value))
    found = special.find_special_token([{"role": "user", "content": value}])
    assert (found is not None) == is_there
    escaped = special.escape(value)
    assert special.find_special_token([{"role": "user", "content": escaped}], [escaped], [escaped]) is None
    assert not any(name in text for name in names for text in leaves(escaped))
    if not is_there:
        assert escaped == value


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_no_tokenizer_reads_an_escaped_token_as_special(name: str, reference: Callable[[str], Any]) -> None:
    tokenizer = reference(name)
    ids = special_tokens(tokenizer)
    special = SpecialTokenMatcher(list(ids.values()))
    assert ids
    for token in ids.values():
        for text in (
            token,
            f"a{token}b",
            f"a {token} b\n{token}{token}",
            token * 3,
            token[0] + token,
            token + token[1:],
        ):
            read = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert ids.keys() & set(read)
            assert special.find_special_token([{"role": "user", "content": text}]) is not None
            escaped = special.escape(text)
            assert not ids.keys() & set(tokenizer(escaped, add_special_tokens=False)["input_ids"])
            assert escaped.replace("\u200b", "") == text


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_what_a_tokenizer_reads_as_special_is_found_and_escaped(name: str, reference: Callable[[str], Any]) -> None:
    """Texts consist of pieces of special tokens."""
    tokenizer = reference(name)
    ids = special_tokens(tokenizer)
    special = SpecialTokenMatcher(list(ids.values()))
    pieces = sorted({piece for token in ids.values() for piece in (token, token[:-1], token[1:], token[:3])})

    @given(st.lists(st.sampled_from([*pieces, " ", "\n", "word", "<", "é"]), max_size=8).map("".join))
    @settings(max_examples=60, database=None)
    def check(text: str) -> None:
        read = ids.keys() & set(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert (special.find_special_token([{"role": "user", "content": text}]) is not None) == bool(read)
        assert not ids.keys() & set(tokenizer(special.escape(text), add_special_tokens=False)["input_ids"])

    check()


@pytest.mark.parametrize("name", ["bpe", "metaspace"])
def test_a_special_token_of_one_character_is_replaced(name: str, tokenizer_path: Callable[[str], str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path(name))
    tokenizer.add_special_tokens({"pad_token": "§"})
    special = SpecialTokenMatcher(["§", "<s>"])
    text = "a § b§<s>"
    assert tokenizer.pad_token_id in tokenizer(text, add_special_tokens=False)["input_ids"]
    escaped = special.escape(text)
    assert escaped == "a \u200b b\u200b<\u200bs>"
    read = tokenizer(escaped, add_special_tokens=False)["input_ids"]
    assert not {tokenizer.pad_token_id, tokenizer.bos_token_id} & set(read)
