"""Conversation formats found in data sets, and the messages they are converted to; also in whole runs."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError
from sftkit.handlers.convert_messages import ConvertToMessages, needs_conversion
from sftkit.handlers.registry import build_handlers
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from support import dataset, handler, preprocess, read, write_jsonl, written

Locate = Callable[[str], str]
Shared = Callable[[str], Path]
Convert = Callable[..., tuple[list[Row], list[str]]]

TURN = {"from": "human", "value": "hi"}
CALL = {"name": "add", "arguments": {"a": 1, "b": "2"}}
WRAPPED = {"type": "function", "function": CALL}


@pytest.fixture
def convert(chat_tokenizer: Callable[..., ChatTokenizer]) -> Convert:
    """Runs rows through the handler; returns the remaining rows, and the reasons for the others."""

    def run(*rows: Row, name: str = "convert_to_messages", **arguments: Any) -> tuple[list[Row], list[str]]:
        [link] = build_handlers(dataset("unused", data_handlers=[handler(name, **arguments)]), 0)
        log = RowLog()
        batch = link.bind(chat_tokenizer())(Batch(list(rows), np.arange(1, len(rows) + 1)), log)
        return batch.rows, [bad.reason for bad in log.bad]

    return run


@pytest.fixture
def message(convert: Convert) -> Callable[..., dict[str, Any]]:
    """Converts one message."""

    def run(turn: Any, **arguments: Any) -> dict[str, Any]:
        rows, reasons = convert({"conversations": [TURN, turn]}, **arguments)
        assert not reasons
        [first, second] = rows[0]["messages"]
        assert first == {"role": "user", "content": "hi"}
        made: dict[str, Any] = second
        return made

    return run


@pytest.fixture
def reason(convert: Convert) -> Callable[..., str]:
    """Returns the reason why a message cannot be converted."""

    def run(turn: Any, **arguments: Any) -> str:
        rows, [why] = convert({"conversations": [TURN, turn]}, **arguments)
        assert not rows
        prefix = "message 1 of column 'conversations': "
        assert why.startswith(prefix)
        return why.removeprefix(prefix)

    return run


# --- Roles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "user") for name in ("human", "user")),
        *((name, "assistant") for name in ("gpt", "assistant", "model", "bot", "chatgpt")),
        *((name, "tool") for name in ("observation", "tool", "function_response")),
        ("system", "system"),
        ("developer", "developer"),
    ],
)
def test_role_names_of_data_sets_are_understood(name: str, role: str, message: Callable[..., Any]) -> None:
    assert message({"from": name, "value": "text"}) == {"role": role, "content": "text"}
    assert message({"role": name, "content": "text"}) == {"role": role, "content": "text"}


def test_role_names_can_be_configured(message: Callable[..., Any], reason: Callable[..., str]) -> None:
    assert message({"from": "expert", "value": "yes"}, roles={"expert": "assistant"})["role"] == "assistant"
    assert message({"from": "tool", "value": "yes"}, roles={"tool": "assistant"})["role"] == "assistant"
    called = message({"from": "does", "value": json.dumps(CALL)}, roles={"does": "function_call"})
    assert called["tool_calls"] == [WRAPPED]
    assert reason({"from": "humam", "value": "x"}) == (
        "unknown role 'humam' (did you mean 'human'?); map it to a known role with `roles`"
    )
    assert reason({"from": 7, "value": "x"}) == "unknown role 7; map it to a known role with `roles`"


def test_a_configured_role_must_be_a_known_role(convert: Convert) -> None:
    with pytest.raises(ConfigError, match=r"roles\.expert: unknown role 'assistent' \(did you mean 'assistant'\?\)"):
        convert({}, roles={"expert": "assistent"})


def test_the_keys_of_role_and_content_can_be_configured(convert: Convert) -> None:
    [row], _ = convert(
        {"log": [{"who": "gpt", "says": "x"}]}, conversation_column="log", role_key="who", content_key="says"
    )
    assert row["messages"] == [{"role": "assistant", "content": "x"}]


def test_the_key_with_a_value_is_used(message: Callable[..., Any]) -> None:
    turn = {"role": None, "content": None, "from": "gpt", "value": "x"}  # as Arrow fills up rows of two forms
    assert message(turn) == {"role": "assistant", "content": "x"}


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        ("hi", "it must be an object, not str"),
        (None, "it must be an object, not null"),
        ({}, "it has no 'role' (keys: none)"),
        ({"speaker": "gpt", "value": "x"}, "it has no 'role' (keys: speaker, value)"),
        ({"from": "gpt"}, "it has no content"),
        ({"from": "gpt", "value": None}, "it has no content"),
        ({"from": "gpt", "value": 5}, "its content must be text, not int"),
        ({"from": "human", "value": {"a": 1}}, "its content must be text, not dict"),
        ({"from": "gpt", "value": []}, "its content must be text, not an empty list"),
    ],
)
def test_an_invalid_message_is_quarantined_with_a_reason(turn: Any, why: str, reason: Callable[..., str]) -> None:
    assert reason(turn) == why


# --- Calls --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        json.dumps(CALL),
        f"\n {json.dumps(CALL, indent=2)} \n",
        json.dumps([CALL]),
        CALL,
        [CALL],
        json.dumps({"name": "add", "arguments": json.dumps(CALL["arguments"])}),
        json.dumps({"name": "add", "parameters": CALL["arguments"]}),
        json.dumps(WRAPPED),
        json.dumps({"function": {"name": "add", "arguments": json.dumps(CALL["arguments"])}}),
    ],
)
def test_a_function_call_is_an_assistant_turn_with_tool_calls(value: Any, message: Callable[..., Any]) -> None:
    expected = {"role": "assistant", "content": "", "tool_calls": [WRAPPED]}
    assert message({"from": "function_call", "value": value}) == expected
    [call] = message({"from": "function_call", "value": value})["tool_calls"]
    assert list(call) == ["type", "function"]  # templates write objects in this order
    assert list(call["function"]) == ["name", "arguments"]


@pytest.mark.parametrize("arguments", [{}, None, "", "{}"])
def test_a_call_may_have_no_arguments(arguments: Any, message: Callable[..., Any]) -> None:
    for value in ({"name": "now", "arguments": arguments}, {"name": "now"}):
        [call] = message({"from": "function_call", "value": json.dumps(value)})["tool_calls"]
        assert call == {"type": "function", "function": {"name": "now", "arguments": {}}}


def test_several_calls_of_one_turn_and_their_ids(message: Callable[..., Any]) -> None:
    other = {"name": "now", "arguments": {}}
    both = [WRAPPED, {"type": "function", "function": other}]
    for value in (json.dumps([CALL, other]), f"{json.dumps(CALL)}\n{json.dumps(other)}"):
        assert message({"from": "function_call", "value": value})["tool_calls"] == both
    [call] = message({"from": "function_call", "value": json.dumps({"id": "c1", **CALL})})["tool_calls"]
    assert call == {"id": "c1", **WRAPPED}


@pytest.mark.parametrize(
    ("before", "content", "reasoning"),
    [
        ("<think>\nTwo numbers.\n</think>\n\n", "", "Two numbers."),
        ("<think></think>", "", ""),
        ("I shall add them: ", "I shall add them:", None),
        ("Sets {a} and [1] {x", "Sets {a} and [1] {x", None),
        ('<think>{"name": "no"}</think> I call. ', "I call.", '{"name": "no"}'),
    ],
)
def test_text_before_a_call_is_content_or_reasoning(
    before: str, content: str, reasoning: str | None, message: Callable[..., Any]
) -> None:
    made = message({"from": "function_call", "value": before + json.dumps(CALL)})
    assert made.pop("tool_calls") == [WRAPPED]
    assert made.pop("reasoning_content", None) == reasoning
    assert made == {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("add(1, 2)", "its call is not JSON: Expecting value"),
        ("", "its call is not JSON: Expecting value"),
        ('{"name": "add", "arguments": {}} and then', "its call is not JSON: Extra data"),
        ('{"name": "a", "arguments": {}} {"b": 1}', "its call is not JSON: Extra data"),
        ('{"name": "a", "arguments": {}} or {"name": "b", "arguments": {}}', "its call is not JSON: Extra data"),
        ("[" * 100_000, "its call is not JSON: maximum recursion depth exceeded"),
        ("9" * 5000, "its call is not JSON: Exceeds the limit"),
        ("5", "a call must be an object with a name, not int"),
        ("[]", "a call must be an object with a name, not an empty list"),
        ('["add"]', "a call must be an object with a name, not str"),
        ('{"arguments": {}}', "a call has no name (keys: arguments)"),
        ('{"name": "", "arguments": {}}', "a call has no name (keys: name, arguments)"),
        ('{"name": "add", "args": {"a": 1}}', "the call of 'add' has no arguments (keys: name, args)"),
        ('{"name": "add", "arguments": [1]}', "the arguments of 'add' must be an object, not list"),
        ('{"name": "add", "arguments": "a, b"}', "the arguments of 'add' is not JSON: Expecting value"),
        ('{"name": "add", "arguments": "[1]"}', "the arguments of 'add' must be an object, not list"),
        (None, "it has no content"),
        ([{"type": "text", "text": "add"}], "a call has no name (keys: text)"),
    ],
)
def test_an_invalid_call_is_quarantined_with_a_reason(value: Any, why: str, reason: Callable[..., str]) -> None:
    assert reason({"from": "function_call", "value": value}).startswith(why)


def test_calls_under_their_own_keys_are_read(message: Callable[..., Any], reason: Callable[..., str]) -> None:
    called = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **WRAPPED}]}
    as_text = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": "2"}'}}
    for calls in ([as_text], json.dumps([as_text]), [{"id": "c1", **WRAPPED}]):
        assert message({"role": "assistant", "content": None, "tool_calls": calls}) == called
        assert message({"role": "assistant", "tool_calls": calls}) == called
    assert message({"role": "assistant", "content": "x", "function_call": as_text["function"]}) == {
        "role": "assistant",
        "content": "x",
        "tool_calls": [WRAPPED],
    }
    assert message({"role": "assistant", "content": "x", "tool_calls": []}) == {"role": "assistant", "content": "x"}
    assert reason({"role": "assistant", "tool_calls": "add"}) == "its tool_calls is not JSON: Expecting value"


def test_a_call_and_the_next_answer_are_two_messages(convert: Convert) -> None:
    turns = [TURN, {"from": "function_call", "value": json.dumps(CALL)}, {"from": "gpt", "value": "three"}]
    [row], _ = convert({"conversations": turns})
    assert [each["role"] for each in row["messages"]] == ["user", "assistant", "assistant"]


def test_results_that_are_not_text_become_json(message: Callable[..., Any]) -> None:
    for value, text in (
        ('{"sum": 3}', '{"sum": 3}'),
        ({"sum": "drei Stück"}, '{"sum": "drei Stück"}'),
        ([{"type": "café", "value": 1}], '[{"type": "café", "value": 1}]'),
        (3, "3"),
        ([], "[]"),
        ([{"type": "text", "value": "three"}], "three"),
    ):
        assert message({"from": "observation", "value": value}) == {"role": "tool", "content": text}
    parts = [{"type": "text", "text": "three"}]
    assert message({"role": "tool", "content": parts}) == {"role": "tool", "content": parts}


# --- Parts --------------------------------------------------------------------------------------------


def part(kind: str, value: Any, **keys: Any) -> dict[str, Any]:
    return {"type": kind, "value": value, **keys}


def test_parts_become_content_reasoning_and_calls(message: Callable[..., Any]) -> None:
    parts = [
        part("reasoning", "Two "),
        part("reasoning", "numbers."),
        part("text", "I "),
        part("text", "add."),
        part("tool_call", json.dumps(CALL)),
        part("tool_call", {"name": "now"}),
    ]
    assert message({"role": "assistant", "content": parts}) == {
        "role": "assistant",
        "content": "I add.",
        "reasoning_content": "Two numbers.",
        "tool_calls": [WRAPPED, {"type": "function", "function": {"name": "now", "arguments": {}}}],
    }
    assert message({"role": "user", "content": [part("text", "hi")]}) == {"role": "user", "content": "hi"}
    only_calls = {"role": "assistant", "content": "", "tool_calls": [WRAPPED]}
    assert message({"from": "function_call", "value": [part("tool_call", CALL)]}) == only_calls


def test_parts_that_templates_know_are_unchanged(message: Callable[..., Any]) -> None:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "a.png"}}]
    assert message({"from": "human", "value": parts}) == {"role": "user", "content": parts}


@pytest.mark.parametrize(
    ("role", "parts", "why"),
    [
        ("assistant", [part("image", "a.png")], "a part of type 'image' is not understood; known are"),
        ("user", [part("reasoning", "hm")], "a user message cannot contain a part of type 'reasoning'"),
        ("tool", [part("text", "x"), part("text", 3)], "the value of a part of type 'text' must be text, not int"),
        ("assistant", [part("tool_call", "add()")], "its call is not JSON"),
        (
            "assistant",
            [part("text", "x"), part("reasoning", "hm")],
            "its parts are in the order text, reasoning; they must be reasoning, then text, then tool calls",
        ),
        (
            "assistant",
            [part("text", "x", loss_weight=0.0), part("text", "y")],
            "its parts differ in 'loss_weight', which only a whole message can have",
        ),
    ],
)
def test_invalid_parts_are_quarantined_with_a_reason(
    role: str, parts: list[Any], why: str, reason: Callable[..., str]
) -> None:
    assert reason({"role": role, "content": parts}).startswith(why)


def test_reasoning_in_two_places_is_quarantined(message: Callable[..., Any], reason: Callable[..., str]) -> None:
    beside = {"role": "assistant", "content": "x", "reasoning_content": "hm"}
    assert message(beside) == beside
    assert message({"role": "assistant", "content": None, "thinking": "hm"}) == {
        "role": "assistant",
        "content": "",
        "thinking": "hm",
    }
    twice = {"role": "assistant", "content": [part("reasoning", "hm")], "reasoning_content": "hm"}
    assert reason(twice) == "it has reasoning both in its content and beside it"
    assert message({**twice, "reasoning_content": None})["reasoning_content"] == "hm"


def test_flags_and_other_keys_of_a_message_stay(message: Callable[..., Any]) -> None:
    assert message({"from": "gpt", "value": "x", "train": False, "weight": 0, "name": "Ann"}) == {
        "role": "assistant",
        "content": "x",
        "train": False,
        "weight": 0,
        "name": "Ann",
    }
    parts = [part("reasoning", "hm", loss_weight=0.5), part("text", "x", loss_weight=0.5)]
    assert message({"role": "assistant", "content": parts})["loss_weight"] == 0.5
    assert message({"role": "assistant", "content": parts, "loss_weight": None})["loss_weight"] == 0.5


def test_flags_of_a_message_and_of_its_parts_must_not_contradict_each_other(convert: Convert) -> None:
    turn = {"role": "assistant", "content": [part("text", "x", loss=True)], "loss": False}
    _, [reason] = convert({"conversations": [TURN, turn]})
    assert reason.endswith("its 'loss' is False, and that of its parts is True")


# --- Rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["conversations", "messages", "conversation"])
def test_the_conversation_column_is_found(column: str, convert: Convert) -> None:
    row = {"id": 7, column: [TURN]}
    [made], _ = convert(row)
    assert made == {**row, "messages": [{"role": "user", "content": "hi"}]}
    assert row[column] == [TURN]


def test_an_invalid_conversation_is_quarantined_with_a_reason(convert: Convert) -> None:
    rows, reasons = convert({"a": 1}, {"messages": []}, {"conversation": "hi"})
    assert rows == []
    assert reasons == [
        "no known format has its columns: a",
        "column 'messages' must hold a list of messages, not an empty list",
        "column 'conversation' must hold a list of messages, not str",
    ]


def test_the_system_column_becomes_a_message_if_there_is_none(convert: Convert) -> None:
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": "hi"}
    own = {"from": "system", "value": "Be long."}
    rows, reasons = convert(
        {"conversations": [TURN], "system": "Be brief."},
        {"conversations": [own, TURN], "system": "Be brief."},
        {"conversations": [TURN], "system": ""},
        {"conversations": [TURN], "system": None},
        {"conversations": [TURN], "system": 5},
    )
    assert [row["messages"] for row in rows] == [
        [system, user],
        [{"role": "system", "content": "Be long."}, user],
        [user],
        [user],
    ]
    assert reasons == ["column 'system' must be text, not int"]
    [row], _ = convert({"conversations": [TURN], "prompt": "Be brief."}, system_column="prompt")
    assert row["messages"] == [system, user]


BARE = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": BARE}


@pytest.mark.parametrize(
    ("given_tools", "tools"),
    [
        (json.dumps([BARE]), [TOOL]),
        ([BARE], [TOOL]),
        (BARE, [TOOL]),
        ([TOOL], [TOOL]),
        ([{"type": "function", **BARE}], [TOOL]),
        ([{"function": BARE}], [TOOL]),
        ([{"type": "web_search"}], [{"type": "web_search"}]),
        ("", None),
        (" \n", None),
        ("[]", None),
        ([], None),
        (None, None),
    ],
)
def test_tools_become_the_list_that_templates_expect(given_tools: Any, tools: Any, convert: Convert) -> None:
    [row], _ = convert({"conversations": [TURN], "tools": given_tools})
    assert row["tools"] == tools
    [row], _ = convert({"conversations": [TURN], "functions": given_tools}, tools_column="functions")
    assert row["tools"] == tools
    assert row["functions"] == given_tools


@pytest.mark.parametrize(
    ("given_tools", "why"),
    [
        ("add", "column 'tools': it is not JSON: Expecting value"),
        ("5", "column 'tools': it must be a list of tools, not int"),
        (["add"], "column 'tools': tool 0 must be an object, not str"),
        ([BARE, {"description": "Adds."}], "column 'tools': tool 1 has no name (keys: description)"),
    ],
)
def test_invalid_tools_are_quarantined_with_a_reason(given_tools: Any, why: str, convert: Convert) -> None:
    assert convert({"conversations": [TURN], "tools": given_tools}) == ([], [why])


def test_rows_without_tools_get_no_tools_column(convert: Convert) -> None:
    [row], _ = convert({"conversations": [TURN]})
    assert "tools" not in row


@pytest.mark.parametrize("name", ["convert_sharegpt", "sharegpt_to_messages"])
def test_aliases_of_the_handler(name: str, convert: Convert) -> None:
    [row], _ = convert({"chat": [TURN]}, name=name, conversation_column_name="chat")
    assert row["messages"] == [{"role": "user", "content": "hi"}]


def test_only_conversations_that_need_it_are_converted(convert: Convert) -> None:
    standard = {"messages": [{"role": "documents", "content": "x"}, {"role": "user", "content": "hi"}], "tools": [TOOL]}
    foreign = {"messages": [TURN], "tools": [BARE]}
    rows, reasons = convert(standard, foreign, {"messages": 5}, only_if_needed=True)
    assert rows == [standard, {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]}, {"messages": 5}]
    assert reasons == []
    plain = {"messages": [{"role": "user", "content": "hi", "weight": 0}], "tools": [TOOL], "functions": None}
    [row], _ = convert(plain, only_if_needed=True)
    assert row is plain
    [row], _ = convert({"chat": plain["messages"]}, conversation_column="chat", only_if_needed=True)
    assert row["messages"] == plain["messages"]


def test_formats_that_need_conversion_are_recognized() -> None:
    user = {"role": "user", "content": "hi"}
    for foreign in (
        [TURN],
        [user, {"role": "assistant", "content": [part("text", "x")]}],
        [user, {"role": "Assistant", "content": "x"}],
        [user, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}],
        [user, {"role": "assistant", "content": "", "tool_calls": "[]"}],
        [user, {"role": "assistant", "content": None, "function_call": CALL}],
        [user, {"role": "assistant", "content": None, "refusal": "no"}],
        [user, {"role": "assistant", "text": "x"}],
        [user, {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]}],
        [user, {"role": "tool", "content": {"a": 1}}],
        [{"role": "assistant", "content": None}, "hi"],
        [user, {"content": "x"}],
        "[]",
        user,
    ):
        assert needs_conversion(foreign)
    for known in (
        [{"role": "user", "content": "hi", "from": "web"}],
        [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        [user, {"role": "assistant", "content": None, "tool_calls": [WRAPPED]}],
        [user, {"role": "assistant", "content": "x", "function_call": None, "refusal": None}],
        [{"role": "developer", "content": "x"}, {**user, "name": "Ann"}],
        [],
        None,
        5,
    ):
        assert not needs_conversion(known)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.sampled_from(["human", "gpt", "function_call", "text", '{"name": "f"}', "observation"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["from", "value", "role", "content", "type", "text", "tool_calls", "function", "name", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    )
)
@settings(max_examples=300)
def test_any_row_is_either_converted_or_quarantined(value: Any) -> None:
    step = ConvertToMessages().bind(None)  # type: ignore[arg-type]  # it asks nothing of the tokenizer
    log = RowLog()
    batch = step(Batch([{"messages": [TURN, value], "tools": value}, {"conversations": value}], np.array([1, 2])), log)
    assert len(batch) + len(log.bad) == 2
    for row in batch.rows:
        for each in row["messages"]:
            assert each["role"] in {"system", "developer", "user", "assistant", "tool"}
            assert isinstance(each["content"], (str, list))
        again = step(Batch([row], np.array([1])), log)
        assert [each["messages"] for each in again.rows] in ([row["messages"]], [])


# --- Whole builds -------------------------------------------------------------------------------------


def test_sharegpt_data_and_equivalent_messages_give_the_same_shards(tmp_path: Path, tokenizer_path: Locate) -> None:
    foreign = [
        {
            "conversations": [
                TURN,
                {"from": "function_call", "value": json.dumps({"name": "f", "arguments": {"n": number}})},
                {"from": "observation", "value": str(number)},
                {"from": "gpt", "value": f"It is {number}."},
            ],
            "tools": json.dumps([BARE]),
            "system": "Be brief.",
        }
        for number in range(3)
    ]
    messages = [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"n": number}}}],
                },
                {"role": "tool", "content": str(number)},
                {"role": "assistant", "content": f"It is {number}."},
            ],
            "tools": [TOOL],
        }
        for number in range(3)
    ]
    template = (
        "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
        "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    common: dict[str, Any] = {
        "model_name_or_path": tokenizer_path("bpe"),
        "processor": {"chat_template": template},
    }
    mask = handler("tokenize_and_apply_chat_template_with_masking")
    given_file = write_jsonl(tmp_path / "foreign.jsonl", foreign)
    preprocess(tmp_path / "a", dataset(given_file, data_handlers=[handler("convert_to_messages"), mask]), **common)
    plain = write_jsonl(tmp_path / "plain.jsonl", messages)
    preprocess(tmp_path / "b", dataset(plain, data_handlers=[mask]), **common)
    preprocess(tmp_path / "c", training_data_path=(str(given_file),), **common)
    assert len(written(tmp_path / "a")) == 3
    assert written(tmp_path / "a") == written(tmp_path / "b") == written(tmp_path / "c")


SHARED_FILES = ["glaive_toolcall_en_demo.json", "reason_tool_use_demo_50.jsonl"]


def said_by_the_model(row: Row) -> list[str]:
    """The text, without reasoning, that Qwen3 has to produce for each assistant turn of a raw row."""
    turns = row["conversations"] if "conversations" in row else row["messages"]
    said = []
    for turn in turns:
        parts = turn.get("content") or [{"type": turn["from"], "value": turn["value"]}]
        if turn.get("role", "assistant") != "assistant" or parts[0]["type"] in ("human", "observation"):
            continue
        text = "".join(each["value"] for each in parts if each["type"] in ("gpt", "text")).lstrip("\n")
        for each in parts:
            if each["type"] in ("function_call", "tool_call"):
                call = json.loads(each["value"])
                arguments = json.dumps(call["arguments"], ensure_ascii=False)
                written_call = f'{{"name": "{call["name"]}", "arguments": {arguments}}}'
                text += ("\n" if text else "") + f"<tool_call>\n{written_call}\n</tool_call>"
        said.append(text + "<|im_end|>")
    return said


def reasoning_before_the_end(row: Row) -> str:
    """The reasoning of the last turn of a raw row."""
    parts = row["messages"][-1]["content"] if "messages" in row else []
    return "".join(each["value"] for each in parts if each["type"] == "reasoning").strip("\n")


@pytest.mark.sampled(5)
@pytest.mark.parametrize("simple", [False, True])
@pytest.mark.parametrize("name", SHARED_FILES)
def test_the_trained_text_of_shared_files_equals_the_answers(
    name: str,
    simple: bool,
    tmp_path: Path,
    shared_data: Shared,
    tokenizer_path: Locate,
    reference: Callable[[str], Any],
) -> None:
    path = shared_data(name)
    qwen = tokenizer_path("qwen3")
    raw = [row for _, row in read(path)[0]]
    if simple:
        manifest = preprocess(tmp_path, training_data_path=(str(path),), model_name_or_path=qwen, render="once")
    else:
        handlers = [handler("convert_to_messages"), handler("tokenize_and_apply_chat_template_with_masking")]
        manifest = preprocess(tmp_path, dataset(path, data_handlers=handlers), model_name_or_path=qwen, render="once")
    rows = written(tmp_path)
    assert manifest.rows_written == len(rows) == len(raw) > 0
    assert not (tmp_path / "quarantine.jsonl").exists()
    tokenizer = reference("qwen3")
    for row, source in zip(rows, raw, strict=True):
        trained = np.array(row["labels"]) != -100
        edges = np.flatnonzero(np.diff(np.concatenate(([False], trained, [False]))))
        runs = [tokenizer.decode(row["input_ids"][start:stop]) for start, stop in edges.reshape(-1, 2)]
        assert all(run.endswith("<|im_end|>") for run in runs)
        assert runs[-1].startswith(f"<think>\n{reasoning_before_the_end(source)}\n</think>\n\n")
        answers = [re.sub(r"\A<think>\n.*?\n</think>\n\n", "", run, flags=re.DOTALL) for run in runs]
        assert answers == [unicodedata.normalize("NFC", text) for text in said_by_the_model(source)]
