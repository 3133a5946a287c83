"""Texts that begin with the BOS token get no second one, on every way from text to tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chat_templates import CHATML
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.encoding.reference_encoder import ReferenceEncoder
from sftkit.tokenization.encoding.single_bos import with_single_bos
from support import ALL_TOKENIZERS

MakeChatTokenizer = Callable[..., ChatTokenizer]

BODIES = ["the cat", " sat", "", "你好 </s> x", "<|im_end|>\n the dog", "the cat " * 50]


def expected_ids(tokenizer: Any, text: str, limit: int | None = None) -> list[int]:
    """Tokenize a text with the tokenizer's own call, without its BOS if the text has one."""
    cut: dict[str, Any] = {} if limit is None else {"truncation": True, "max_length": limit}
    ids: list[int] = tokenizer(text, **cut)["input_ids"]
    bos = tokenizer.bos_token
    if bos and text.startswith(bos) and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
        whole: list[int] = tokenizer(text)["input_ids"][1:]
        if limit is None or len(whole) <= limit:
            return whole
        if tokenizer.truncation_side == "right":
            return [*whole[: limit - added_last(tokenizer)], *whole[len(whole) - added_last(tokenizer) :]]
    return ids


def added_last(tokenizer: Any) -> int:
    return int(tokenizer("")["input_ids"][-1:] == [tokenizer.eos_token_id])


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize("limit", [None, 3, 5])
def test_a_text_with_a_bos_of_its_own_has_one(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str, limit: int | None
) -> None:
    tokenizer = reference(name)
    bos = tokenizer.bos_token or "<s>"
    texts = [start + body for body in BODIES for start in (bos, "", bos + bos, "x" + bos)]
    made = chat_tokenizer(name=name).encode(texts, limit=limit)
    assert [made[row].tolist() for row in range(len(made))] == [expected_ids(tokenizer, text, limit) for text in texts]


@pytest.mark.parametrize("name", ["bos", "bos_eos", "metaspace"])
def test_texts_that_are_cut_on_the_left_are_no_longer_than_the_limit(
    reference: Callable[[str], Any], tokenizer_path: Callable[[str], str], name: str
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path(name), truncation_side="left")
    whole = ReferenceEncoder(tokenizer)
    encoder = with_single_bos(whole, tokenizer, whole)
    texts = ["<s>the cat sat", "<s>" + "the cat " * 9, "the dog"]
    long = tokenizer(texts[1], truncation=True, max_length=8)["input_ids"]
    made = encoder.encode(texts, limit=8)
    assert made[0].tolist() == expected_ids(reference(name), texts[0])
    assert made[1].tolist() == long
    assert made[2].tolist() == tokenizer(texts[2])["input_ids"]


@pytest.mark.parametrize("name", ["bos", "bos_eos", "metaspace"])
def test_a_rendered_conversation_has_the_bos_of_its_template_only(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str
) -> None:
    tokenizer = chat_tokenizer("{{ bos_token }}" + CHATML, name=name)
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "the cat"}]}
    text = tokenizer.conversations.render(row, "messages")
    spans = tokenizer.find_responses(text, "<|im_start|>assistant\n", "<|im_start|>user\n")
    as_text, as_chat = tokenizer.encode_spans([text], [spans]), tokenizer.encode_conversations([text], [spans])
    count = len(as_chat.input_ids.values)
    assert as_text.input_ids.values[:count].tolist() == as_chat.input_ids.values.tolist()
    assert as_text.labels.values[:count].tolist() == as_chat.labels.values.tolist()
    assert as_chat.input_ids.values.tolist().count(1) == 1
    [prompt, _] = text.partition("the cat")[::2]
    pairs, _ = tokenizer.encode_pairs([prompt], [text])
    assert pairs.input_ids.values.tolist() == as_text.input_ids.values.tolist()
    assert reference(name).decode(pairs.labels.values[pairs.labels.values != -100]).startswith("the cat")
