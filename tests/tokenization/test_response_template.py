"""Responses found in text by `response_template`, and their labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.masking.responses import response_spans
from support import ALL_TOKENIZERS

MakeChatTokenizer = Callable[..., ChatTokenizer]

RESPONSE, INSTRUCTION = "### Response:\n", "### Instruction:\n"
ONE = f"{INSTRUCTION}Add.\n\n{RESPONSE}Five.</s>"
TWO = f"{INSTRUCTION}A\n{RESPONSE}B</s>\n{INSTRUCTION}C\n{RESPONSE}D</s>\n"


@pytest.mark.parametrize("instruction", [None, INSTRUCTION])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ONE, ["Five.</s>"]),
        (TWO, ["B</s>", "D</s>"]),
        (f"{RESPONSE}first</s>", ["first</s>"]),
        (f"{INSTRUCTION}A\n{RESPONSE}B</s>\n### Tool:\n9</s>\n{RESPONSE}nine</s>", ["B</s>", "nine</s>"]),
        (f"{RESPONSE}a</s>b</s>", ["a</s>"]),
        (f"{RESPONSE}no end", ["no end"]),
        (f"{RESPONSE}</s>", ["</s>"]),
        (f"{INSTRUCTION}only a question", []),
        ("", []),
        (RESPONSE, []),
        ("### Response:", []),
    ],
)
def test_a_response_extends_from_its_template_to_its_eos(
    text: str, expected: list[str], instruction: str | None
) -> None:
    spans = response_spans(text, RESPONSE, instruction, "</s>")
    assert [text[start:stop] for start, stop in spans] == expected


def test_without_eos_a_response_ends_before_the_next_instruction() -> None:
    text = f"{INSTRUCTION}A\n{RESPONSE}B\n{INSTRUCTION}C\n{RESPONSE}D\n"
    assert [text[a:b] for a, b in response_spans(text, RESPONSE, INSTRUCTION, None)] == ["B\n", "D\n"]
    assert [text[a:b] for a, b in response_spans(text, RESPONSE, INSTRUCTION, "</s>")] == ["B\n", "D\n"]


def test_without_eos_and_instruction_only_the_last_response_is_found() -> None:
    text = f"{INSTRUCTION}A\n{RESPONSE}B\n{INSTRUCTION}C\n{RESPONSE}D\n"
    assert [text[a:b] for a, b in response_spans(text, RESPONSE, None, "</s>")] == ["D\n"]


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize(
    ("before", "trained", "after"),
    [
        ([f"{INSTRUCTION}Add two.\n\n{RESPONSE}"], ["The sum is five.{eos}"], ""),
        ([f"{INSTRUCTION}A\n{RESPONSE}", f"\n{INSTRUCTION}C\n{RESPONSE}"], ["The cat{eos}", " the  dog\n{eos}"], "\n"),
        ([f"x\n{RESPONSE}", f"\n### Tool:\n你好\n{RESPONSE}"], ["Grüße 😀{eos}", "42{eos}"], ""),
    ],
)
def test_exactly_the_tokens_of_responses_have_labels(
    chat_tokenizer: MakeChatTokenizer,
    reference: Callable[[str], Any],
    name: str,
    before: list[str],
    trained: list[str],
    after: str,
) -> None:
    tokenizer, hf_tokenizer = chat_tokenizer(name=name), reference(name)
    trained = [piece.format(eos=tokenizer.eos_token) for piece in trained]
    text = "".join(a + b for a, b in zip(before, trained, strict=True)) + after
    spans = tokenizer.find_responses(text, RESPONSE, None)
    assert [text[start:stop] for start, stop in spans] == trained
    made = tokenizer.encode_spans([text], [spans])
    ids, labels = made.input_ids.values.tolist(), made.labels.values.tolist()
    assert ids == hf_tokenizer(text)["input_ids"]
    offsets = reference("bpe" if name == "trim" else name)(text, return_offsets_mapping=True)["offset_mapping"]
    inside = [any(max(s, start) < min(e, stop) for start, stop in spans) for s, e in offsets]
    if name == "bos_eos":  # the eos that the tokenizer appends is trained like the token before it
        inside[-1] = inside[-2]
    assert labels == [token if loss else -100 for token, loss in zip(ids, inside, strict=True)]
    assert 0 < sum(inside) < len(ids)


def test_an_appended_eos_is_trained_only_after_a_response(
    chat_tokenizer: MakeChatTokenizer,
) -> None:
    tokenizer = chat_tokenizer(name="bos_eos")
    for text, last in ((f"{RESPONSE}cat", 2), (f"{RESPONSE}cat</s>\n{INSTRUCTION}dog", -100)):
        made = tokenizer.encode_spans([text], [tokenizer.find_responses(text, RESPONSE, None)])
        assert made.input_ids.values[-1] == 2
        assert made.labels.values[-1] == last
        assert (made.input_ids.values[0], made.labels.values[0]) == (1, -100)


def test_train_on_selects_the_last_response(chat_tokenizer: MakeChatTokenizer) -> None:
    spans = chat_tokenizer(train_on="last_assistant").find_responses(TWO, RESPONSE, None)
    assert [TWO[start:stop] for start, stop in spans] == ["D</s>"]
