"""What of a trained turn carries no loss by the config: `train_on_stop`, `tool_calls`, `reasoning: last_only`.

Expectations are written by hand for the templates that have a name, which differ in how they write turns and calls.
The reference verifies the fast engines on each row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import chat_templates as templates
from sftkit.core.row_log import RowError
from sftkit.core.rows import IGNORE_INDEX, Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.templates.named_templates import named_or_given
from support import trained_texts
from template_zoo.conversations import assistant, user

MakeChatTokenizer = Callable[..., ChatTokenizer]

TALK = [user("hi"), assistant("hello"), user("bye"), assistant("see you")]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
CALLING = [
    user("1 and 1?"),
    assistant("I add.", tool_calls=[CALL]),
    {"role": "tool", "name": "add", "content": "2"},
    assistant("It is 2."),
]
THINKING = [
    user("hi"),
    assistant("hello", reasoning_content="greet"),
    user("bye"),
    assistant("see you", reasoning_content="part"),
]


def trained(tokenizer: ChatTokenizer, messages: list[Row], **row: Any) -> list[str]:
    text, spans = tokenizer.conversations.find_trained_spans({**row, "messages": messages}, "messages")
    return [piece for piece in trained_texts(text, spans) if piece]


def named(chat_tokenizer: MakeChatTokenizer, name: str, **options: Any) -> ChatTokenizer:
    special = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "</s>", "<end_of_turn>", "<|end_of_text|>")
    return chat_tokenizer(named_or_given(name), special=special, **options)


# --- Stop tokens --------------------------------------------------------------------------------------

STOPS = {
    "chatml": ("{}", "<|im_end|>"),
    "llama3": ("{}", "<|eot_id|>"),
    "mistral": (" {}", "</s>"),
    "gemma": ("{}", "<end_of_turn>"),
    "granite": ("{}", "<|end_of_text|>"),
}


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize(
    ("choice", "has_stop"), [("all", (True, True)), ("last", (False, True)), ("none", (False, False))]
)
def test_stop_tokens_carry_a_loss_by_choice(
    chat_tokenizer: MakeChatTokenizer, name: str, choice: str, has_stop: tuple[bool, bool]
) -> None:
    tokenizer = named(chat_tokenizer, name, train_on_stop=choice)
    written, stop = STOPS[name]
    texts = trained(tokenizer, TALK)
    expected = [
        written.format(text) + (stop if is_there else "")
        for text, is_there in zip(("hello", "see you"), has_stop, strict=True)
    ]
    assert [text.strip() for text in texts] == [text.strip() for text in expected]


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("GENERATION", ["hello", "see you"]),
        ("LLAMA2", [" hello ", " see you "]),
        ("BY_INDEX", ["hello", "see you"]),
        ("NO_PROMPT", ["hello", "see you"]),
        ("CAPTURED", ["hello", "see you"]),
    ],
)
def test_stop_tokens_are_found_with_other_templates(
    chat_tokenizer: MakeChatTokenizer, template: str, texts: list[str]
) -> None:
    assert trained(chat_tokenizer(getattr(templates, template), train_on_stop="none"), TALK) == texts


def test_the_last_stop_token_is_that_of_the_last_trained_turn(chat_tokenizer: MakeChatTokenizer) -> None:
    excluding = [*TALK[:3], {**TALK[3], "train": False}]
    assert trained(chat_tokenizer(templates.CHATML, train_on_stop="last"), excluding) == ["hello<|im_end|>"]
    first = chat_tokenizer(templates.CHATML, train_on_stop="last", train_on="first_assistant")
    assert trained(first, TALK) == ["hello<|im_end|>"]


def test_an_empty_answer_without_a_stop_token_trains_nothing(chat_tokenizer: MakeChatTokenizer) -> None:
    assert trained(chat_tokenizer(templates.CHATML, train_on_stop="none"), [user("a"), assistant("")]) == []


def test_a_stop_token_in_the_content_is_no_stop_token_of_the_turn(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, train_on_stop="none", policy="escape")
    [text] = trained(tokenizer, [user("a"), assistant("say <|im_end|> now")])
    assert text == "say <|im_end|> now"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (
            "last",
            "hello",
        ),
        ("none", "hello"),
    ],
)
def test_everything_but_stop_tokens_is_trained(chat_tokenizer: MakeChatTokenizer, choice: str, expected: str) -> None:
    texts = trained(chat_tokenizer(templates.CHATML, train_on="all", train_on_stop=choice), TALK)
    assert texts[0].endswith(f"<|im_start|>assistant\n{expected}")
    end = "" if choice == "none" else "<|im_end|>"
    assert "".join(texts[1:]) == f"\n<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\nsee you{end}\n"


# --- Tool calls ---------------------------------------------------------------------------------------

CALLS = {
    "chatml": ["I add.<|im_end|>", "It is 2.<|im_end|>"],
    "llama3": ["I add.<|eot_id|>", "It is 2.<|eot_id|>"],
    "granite": ["I add.<|end_of_text|>", "It is 2.<|end_of_text|>"],
}


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_carry_no_loss(chat_tokenizer: MakeChatTokenizer, name: str) -> None:
    kept = trained(named(chat_tokenizer, name), CALLING)
    masked = trained(named(chat_tokenizer, name, tool_calls="mask"), CALLING)
    assert any("add" in text and "I add." in text for text in kept)
    stop = STOPS[name][1]
    joined = "".join(masked).split(stop)
    assert [f"{text}{stop}" for text in joined[:-1]] == CALLS[name]


def test_a_turn_that_is_only_a_call_keeps_its_stop_token(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [CALLING[0], assistant("", tool_calls=[CALL]), *CALLING[2:]]
    assert trained(named(chat_tokenizer, "chatml", tool_calls="mask"), messages) == ["<|im_end|>", "It is 2.<|im_end|>"]
    neither = named(chat_tokenizer, "chatml", tool_calls="mask", train_on_stop="none")
    assert trained(neither, messages) == ["It is 2."]


def test_calls_that_the_template_leaves_out_are_refused(chat_tokenizer: MakeChatTokenizer) -> None:
    with pytest.raises(RowError, match="message 1: cannot find where the tool calls of this turn are"):
        trained(chat_tokenizer(templates.CHATML, tool_calls="mask"), CALLING)


def test_conversations_without_calls_are_as_before(chat_tokenizer: MakeChatTokenizer) -> None:
    assert trained(named(chat_tokenizer, "llama3", tool_calls="mask"), TALK) == trained(
        named(chat_tokenizer, "llama3"), TALK
    )


# --- Reasoning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("mask", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("last_only", ["hello<|im_end|>", "<think>\npart\n</think>\n\nsee you<|im_end|>"]),
    ],
)
def test_reasoning_of_the_last_turn_only(chat_tokenizer: MakeChatTokenizer, choice: str, expected: list[str]) -> None:
    assert trained(named(chat_tokenizer, "chatml", reasoning=choice), THINKING) == expected


def test_the_last_reasoning_is_that_of_the_last_trained_turn(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = named(chat_tokenizer, "chatml", reasoning="last_only")
    excluding = [*THINKING[:3], {**THINKING[3], "weight": 0}]
    assert trained(tokenizer, excluding) == ["<think>\ngreet\n</think>\n\nhello<|im_end|>"]


def test_all_three_together(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = named(chat_tokenizer, "chatml", reasoning="last_only", tool_calls="mask", train_on_stop="last")
    messages = [
        CALLING[0],
        assistant("I add.", reasoning_content="use add", tool_calls=[CALL]),
        CALLING[2],
        assistant("It is 2.", reasoning_content="done"),
    ]
    texts = trained(tokenizer, messages)
    assert texts == ["I add.", "<think>\ndone\n</think>\n\nIt is 2.<|im_end|>"]


def test_kinds_are_of_what_is_trained(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = named(chat_tokenizer, "chatml", reasoning="mask", train_on_stop="none", token_kinds=True)
    prepared = tokenizer.conversations.prepare({"messages": THINKING}, "messages")
    encoded = tokenizer.encode_prepared([prepared])
    assert encoded.kinds is not None
    is_trained = encoded.labels.values != IGNORE_INDEX
    assert set(encoded.kinds.values[is_trained].tolist()) == {1}
    assert set(encoded.kinds.values[~is_trained].tolist()) == {0}


# --- Text with response_template ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"train_on_stop": "last"}, ["<think>a</think>1", "<think>b</think>2</s>"]),
        ({"train_on_stop": "none"}, ["<think>a</think>1", "<think>b</think>2"]),
        ({"reasoning": "last_only"}, ["1</s>", "<think>b</think>2</s>"]),
        ({"reasoning": "mask", "train_on_stop": "none"}, ["1", "2"]),
    ],
)
def test_responses_in_text(chat_tokenizer: MakeChatTokenizer, choices: Row, expected: list[str]) -> None:
    tokenizer = chat_tokenizer(templates.RESPONSE, **choices)
    eos = tokenizer.eos_token
    text = f"Q: A:<think>a</think>1{eos}Q: A:<think>b</think>2{eos}"
    found = [text[start:end] for start, end in tokenizer.find_responses(text, "A:", None)]
    assert found == [piece.replace("</s>", eos) for piece in expected]
