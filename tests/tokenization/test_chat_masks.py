"""Trained texts and tokens of conversations with templates of different kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat_templates as templates
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer
from sftkit.tokenization.templates.recording import NO_MESSAGE
from support import ALL_TOKENIZERS, trained_texts

MakeChatTokenizer = Callable[..., ChatTokenizer]


def system(content: str) -> Row:
    return {"role": "system", "content": content}


def user(content: Any) -> Row:
    return {"role": "user", "content": content}


def assistant(content: Any) -> Row:
    return {"role": "assistant", "content": content}


TWO_TURNS = [user("hi"), assistant("hello"), user("bye"), assistant("see you")]


def trained(tokenizer: ChatTokenizer, messages: list[Row], **row: Any) -> list[str]:
    """Return the trained texts; the whole text must be what transformers renders."""
    row = {**row, "messages": messages}
    text, spans = tokenizer.conversations.find_trained_spans(row, "messages")
    assert text == tokenizer.tokenizer.apply_chat_template(messages, tools=row.get("tools"), tokenize=False)
    assert spans == sorted(spans)
    return trained_texts(text, spans)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("CHATML", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("CHATML_IN_LINES", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("GENERATION", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("LLAMA2", [" hello </s>", " see you </s>"]),
        ("RESPONSE", ["hello</s>", "see you</s>"]),
        ("NO_PROMPT", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("BY_INDEX", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("BY_INDEX_NO_PROMPT", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("QWEN3_LIKE", ["hello<|im_end|>", "<think>\n\n</think>\n\nsee you<|im_end|>"]),
        ("MERGES_SYSTEM", ["hello<end_of_turn>", "see you<end_of_turn>"]),
        ("PARTS", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("TOOLS", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("CAPTURED", ["hello<|im_end|>", "see you<|im_end|>"]),
        ("NO_STOP", ["hello", "see you"]),
    ],
)
@pytest.mark.parametrize("with_system", [False, True])
def test_exactly_what_the_model_has_to_produce_is_trained(
    chat_tokenizer: MakeChatTokenizer, template: str, expected: list[str], with_system: bool
) -> None:
    messages = [system("be kind"), *TWO_TURNS] if with_system else TWO_TURNS
    assert trained(chat_tokenizer(getattr(templates, template)), messages) == expected


LOOKALIKES: list[tuple[str, list[Row], list[str]]] = [
    ("same text in both roles", [user("same"), assistant("same")] * 2, ["same<|im_end|>"] * 2),
    ("turns that repeat", [user("a"), assistant("b")] * 3, ["b<|im_end|>"] * 3),
    ("assistant turns in a row", [user("a"), assistant("b"), assistant("b")], ["b<|im_end|>"] * 2),
    ("a turn without content", [user("a"), assistant(""), user("c"), assistant("d")], ["<|im_end|>", "d<|im_end|>"]),
    ("user last", [user("a"), assistant("b"), user("c")], ["b<|im_end|>"]),
    ("white space around a content", [user(" a "), assistant("  b \n")], ["  b \n<|im_end|>"]),
    (
        "the header in the content",
        [user("<|im_start|>assistant\nfake<|im_end|>\n"), assistant("<|im_start|>assistant\nx"), user("y")],
        ["<|im_start|>assistant\nx<|im_end|>"],
    ),
    (
        "the stop token in the content",
        [user("a"), assistant("b<|im_end|>\n<|im_start|>user\nc")],
        ["b<|im_end|>\n<|im_start|>user\nc<|im_end|>"],
    ),
    ("null keys", [{**user("a"), "name": None}, assistant("b"), user("a"), assistant("b")], ["b<|im_end|>"] * 2),
    ("reasoning in the content", [user("a"), assistant("<think>no</think>b")], ["<think>no</think>b<|im_end|>"]),
]


@pytest.mark.parametrize("template", ["CHATML", "BY_INDEX", "NO_PROMPT", "BY_INDEX_NO_PROMPT", "GENERATION", "TOOLS"])
@pytest.mark.parametrize(("messages", "expected"), [case[1:] for case in LOOKALIKES], ids=[c[0] for c in LOOKALIKES])
def test_contents_that_look_like_markup_do_not_change_the_mask(
    chat_tokenizer: MakeChatTokenizer, template: str, messages: list[Row], expected: list[str]
) -> None:
    assert trained(chat_tokenizer(getattr(templates, template)), messages) == expected


def test_a_turn_is_found_after_a_prompt_that_opens_the_reasoning_that_the_turn_omits(
    chat_tokenizer: MakeChatTokenizer,
) -> None:
    tokenizer = chat_tokenizer(templates.OPENS_REASONING)
    messages = [user("a"), assistant("<think>hm</think>b"), user("c"), assistant("d")]
    assert trained(tokenizer, messages) == ["b<|end|>", "d<|end|>"]


def test_a_turn_after_a_tool_starts_after_its_own_prompt(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.OPENS_REASONING)
    messages = [user("a"), assistant("call"), {"role": "tool", "content": "r"}, assistant("d")]
    assert trained(tokenizer, messages) == ["call<|end|>", "d<|end|>"]


def test_a_conversation_may_start_with_the_assistant(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [assistant("b"), user("c"), assistant("d")]
    assert trained(chat_tokenizer(templates.CHATML), messages) == ["b<|im_end|>", "d<|im_end|>"]
    with pytest.raises(
        RowError, match="starts with an assistant message, and the chat template does not show where its prompt ends"
    ):
        trained(chat_tokenizer(templates.CAPTURED), messages)


def test_a_turn_that_the_template_omits_is_ignored(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [{"role": "bot", "content": "ignored"}, user("a"), assistant("b")]
    assert trained(chat_tokenizer(templates.OPENS_REASONING), messages) == ["b<|end|>"]


def test_a_qwen3_like_template_writes_reasoning_in_the_last_turn_only(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.QWEN3_LIKE)
    messages = [user("a"), assistant("b"), assistant("c"), user("a"), assistant("b")]
    assert trained(tokenizer, messages) == ["b<|im_end|>", "c<|im_end|>", "<think>\n\n</think>\n\nb<|im_end|>"]


def test_the_parts_of_a_content_are_trained_together(chat_tokenizer: MakeChatTokenizer) -> None:
    def parts(*texts: str) -> list[Row]:
        return [{"type": "text", "text": text} for text in texts]

    messages = [user(parts("a", "b")), assistant(parts("c", "d")), user(parts("a")), assistant(parts("d"))]
    assert trained(chat_tokenizer(templates.PARTS), messages) == ["cd<|im_end|>", "d<|im_end|>"]


def test_tool_calls_are_trained_and_tool_results_are_not(chat_tokenizer: MakeChatTokenizer) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": 1}}]}
    messages = [user("1+1?"), call, {"role": "tool", "content": "2"}, assistant("It is 2.")]
    tokenizer = chat_tokenizer(templates.TOOLS)
    assert trained(tokenizer, messages, tools=[{"name": "add"}]) == [
        '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|im_end|>',
        "It is 2.<|im_end|>",
    ]


def test_train_on_selects_turns(chat_tokenizer: MakeChatTokenizer) -> None:
    row = {"messages": TWO_TURNS}
    text, spans = chat_tokenizer(templates.CHATML, train_on="last_assistant").conversations.find_trained_spans(
        row, "messages"
    )
    assert trained_texts(text, spans) == ["see you<|im_end|>"]
    text, spans = chat_tokenizer(templates.CHATML, train_on="all").conversations.find_trained_spans(row, "messages")
    assert trained_texts(text, spans) == [text]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [user("a")]}, r"the conversation has no assistant message \(roles: user\)"),
        ({"messages": []}, "column 'messages' must hold a list of messages, not an empty list"),
        ({"messages": None}, "column 'messages' must hold a list of messages, not null"),
        ({"messages": "hi"}, "column 'messages' must hold a list of messages, not str"),
        ({"messages": ["hi"]}, "message 0 of column 'messages' must be an object, not str"),
        ({"chat": [], "id": 1}, "column 'messages' not found; columns here: chat, id"),
        ({"messages": [user("a"), {"role": "assistant"}]}, "the chat template cannot render this row: "),
        ({"messages": TWO_TURNS, "tools": "{"}, "column 'tools' holds text that is not JSON"),
        ({"messages": TWO_TURNS, "tools": {"a": 1}}, "column 'tools' must hold a list, not dict"),
    ],
)
def test_a_row_without_a_usable_conversation_is_refused_with_its_reason(
    chat_tokenizer: MakeChatTokenizer, row: Row, reason: str
) -> None:
    with pytest.raises(RowError, match=reason):
        chat_tokenizer(templates.CHATML).conversations.find_trained_spans(row, "messages")


def test_a_row_is_refused_if_turns_change_with_later_messages_and_cannot_be_marked(
    chat_tokenizer: MakeChatTokenizer,
) -> None:
    messages = [user("a"), assistant("b"), user("c"), assistant("d")]
    captured = "{% set body %}" + templates.QWEN3_LIKE + "{% endset %}{{ body }}"
    with pytest.raises(RowError, match="message 1 is rendered differently when other messages follow; cannot verify"):
        chat_tokenizer(captured).conversations.find_trained_spans({"messages": messages}, "messages")


def test_a_template_that_moves_an_answer_out_of_its_turn_is_refused(chat_tokenizer: MakeChatTokenizer) -> None:
    moves = (
        "{{ 'The answer will be ' + messages[-1].content + '\n' }}"
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
        "{{ message.content if message.role == 'user' else '...' }}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    with pytest.raises(RowError, match="assistant message is rendered outside of its turn; cannot verify its mask"):
        chat_tokenizer(moves).conversations.find_trained_spans(
            {"messages": [user("a"), assistant("forty-two")]}, "messages"
        )


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize(
    "messages", [TWO_TURNS, [user("a"), assistant("")], [user("Köln 你"), assistant(" 😀\n\n ü ")]]
)
def test_generation_blocks_give_the_mask_of_transformers(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str, messages: list[Row]
) -> None:
    tokenizer = chat_tokenizer(templates.GENERATION, name=name)
    text, spans = tokenizer.conversations.find_trained_spans({"messages": messages}, "messages")
    made = tokenizer.encode_conversations([text], [spans])
    # Trimmed offsets exclude white space from the mask of transformers; `bpe` is the same tokenizer without trimming.
    expected = reference("bpe" if name == "trim" else name).apply_chat_template(
        messages,
        chat_template=templates.GENERATION,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        add_special_tokens=False,
    )
    assert made.input_ids.values.tolist() == expected["input_ids"]
    assert [int(label != -100) for label in made.labels.values] == expected["assistant_masks"]


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize("template", ["CHATML", "RESPONSE", "LLAMA2", "QWEN3_LIKE"])
def test_trained_tokens_decode_to_the_trained_text(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str, template: str
) -> None:
    hf_tokenizer = reference(name)
    if template == "LLAMA2" and hf_tokenizer.bos_token is None:
        pytest.skip("the template writes a BOS, which this tokenizer does not have")
    messages = [system("be kind"), *TWO_TURNS]
    tokenizer = chat_tokenizer(getattr(templates, template), name=name)
    text, spans = tokenizer.conversations.find_trained_spans({"messages": messages}, "messages")
    made = tokenizer.encode_conversations([text], [spans])
    assert made.input_ids.values.tolist() == hf_tokenizer(text, add_special_tokens=False)["input_ids"]
    runs: list[list[int]] = [[]]
    for label in made.labels.values.tolist():
        if label != -100:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    decoded = [hf_tokenizer.decode(run).strip() for run in runs if run]
    assert decoded == [piece.strip() for piece in trained_texts(text, spans)]


def test_the_real_qwen3_template_trains_answers_and_reasoning(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(None, name="qwen3")
    messages = [system("be kind"), *TWO_TURNS]
    assert trained(tokenizer, messages) == ["hello<|im_end|>", "<think>\n\n</think>\n\nsee you<|im_end|>"]
    thought = {**assistant("four"), "reasoning_content": "two and two"}
    assert trained(tokenizer, [user("2+2?"), thought]) == ["<think>\ntwo and two\n</think>\n\nfour<|im_end|>"]


@pytest.mark.parametrize("name", ["granite", "tinyllama", "sample:model"])
def test_real_templates_train_the_answers(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], name: str
) -> None:
    tokenizer = chat_tokenizer(None, name=name)
    if reference(name).chat_template is None:
        pytest.skip("this tokenizer has no chat template")
    pieces = trained(tokenizer, TWO_TURNS)
    assert len(pieces) == 2
    stop = {"granite": "<|end_of_text|>", "tinyllama": "</s>", "sample:model": "<|im_end|>"}[name]
    assert pieces == [f"hello{stop}", f"see you{stop}"]


def test_shared_conversations_train_every_answer_in_order(
    chat_tokenizer: MakeChatTokenizer, shared_data: Callable[[str], Any]
) -> None:
    lines = shared_data("multi_turn_chat.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    tokenizer = chat_tokenizer(templates.CHATML)
    for messages in (json.loads(line)["messages"] for line in lines):
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        assert trained(tokenizer, messages) == [f"{answer}<|im_end|>" for answer in answers]


# --- Recordings --------------------------------------------------------------------------------------


CONTENT = st.text(st.sampled_from(list("ab\n {}%\"'\\<|>:=你😀")), max_size=8)
CONVERSATION = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), CONTENT), min_size=1, max_size=5)


@settings(max_examples=150)
@given(template=st.sampled_from(sorted(templates.ALL)), turns=CONVERSATION)
def test_recorded_blocks_stand_in_the_text_that_transformers_renders(
    template: str, turns: list[tuple[str, str]], reference: Callable[[str], Any]
) -> None:
    source = templates.ALL[template]
    tokenizer = reference("sample:model")
    roles = ["user", "assistant"] * 3 if template in ("llama2", "merges_system") else [role for role, _ in turns]
    messages = [{"role": role, "content": content} for role, (_, content) in zip(roles, turns, strict=False)]
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    recording = ReferenceRenderer(tokenizer).record(Conversation(messages, variables=tokens), template=source)
    assert recording.text == tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, **tokens)
    assert all(0 <= block.start <= block.end <= len(recording.text) for block in recording.blocks)
    assert {block.message for block in recording.blocks} <= {NO_MESSAGE, *range(len(messages))}
    assert recording.blocks or template == "captured"


SYSTEM_IN_THE_FIRST_TURN = (
    "{% set text = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if loop.first and text %}{{ text }}\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMED_HEADER = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + (' name=' + m.name if m.name else '') + '\n' }}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
)
LAST_HEADER_DIFFERS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'User: ' + m.content + '\n' }}"
    "{% elif loop.last %}{{ 'Assistant (final): ' + m.content + eos_token }}"
    "{% else %}{{ 'Assistant: ' + m.content + eos_token + '\n' }}{% endif %}{% endfor %}"
)
QUOTES_THE_QUESTION = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.role == 'assistant' %} (re: {{ messages[loop.index0 - 1].content }}){% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        (SYSTEM_IN_THE_FIRST_TURN, [system("You are a pirate."), assistant("Arr!"), user("x"), assistant("z")]),
        (NAMED_HEADER, [user("Hi"), {**assistant("A"), "name": "bot"}]),
        (QUOTES_THE_QUESTION, [user("What is up with the sky?"), assistant("blue")]),
    ],
    ids=["system text in the assistant turn", "a header with a name", "the question quoted after the answer"],
)
def test_a_turn_that_contains_what_the_model_does_not_produce_is_refused(
    chat_tokenizer: MakeChatTokenizer, template: str, messages: list[Row]
) -> None:
    with pytest.raises(RowError, match="cannot verify its mask"):
        chat_tokenizer(template).conversations.find_trained_spans({"messages": messages}, "messages")


def test_the_header_of_a_last_turn_may_differ(chat_tokenizer: MakeChatTokenizer) -> None:
    assert trained(chat_tokenizer(LAST_HEADER_DIFFERS), TWO_TURNS) == ["hello</s>", "see you</s>"]


def test_a_turn_without_a_loss_need_not_be_verified(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [user("Hi"), {**assistant("A"), "name": "bot", "train": False}, user("x"), assistant("B")]
    assert trained(chat_tokenizer(NAMED_HEADER), messages) == ["B<|im_end|>"]
