"""`roles_to_train`: the contents of messages of other roles carry a loss, with the stop tokens after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chat_templates as templates
from reliability.material import sftkit
from sftkit.core.accounting.row_notes import EMPTY_ANSWER, LOSS_FLAG_UNUSED
from sftkit.core.row_log import RowDroppedError, RowError
from sftkit.core.rows import IGNORE_INDEX, Row
from sftkit.core.token_kinds import TokenKind
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.templates.named_templates import named_or_given
from support import dataset, handler, preprocess, trained_texts, write_jsonl
from template_zoo.conversations import assistant, system, user

MakeChatTokenizer = Callable[..., ChatTokenizer]

END = "<|im_end|>"
ALL_ROLES = ("assistant", "user", "tool", "system")
TALK = [system("be kind"), user("user"), assistant("hi"), user(" bye "), assistant("so")]


def trained(tokenizer: ChatTokenizer, messages: list[Row], **row: Any) -> list[str]:
    text, spans = tokenizer.conversations.find_trained_spans({**row, "messages": messages}, "messages")
    return [piece for piece in trained_texts(text, spans) if piece]


@pytest.mark.parametrize(
    ("template", "roles", "expected"),
    [
        ("CHATML", ("user",), ["user", END, " bye ", END]),
        ("CHATML", ("user", "assistant"), ["user", END, f"hi{END}", " bye ", END, f"so{END}"]),
        ("CHATML", ("system",), ["be kind", END]),
        ("CHATML", ("tool",), []),
        ("CHATML", ALL_ROLES, ["be kind", END, "user", END, f"hi{END}", " bye ", END, f"so{END}"]),
        ("GENERATION", ("user", "assistant"), ["user", END, f"hi{END}", " bye ", END, f"so{END}"]),
        ("BY_INDEX", ("user", "assistant"), ["user", END, f"hi{END}", " bye ", END, f"so{END}"]),
        ("LLAMA2", ("user", "assistant"), ["user", " hi </s>", "bye", " so </s>"]),
        ("LLAMA2", ("system",), ["be kind"]),
    ],
)
def test_contents_and_stop_tokens_are_trained_and_headers_never(
    chat_tokenizer: MakeChatTokenizer, template: str, roles: tuple[str, ...], expected: list[str]
) -> None:
    assert trained(chat_tokenizer(getattr(templates, template), roles_to_train=roles), TALK) == expected


def test_tool_results_and_other_names_of_roles(chat_tokenizer: MakeChatTokenizer) -> None:
    specials = ("<|im_start|>", END)
    tokenizer = chat_tokenizer(named_or_given("chatml"), special=specials, roles_to_train=("tool",))
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    results = [{"role": "tool", "content": "3"}, {"role": "tool", "content": "4"}]
    talk = [user("q"), assistant("", tool_calls=[call, call]), *results, assistant("7")]
    assert trained(tokenizer, talk) == ["3", END, "4", END]
    assert trained(tokenizer, [user("q")]) == []
    humans = chat_tokenizer(templates.CHATML, roles_to_train=("user",))
    assert trained(humans, [{"role": "Human", "content": "hi"}, {"role": "gpt", "content": "ho"}]) == ["hi", END]


@pytest.mark.parametrize(
    ("options", "keys", "expected"),
    [
        ({}, {"train": False}, ["b", END]),
        ({}, {"train": True}, ["abc", END, "b", END]),
        ({}, {"train_ranges": [{"begin": 1, "end": 2, "train": False}]}, ["a", "c", END, "b", END]),
        ({}, {"train_ranges": [{"begin": 2, "end": 3, "train": True}]}, ["c", END, "b", END]),
        ({"train_on_stop": "none"}, {}, ["abc", "b"]),
        ({"train_on_stop": "last"}, {}, ["abc", "b"]),
        ({"mask_pattern": "b"}, {}, ["abc", END, "b", END]),
    ],
)
def test_flags_ranges_and_stop_tokens(
    chat_tokenizer: MakeChatTokenizer, options: Row, keys: Row, expected: list[str]
) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, roles_to_train=("user",), **options)
    assert trained(tokenizer, [user("abc") | keys, assistant("x"), user("b"), assistant("y")]) == expected


def test_train_on_chooses_assistant_turns_only(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, roles_to_train=("user", "assistant"), train_on="last_assistant")
    assert trained(tokenizer, TALK) == ["user", END, " bye ", END, f"so{END}"]


def test_parts_of_a_content(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer(templates.CHATML, roles_to_train=("user",))
    content = [{"type": "text", "text": "ab"}, {"type": "text", "text": "cd", "train": False}]
    assert trained(tokenizer, [{"role": "user", "content": content}, assistant("x")]) == ["ab", END]


@pytest.mark.parametrize("kinds", [False, True])
def test_weights_kinds_and_edges(chat_tokenizer: MakeChatTokenizer, kinds: bool) -> None:
    roles = ("user", "assistant")
    tokenizer = chat_tokenizer(templates.CHATML, roles_to_train=roles, token_kinds=kinds, range_edges="inner")
    row = {"messages": [user("hello there") | {"weight": 0.5}, assistant("x")]}
    encoded = tokenizer.encode_prepared([tokenizer.conversations.prepare(row, "messages")])
    assert encoded.weights is not None
    is_trained = encoded.labels.values != IGNORE_INDEX
    found = dict.fromkeys(encoded.weights.values[is_trained].tolist())
    assert list(found) == [0.5, 1.0]
    if kinds:
        assert encoded.kinds is not None
        assert set(encoded.kinds.values[is_trained].tolist()) == {TokenKind.CONTENT, TokenKind.STOP}
    ranges = [{"begin": 0, "end": 2, "train": False}]
    row = {"messages": [user("hello") | {"train_ranges": ranges}, assistant("x", train=False)]}
    encoded = tokenizer.encode_prepared([tokenizer.conversations.prepare(row, "messages")])
    ids = [label for label in encoded.labels.values.tolist() if label != IGNORE_INDEX]
    assert "he" not in tokenizer.tokenizer.decode(ids)


def test_flags_that_count_and_empty_answers(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [user("q") | {"train": True}, assistant("")]
    for roles, notes in ((("assistant",), [EMPTY_ANSWER, LOSS_FLAG_UNUSED]), (("assistant", "user"), [EMPTY_ANSWER])):
        tokenizer = chat_tokenizer(templates.CHATML, roles_to_train=roles)
        assert list(tokenizer.conversations.prepare({"messages": messages}, "messages").notes.rules) == notes
    dropping = chat_tokenizer(templates.CHATML, roles_to_train=("assistant",), drop_empty_answers=True)
    with pytest.raises(RowDroppedError):
        dropping.conversations.prepare({"messages": messages}, "messages")
    kept = chat_tokenizer(templates.CHATML, roles_to_train=("assistant", "user"), drop_empty_answers=True)
    assert kept.conversations.prepare({"messages": messages}, "messages").trained


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("m.content | upper", "what the chat template writes depends on the content of a message of roles_to_train"),
        ("m.content + m.content", "message 0: the chat template writes its content several times"),
        ("m.content | tojson", "message 0: the chat template does not write its content unchanged"),
        ("m.content + ('!' if 'hi' in m.content else '?')", "what the chat template writes depends on the content"),
    ],
)
def test_a_content_that_cannot_be_verified_is_refused(
    chat_tokenizer: MakeChatTokenizer, change: str, reason: str
) -> None:
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (" + change + ") + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    with pytest.raises(RowError, match=reason):
        trained(chat_tokenizer(source, roles_to_train=("user",)), [user('"hi"')])


def test_other_contents_than_text_are_refused(chat_tokenizer: MakeChatTokenizer) -> None:
    tokenizer = chat_tokenizer("{% for m in messages %}{{ m.content }}</s>{% endfor %}", roles_to_train=("tool",))
    with pytest.raises(RowError, match="message 1 has a content that is not text"):
        trained(tokenizer, [user("q"), {"role": "tool", "content": {"a": 1}}])


def test_the_audit_expects_other_roles(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": TALK}, {"messages": TALK[:2]}])
    data = dataset(source, data_handlers=[handler("tokenize_and_apply_chat_template_with_masking")])
    options: dict[str, Any] = {"roles_to_train": ALL_ROLES, "model_name_or_path": tokenizer_path("bpe")}
    manifest = preprocess(tmp_path / "out", data, processor={"chat_template": templates.CHATML}, **options)
    assert manifest.audit is not None
    assert not manifest.audit.findings


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--roles_to_train", "robot"], "roles_to_train has 'robot'; its roles are assistant, user, tool, system"),
        (["--roles_to_train", "user", "--train_on", "all"],
         "train_on=all trains every token, whatever its role; leave roles_to_train or train_on out"),
        (["--roles_to_train", "user", "--train_on", "last_assistant"],
         "train_on=last_assistant chooses assistant turns, which roles_to_train leaves out; add assistant"),
        (["--roles_to_train", "user", "assistant", "--render", "per_turn"],
         "render=per_turn is about assistant turns, and roles_to_train has other roles; set only one of them"),
        (["--roles_to_train", "user", "--response_template", "A:"],
         "roles_to_train is about messages, and cannot be used with response_template; leave one of them out"),
    ],
)  # fmt: skip
def test_roles_that_cannot_be_used_are_refused(tmp_path: Path, arguments: list[str], says: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"messages": TALK}])
    common = ["--training_data_path", str(source), "--model_name_or_path", "sample:model"]
    done = sftkit("preprocess", *common, "--output_dir", str(tmp_path / "out"), *arguments)
    assert (done.code, done.err) == (2, f"error: {says}\n")
