"""Weights of messages (`weight: 0.5`): they get to the tokens that their messages train, and change nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat_templates as templates
from sftkit.core.row_log import RowError
from sftkit.core.rows import LabeledTokens, Row
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.masking.parts.part_tokens import encode_parts
from sftkit.tokenization.masking.turn_parts import Part, untrained_part
from support import examples
from template_zoo.conversations import assistant, system, user

MakeChatTokenizer = Callable[..., ChatTokenizer]
EITHER = pytest.mark.parametrize("token_kinds", [False, True])


def encode(tokenizer: ChatTokenizer, *conversations: list[Row]) -> LabeledTokens:
    rows = [{"messages": messages} for messages in conversations]
    return tokenizer.encode_prepared([tokenizer.conversations.prepare(row, "messages") for row in rows])


def weighted(tokenizer: ChatTokenizer, encoded: LabeledTokens, row: int = 0) -> list[tuple[str, float]]:
    """The text and the weight of each run of trained tokens of one weight."""
    assert encoded.weights is not None
    assert ((encoded.weights.values > 0) == (encoded.labels.values != -100)).all()
    pairs = zip(encoded.weights[row].tolist(), encoded.input_ids[row].tolist(), strict=True)
    runs = [(weight, [token for _, token in run]) for weight, run in groupby(pairs, key=lambda pair: pair[0])]
    return [(tokenizer.tokenizer.decode(ids), weight) for weight, ids in runs if weight]


@EITHER
@pytest.mark.parametrize("template", ["CHATML", "GENERATION", "BY_INDEX", "CHATML_IN_LINES"])
@pytest.mark.parametrize("key", ["weight", "loss_weight", "loss_scale"])
def test_each_turn_has_the_weight_of_its_message(
    chat_tokenizer: MakeChatTokenizer, template: str, key: str, token_kinds: bool
) -> None:
    tokenizer = chat_tokenizer(getattr(templates, template), token_kinds=token_kinds)
    turns = [
        [user("a"), {**assistant("b"), key: 0.5}, user("c"), assistant("d")],
        [user("a"), assistant("b"), user("c"), assistant("d")],
        [user("a"), {**assistant("b"), key: 2}, user("c"), {**assistant("d"), key: 0}, user("e"), assistant("f")],
    ]
    encoded = encode(tokenizer, *turns)
    assert weighted(tokenizer, encoded) == [("b<|im_end|>", 0.5), ("d<|im_end|>", 1)]
    assert weighted(tokenizer, encoded, 1) == [("b<|im_end|>", 1), ("d<|im_end|>", 1)]
    assert weighted(tokenizer, encoded, 2) == [("b<|im_end|>", 2), ("f<|im_end|>", 1)]
    assert (encoded.kinds is not None) is token_kinds


@EITHER
def test_flags_beside_a_weight_must_agree_with_it(chat_tokenizer: MakeChatTokenizer, token_kinds: bool) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, token_kinds=token_kinds)
    turn = {**assistant("b"), "train": True, "weight": 0.5, "loss_scale": 0.5, "loss": None}
    assert weighted(tokenizer, encode(tokenizer, [user("a"), turn])) == [("b<|im_end|>", 0.5)]


@pytest.mark.parametrize("weight", [0, 1, 1.0, True, "1", None, 1e-50])
def test_weights_of_0_and_1_are_flags(chat_tokenizer: MakeChatTokenizer, weight: object) -> None:
    tokenizer = chat_tokenizer(templates.CHATML)
    encoded = encode(tokenizer, [user("a"), {**assistant("b"), "weight": weight}, user("c"), assistant("d")])
    assert encoded.weights is None
    assert int((encoded.labels.values != -100).sum()) == (2 if weight in (0, 1e-50) else 4)


@EITHER
def test_only_the_last_turn_keeps_its_weight_if_only_it_is_trained(
    chat_tokenizer: MakeChatTokenizer, token_kinds: bool
) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, train_on="last_assistant", token_kinds=token_kinds)
    turns = [user("a"), {**assistant("b"), "weight": 0.5}, user("c"), {**assistant("d"), "weight": 3}]
    assert weighted(tokenizer, encode(tokenizer, turns)) == [("d<|im_end|>", 3)]


@EITHER
@pytest.mark.parametrize("template", ["CHATML", "GENERATION"])
def test_with_all_text_trained_a_message_has_its_weight_in_any_role(
    chat_tokenizer: MakeChatTokenizer, template: str, token_kinds: bool
) -> None:
    tokenizer = chat_tokenizer(getattr(templates, template), train_on="all", token_kinds=token_kinds)
    turns = [{**system("s"), "weight": 0.25}, user("a"), {**assistant("b"), "weight": 0.5}, {**user("c"), "weight": 0}]
    assert weighted(tokenizer, encode(tokenizer, [*turns, assistant("d")])) == [
        ("<|im_start|>system\ns<|im_end|>\n", 0.25),
        ("<|im_start|>user\na<|im_end|>\n", 1),
        ("<|im_start|>assistant\nb<|im_end|>\n", 0.5),
        ("<|im_start|>assistant\nd<|im_end|>\n", 1),
    ]


def test_reasoning_that_is_masked_has_no_weight(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, reasoning="mask", token_kinds=True)
    turns = [user("a"), {**assistant("<think>hm</think>b"), "weight": 0.5}]
    encoded = encode(tokenizer, turns)
    assert weighted(tokenizer, encoded) == [("b<|im_end|>", 0.5)]


def test_text_cannot_have_weights(chat_tokenizer: MakeChatTokenizer) -> None:
    row = {"messages": [user("a"), {**assistant("b"), "weight": 0.5}]}
    with pytest.raises(RowError, match="a message has a loss weight, which a text column cannot express"):
        chat_tokenizer(templates.CHATML).conversations.render(row, "messages")


WEIGHTS = st.sampled_from([None, 0, 1, 0.5, 3, 0.125])


@settings(max_examples=examples(100), deadline=None)
@given(
    weights=st.lists(WEIGHTS, min_size=1, max_size=6),
    train_on=st.sampled_from(["assistant", "last_assistant", "all"]),
    token_kinds=st.booleans(),
)
def test_labels_and_kinds_are_those_of_flags(
    chat_tokenizer: MakeChatTokenizer, weights: list[float | None], train_on: str, token_kinds: bool
) -> None:
    tokenizer = chat_tokenizer(templates.TOOLS, train_on=train_on, token_kinds=token_kinds)
    turns: list[Row] = []
    for index, weight in enumerate(weights):
        turns += [user(f"q{index}"), {**assistant(f"<think>hm</think>a{index}"), "weight": weight}]
    flags = [{**turn, **({"weight": bool(turn["weight"])} if turn.get("weight") is not None else {})} for turn in turns]
    with_weights, with_flags = encode(tokenizer, turns, turns[:2]), encode(tokenizer, flags, flags[:2])
    assert with_flags.weights is None
    for name in ("input_ids", "labels", *(("kinds",) if token_kinds else ())):
        assert np.array_equal(getattr(with_weights, name).values, getattr(with_flags, name).values)
    others = {weight for weight in weights if weight not in (None, 0, 1)}
    if with_weights.weights is not None:
        assert set(with_weights.weights.values.tolist()) <= {0.0, 1.0, *others}


class Characters:
    """An encoder with one token for several characters."""

    def __init__(self, *ends: int) -> None:
        self.ends = ends

    def encode_spans(self, texts: Sequence[str], spans: Sequence[Any], **_: object) -> Any:
        from sftkit.core.rows import Ragged

        edges = list(zip((0, *self.ends), self.ends, strict=False))
        ids = Ragged.from_lists([list(range(len(edges))) for _ in texts])
        inside = [any(a < end and start < b for start, end in row) for row in spans for a, b in edges]
        return ids, np.array(inside, np.bool_)


@pytest.mark.parametrize("ends", [(1, 2, 3, 4, 5, 6), (2, 4, 6), (6,), (1, 5, 6), (5, 6)])
def test_a_token_has_the_weight_of_its_first_trained_character(ends: tuple[int, ...]) -> None:
    parts = [Part(place, place + 1, TokenKind.CONTENT, float(place + 1)) for place in range(1, 6)]
    encoded = encode_parts(Characters(*ends), ["abcdef"], [parts])  # type: ignore[arg-type]
    assert encoded.weights is not None
    starts = (0, *ends[:-1])
    expected = [float(max(start, 1) + 1) if end > 1 else 0.0 for start, end in zip(starts, ends, strict=True)]
    assert encoded.weights.values.tolist() == expected


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.0, 0.5, 1.0, 2.0])), min_size=1, max_size=12),
)
def test_the_lowest_weight_of_a_token_may_count(tokens: list[int], lengths: list[tuple[int, float]]) -> None:
    ends = [sum(tokens[: count + 1]) for count in range(len(tokens))]
    of_characters = [weight for length, weight in lengths for _ in range(length)][: ends[-1]]
    of_characters += [1.0] * (ends[-1] - len(of_characters))
    parts = [
        Part(at, at + 1, TokenKind.CONTENT, weight) if weight else untrained_part(at, at + 1)
        for at, weight in enumerate(of_characters)
    ]
    encoded = encode_parts(Characters(*ends), ["a" * ends[-1]], [parts], lowest_weight=True)  # type: ignore[arg-type]
    expected = [min(of_characters[start:end]) for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    assert ((encoded.labels.values != -100) == (np.array(expected) > 0)).all()
    assert encoded.weights is None or encoded.weights.values.tolist() == expected
    assert encoded.weights is not None or set(expected) <= {0.0, 1.0}


def test_the_weights_of_many_short_parts_are_exact() -> None:
    parts = [Part(place, place + 1, TokenKind.CONTENT, place + 2.0) for place in range(200)]
    encoded = encode_parts(Characters(150, 200), ["a" * 200], [parts])  # type: ignore[arg-type]
    assert encoded.weights is not None
    assert encoded.weights.values.tolist() == [2, 152]


def test_a_product_of_weights_that_is_too_large_is_refused(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, pattern_weights=(("[0-9]", 1e30),))
    with pytest.raises(RowError, match="of a message and of pattern_weights have a product that is too large"):
        encode(tokenizer, [user("a"), {**assistant("b 1"), "weight": 1e30}])
