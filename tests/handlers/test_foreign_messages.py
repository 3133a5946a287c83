"""Messages of other tools: what each form becomes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conversation_formats import BARE, FORMATS, ROME, WEATHER, Format, assistant, call, system, user
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch, Row
from sftkit.handlers.registry import build_handlers
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from support import dataset, handler

Make = Callable[..., ChatTokenizer]
Convert = Callable[..., tuple[list[Row], list[str]]]

USER = user("hi")
GRANITE = (  # as Granite 3.1: it has a role for calls, and none for developers
    "{% for m in messages %}{% if m.role == 'system' %}<|system|>{{ m.content }}"
    "{% elif m.role == 'user' %}<|user|>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<|assistant|>{{ m.content }}</s>"
    "{% elif m.role == 'assistant_tool_call' %}<|assistant|><|call|>{{ m.content }}</s>"
    "{% elif m.role == 'tool_response' %}<|response|>{{ m.content }}{% endif %}{% endfor %}"
)
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PARTS = (  # writes parts of reasoning, as Magistral's template does
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{{ p.text if p.type == 'text' else '[THINK]' + p.thinking + '[/THINK]' }}{% endfor %}{% endif %}</s>{% endfor %}"
)


@pytest.fixture
def convert(chat_tokenizer: Make) -> Convert:
    """Runs rows through the handler for a template; returns the remaining rows, and the reasons for the others."""

    def run(*rows: Row, template: str = CHATML, **arguments: Any) -> tuple[list[Row], list[str]]:
        [link] = build_handlers(dataset("unused", data_handlers=[handler("convert_to_messages", **arguments)]), 0)
        log = RowLog()
        batch = link.bind(chat_tokenizer(template))(Batch(list(rows), np.arange(1, len(rows) + 1)), log)
        return batch.rows, [bad.reason for bad in log.bad]

    return run


def converted(convert: Convert, *turns: Any, **arguments: Any) -> list[Any]:
    """The messages made of some turns after a question."""
    [row], _ = convert({"messages": [USER, *turns]}, **arguments)
    first, *others = row["messages"]
    assert first == USER
    return others


def refused(convert: Convert, turn: Any, **arguments: Any) -> str:
    rows, [reason] = convert({"messages": [USER, turn]}, **arguments)
    assert not rows
    return reason.removeprefix("message 1 of column 'messages': ")


@pytest.mark.parametrize("form", [form for form in FORMATS if form.name != "anthropic"], ids=str)
def test_a_format_becomes_these_messages(form: Format, convert: Convert) -> None:
    [row], reasons = convert(form.row)
    assert reasons == []
    assert row["messages"] == form.messages
    assert row.get("tools") == form.tools


# --- Roles --------------------------------------------------------------------------------------------


def test_role_names_are_understood_in_any_capitalization(convert: Convert) -> None:
    names = {
        "user": ("User", " human", "HUMAN", "prompter"),
        "assistant": ("Assistant", "ChatGPT", "bard", "bing", "Model", "claude"),
        "system": ("System", "system_prompt"),
        "tool": ("Observation", "tool_result", "Function-Response", "tool output", "ipython", "function"),
    }
    for role, all_names in names.items():
        for name in all_names:
            for needed in (False, True):
                made = converted(convert, {"role": name, "content": "x"}, only_if_needed=needed)
                assert made == [{"role": role, "content": "x"}], name


@pytest.mark.parametrize("needed", [False, True])
def test_an_unknown_or_missing_role_is_quarantined(needed: bool, convert: Convert) -> None:
    assert refused(convert, {"role": "assistent", "content": "x"}, only_if_needed=needed) == (
        "unknown role 'assistent' (did you mean 'assistant'?); map it to a known role with `roles`"
    )
    assert refused(convert, {"role": None, "content": "x"}, only_if_needed=needed) == (
        "it has no 'role' (keys: role, content)"
    )
    assert refused(convert, {"content": "x"}, only_if_needed=needed) == "it has no 'role' (keys: content)"
    assert refused(convert, {"role": " ", "content": "x"}, only_if_needed=needed).startswith("unknown role ' '")
    narrator = {"role": "narrator", "content": "x"}
    assert refused(convert, narrator, template=GRANITE, only_if_needed=needed) == (
        "unknown role 'narrator'; map it to a known role with `roles`"
    )


def test_roles_that_the_template_has_itself_stay(convert: Convert) -> None:
    own = [
        {"role": "assistant_tool_call", "content": '[{"name": "f", "arguments": {}}]'},
        {"role": "tool_response", "content": "3"},
    ]
    for needed in (False, True):
        assert converted(convert, *own, template=GRANITE, only_if_needed=needed) == own
    called, result = converted(convert, *own, only_if_needed=True)
    assert called["tool_calls"] == [call("f", {})]
    assert result == {"role": "tool", "content": "3"}
    narrator = {"role": "narrator", "content": "x"}  # a template for any role writes it
    assert converted(convert, narrator, {"role": "Assistant", "content": "y"}, only_if_needed=True) == [
        narrator,
        assistant("y"),
    ]


# --- Calls --------------------------------------------------------------------------------------------


def test_calls_in_turns_of_their_own_are_one_answer(convert: Convert) -> None:
    first, second = call("f", {"a": 1}), call("g", {})
    turns = [{"role": "tool_call", "content": json.dumps(each["function"])} for each in (first, second)]
    assert converted(convert, *turns) == [assistant("", tool_calls=[first, second])]
    assert converted(convert, assistant("I look."), *turns) == [assistant("I look.", tool_calls=[first, second])]
    flagged = {**turns[1], "loss": False}
    assert converted(convert, turns[0], flagged) == [
        assistant("", tool_calls=[first]),
        assistant("", tool_calls=[second], loss=False),
    ]


def test_calls_of_the_openai_api_keep_their_order_of_keys(convert: Convert) -> None:
    function = {"arguments": '{"b": 1, "a": 2}', "name": "f"}
    [made] = converted(convert, assistant(None, tool_calls=[{"id": "c", "type": "function", "function": function}]))
    [made_call] = made["tool_calls"]
    assert list(made_call) == ["id", "type", "function"]
    assert list(made_call["function"]) == ["arguments", "name"]
    assert made_call["function"]["arguments"] == {"b": 1, "a": 2}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("{'a': 1}", "the arguments of 'f' is not JSON: Expecting property name enclosed in double quotes"),
        ("[1]", "the arguments of 'f' must be an object, not list"),
        (5, "the arguments of 'f' must be an object, not int"),
    ],
)
def test_arguments_that_are_no_object_are_quarantined(arguments: Any, why: str, convert: Convert) -> None:
    turn = assistant("", tool_calls=[{"type": "function", "function": {"name": "f", "arguments": arguments}}])
    for needed in (False, True):
        assert refused(convert, turn, only_if_needed=needed).startswith(why)


@pytest.mark.parametrize("arguments", ["", " ", None, "null", {}])
def test_missing_arguments_are_an_empty_object(arguments: Any, convert: Convert) -> None:
    turn = assistant("", tool_calls=[{"type": "function", "function": {"name": "f", "arguments": arguments}}])
    for needed in (False, True):
        assert converted(convert, turn, only_if_needed=needed) == [assistant("", tool_calls=[call("f", {})])]


# --- Content ------------------------------------------------------------------------------------------


def test_content_blocks_of_anthropic(convert: Convert) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "x"}
    used = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
    text = {"type": "text", "text": "x"}
    called = call("f", {"a": 1}, id="c1")
    assert converted(convert, assistant([thought, text, used])) == [
        assistant("x", reasoning_content="hm", tool_calls=[called])
    ]
    assert converted(convert, assistant([{"type": "redacted_thinking", "data": "#"}, text])) == [
        assistant("x", redacted_thinking=["#"])
    ]
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "3", "is_error": True}
    both = [result, {"type": "tool_result", "tool_use_id": "c2"}, {"type": "text", "text": "So?"}]
    assert converted(convert, user(both)) == [
        {"role": "tool", "tool_call_id": "c1", "is_error": True, "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": ""},
        user("So?"),
    ]
    picture = {"type": "image", "source": {"type": "base64", "data": "AA"}}
    seen = {"type": "tool_result", "tool_use_id": "c1", "content": [picture]}
    assert converted(convert, user([text, seen, picture])) == [
        user("x"),
        {"role": "tool", "tool_call_id": "c1", "content": [picture]},
        user([picture]),
    ]


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (
            assistant([{"type": "text", "text": "x"}, {"type": "thinking", "thinking": "hm"}]),
            "its parts are in the order",
        ),
        (assistant([{"type": "tool_use", "id": "c", "input": {}}]), "a call has no name"),
        (user([{"type": "thinking", "thinking": "hm"}]), "a user message cannot contain a part of type 'thinking'"),
        (
            assistant([{"type": "tool_use", "name": "f", "input": {}}, {"type": "server_tool_use", "name": "g"}]),
            "a part of type 'server_tool_use' is not understood",
        ),
        ({"role": "model", "parts": [{"inlineData": {"data": "AA"}}]}, "a part with 'inlineData' is not understood"),
        ({"role": "user", "parts": []}, "its parts must be a list, not an empty list"),
    ],
)
def test_parts_that_cannot_be_messages_are_quarantined(turn: Any, why: str, convert: Convert) -> None:
    for needed in (False, True):
        assert refused(convert, turn, only_if_needed=needed).startswith(why)


def test_parts_of_gemini(convert: Convert) -> None:
    turns = [
        {
            "role": "model",
            "parts": [{"text": "a", "thoughtSignature": "x"}, {"functionCall": {"id": "c", "name": "f"}}],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "c", "name": "f", "response": {"é": 1}}}, {"text": "So?"}],
        },
        {"role": "model", "parts": "b"},
    ]
    [row], _ = convert({"contents": turns, "system_instruction": "Be brief."})
    assert row["messages"] == [
        system("Be brief."),
        assistant("a", tool_calls=[call("f", {}, id="c")]),
        {"role": "tool", "tool_call_id": "c", "name": "f", "content": '{"é": 1}'},
        user("So?"),
        assistant("b"),
    ]


def test_parts_that_the_template_writes_stay(convert: Convert) -> None:
    turn = assistant([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}])
    for needed in (False, True):
        assert converted(convert, turn, template=PARTS, only_if_needed=needed) == [turn]
    assert converted(convert, turn, only_if_needed=True) == [assistant("x", reasoning_content="hm")]


# --- Rows ---------------------------------------------------------------------------------------------


def test_conversations_in_one_value(convert: Convert) -> None:
    messages = [USER, assistant("x")]
    for value in (json.dumps(messages), [json.dumps(each) for each in messages], [["hi", "x"]]):
        [row], _ = convert({"messages": value}, only_if_needed=True)
        assert row["messages"] == messages
    [row], _ = convert({"messages": USER}, only_if_needed=True)
    assert row["messages"] == [USER]
    lists = {"role": ["user", "assistant"], "content": ["hi", "x"], "name": [None, "Ann"], "tool_calls": None}
    [row], _ = convert({"messages": lists}, only_if_needed=True)
    assert row["messages"] == [USER, assistant("x", name="Ann")]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("hi", "column 'messages' must hold a list of messages, not str"),
        ("[{", "column 'messages' is not JSON: Expecting property name enclosed in double quotes"),
        ({"text": "hi"}, "column 'messages' must hold a list of messages, not dict"),
        (
            {"role": ["user"], "content": ["hi", "x"]},
            "column 'messages': its lists of 'role' and 'content' differ in length",
        ),
        (
            ["hi", "x"],
            "column 'messages' must hold a list of messages, not of texts, which do not say whose they are; make "
            "messages with a role and a content of them",
        ),
        ([["hi", "x", "y"]], "message 0 of column 'messages': it must be an object, not list"),
    ],
)
def test_values_that_are_no_conversation_are_quarantined(value: Any, why: str, convert: Convert) -> None:
    for needed in (False, True):
        assert convert({"messages": value}, only_if_needed=needed) == ([], [why])


def test_a_system_prompt_beside_plain_messages_is_the_first_message(convert: Convert) -> None:
    messages = [USER, assistant("x")]
    for row in (
        {"system": "Be brief."},
        {"system_prompt": "Be brief."},
        {"system": None, "systemInstruction": {"role": "system", "parts": [{"text": "Be "}, {"text": "brief."}]}},
        {"system": [{"type": "text", "text": "Be brief."}]},
    ):
        [made], _ = convert({"messages": messages, **row}, only_if_needed=True)
        assert made["messages"] == [system("Be brief."), *messages]
    own = {"messages": [system("Be long."), *messages], "system": "Be brief."}
    [made], _ = convert(own, only_if_needed=True)
    assert made is own


@pytest.mark.parametrize(
    "tools",
    [
        [BARE],
        json.dumps([BARE]),
        [json.dumps(WEATHER)],
        [{**{key: value for key, value in BARE.items() if key != "parameters"}, "input_schema": BARE["parameters"]}],
        [
            {
                "type": "custom",
                "name": "weather",
                "description": "Tells the weather.",
                "input_schema": BARE["parameters"],
            }
        ],
        [{"function_declarations": [BARE]}],
    ],
)
def test_tools_of_other_tools_get_the_form_of_openai(tools: Any, convert: Convert) -> None:
    messages = [USER, assistant("x")]
    [made], _ = convert({"messages": messages, "tools": tools}, only_if_needed=True)
    assert made == {"messages": messages, "tools": [WEATHER]}
    built_in = {"type": "web_search_20250305", "name": "web_search"}
    [made], _ = convert({"messages": messages, "tools": [built_in, BARE]}, only_if_needed=True)
    assert made["tools"] == [built_in, WEATHER]


def test_results_that_are_objects_stay_if_the_template_writes_them_as_json(convert: Convert) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content | tojson if m.content is mapping else m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{% endfor %}"
    )
    turns = [assistant("", tool_calls=[call("weather", ROME)]), {"role": "tool", "content": {"sky": "clear"}}]
    [row], _ = convert({"messages": [USER, *turns]}, template=template, only_if_needed=True)
    assert row["messages"] == [USER, *turns]
    assert converted(convert, *turns, only_if_needed=True)[1] == {"role": "tool", "content": '{"sky": "clear"}'}


# --- Without the conversion ---------------------------------------------------------------------------

HINT = "; put the handler convert_to_messages before this one, which reads conversations of this form"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (json.dumps([USER]), "column 'messages' must hold a list of messages, not str"),
        (
            [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "x"}],
            "the chat template cannot render this row: 'dict object' has no attribute 'role'",
        ),
        ([USER, {"role": "assistant", "text": "x"}], "the chat template cannot render this row: "),
    ],
)
@pytest.mark.parametrize("name", ["tokenize_and_apply_chat_template_with_masking", "apply_tokenizer_chat_template"])
def test_what_the_conversion_would_read_is_refused_with_its_name(
    name: str, messages: Any, why: str, chat_tokenizer: Make
) -> None:
    template = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"
    arguments = {"dataset_text_field": "t"} if name.startswith("apply") else {}
    config = handler(name, conversation_column="messages", **arguments)
    [link] = build_handlers(dataset("unused", data_handlers=[config]), 0)
    log = RowLog()
    rows = [{"messages": value} for value in (messages, 5, [{"role": "narrator", "content": None}])]
    assert len(link.bind(chat_tokenizer(template))(Batch(rows, np.array([1, 2, 3])), log)) == 0
    first, second, third = [bad.reason for bad in sorted(log.bad, key=lambda bad: bad.number)]
    assert first.startswith(why)
    assert first.endswith(HINT)
    assert second == "column 'messages' must hold a list of messages, not int"
    assert HINT not in third
