"""Conversations in the formats of other tools, and the messages, written by hand, that they stand for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

ID = "abcdef123"


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def assistant(content: Any, **keys: Any) -> Message:
    return {"role": "assistant", "content": content, **keys}


def call(name: str, arguments: dict[str, Any], **keys: Any) -> Message:
    return {**keys, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str, description: str, parameters: dict[str, Any]) -> Message:
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = tool("weather", "Tells the weather.", SCHEMA)
BARE = WEATHER["function"]
ROME = {"city": "Rome"}
ROME_TEXT = '{"city": "Rome"}'

ASKED = user("Weather in Rome?")
CALLED = assistant("", tool_calls=[call("weather", ROME)])
CALLED_BY_ID = assistant("", tool_calls=[call("weather", ROME, id=ID)])
RESULT = {"role": "tool", "content": "sunny"}
RESULT_BY_ID = {"role": "tool", "tool_call_id": ID, "content": "sunny"}
ANSWERED = assistant("It is sunny.")


@dataclass(frozen=True)
class Format:
    """A row, and the messages that it stands for."""

    name: str
    row: dict[str, Any]
    messages: list[Message]
    tools: list[Any] | None = None
    answers: tuple[str, ...] = ("It is sunny.",)
    """The contents that carry a loss, without calls."""

    def __str__(self) -> str:
        return self.name


WITH_CALLS = [
    Format(
        "openai",
        {
            "messages": [
                ASKED,
                assistant(None, tool_calls=[call("weather", ROME, id=ID)]),
                {**RESULT_BY_ID, "name": "weather"},
                ANSWERED,
            ],
            "tools": [WEATHER],
        },
        [ASKED, CALLED_BY_ID, {**RESULT_BY_ID, "name": "weather"}, ANSWERED],
        [WEATHER],
    ),
    Format(
        "openai-arguments-as-text",
        {
            "messages": [
                ASKED,
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": ID, "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
                    ],
                },
                RESULT_BY_ID,
                ANSWERED,
            ],
            "tools": json.dumps([WEATHER]),
        },
        [ASKED, CALLED_BY_ID, RESULT_BY_ID, ANSWERED],
        [WEATHER],
    ),
    Format(
        "openai-functions",
        {
            "messages": [
                ASKED,
                assistant(None, function_call={"name": "weather", "arguments": '{"city":"Rome"}'}),
                {"role": "function", "name": "weather", "content": "sunny"},
                ANSWERED,
            ],
            "functions": [BARE],
        },
        [ASKED, CALLED, {**RESULT, "name": "weather"}, ANSWERED],
        [WEATHER],
    ),
    Format(
        "openai-as-json-text",
        {
            "messages": json.dumps(
                [ASKED, assistant(None, tool_calls=[call("weather", ROME, id=ID)]), RESULT_BY_ID, ANSWERED]
            ),
            "tools": json.dumps([BARE]),
        },
        [ASKED, CALLED_BY_ID, RESULT_BY_ID, ANSWERED],
        [WEATHER],
    ),
    Format(
        "sharegpt",
        {
            "conversations": [
                {"from": "Human", "value": "Weather in Rome?"},
                {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": ROME})},
                {"from": "observation", "value": "sunny"},
                {"from": "GPT ", "value": "It is sunny."},
            ],
            "system": "Be brief.",
            "tools": json.dumps([BARE]),
        },
        [system("Be brief."), ASKED, CALLED, RESULT, ANSWERED],
        [WEATHER],
    ),
    Format(
        "ms-swift",
        {
            "messages": [
                ASKED,
                {"role": "tool_call", "content": json.dumps({"name": "weather", "arguments": ROME})},
                {"role": "tool_response", "content": "sunny"},
                ANSWERED,
            ],
            "tools": json.dumps([WEATHER]),
        },
        [ASKED, CALLED, RESULT, ANSWERED],
        [WEATHER],
    ),
    Format(
        "anthropic",
        {
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                user("Weather in Rome?"),
                assistant(
                    [
                        {"type": "thinking", "thinking": "I must look.", "signature": "x"},
                        {"type": "text", "text": "One moment."},
                        {"type": "tool_use", "id": ID, "name": "weather", "input": ROME},
                    ]
                ),
                user(
                    [
                        {"type": "tool_result", "tool_use_id": ID, "content": [{"type": "text", "text": "sunny"}]},
                        {"type": "text", "text": "Well?"},
                    ]
                ),
                assistant([{"type": "text", "text": "It is sunny."}]),
            ],
            "tools": [{"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}],
        },
        [
            system("Be brief."),
            ASKED,
            {**CALLED_BY_ID, "content": "One moment.", "reasoning_content": "I must look."},
            RESULT_BY_ID,
            user("Well?"),
            ANSWERED,
        ],
        [WEATHER],
    ),
    Format(
        "gemini",
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Weather in "}, {"text": "Rome?"}]},
                {
                    "role": "model",
                    "parts": [
                        {"text": "I must look.", "thought": True},
                        {"functionCall": {"name": "weather", "args": ROME}},
                    ],
                },
                {
                    "role": "function",
                    "parts": [{"functionResponse": {"name": "weather", "response": {"sky": "clear"}}}],
                },
                {"role": "model", "parts": [{"text": "It is sunny."}]},
            ],
            "tools": [
                {
                    "functionDeclarations": [
                        {
                            "name": "weather",
                            "description": "Tells the weather.",
                            "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}},
                        }
                    ]
                }
            ],
        },
        [
            system("Be brief."),
            ASKED,
            {**CALLED, "reasoning_content": "I must look."},
            {"role": "tool", "name": "weather", "content": '{"sky": "clear"}'},
            ANSWERED,
        ],
        [WEATHER],
    ),
]

WITHOUT_CALLS = [
    Format(
        "sharegpt-roles",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "user", "value": "Weather in Rome?"},
                {"from": "chatgpt", "value": "It is sunny."},
                {"from": "human", "value": "And now?"},
                {"from": "bing", "value": "It rains."},
                {"role": "User", "content": "Why?"},
                {"role": "bard", "value": "A cloud."},
            ]
        },
        [
            system("Be brief."),
            ASKED,
            ANSWERED,
            user("And now?"),
            assistant("It rains."),
            user("Why?"),
            assistant("A cloud."),
        ],
        answers=("It is sunny.", "It rains.", "A cloud."),
    ),
    Format(
        "other-keys",
        {"messages": [{"role": "user", "text": "Weather in Rome?"}, {"role": "assistant", "message": "It is sunny."}]},
        [ASKED, ANSWERED],
    ),
    Format(
        "messages-as-json-texts",
        {"messages": [json.dumps(ASKED), json.dumps(ANSWERED)]},
        [ASKED, ANSWERED],
    ),
    Format(
        "pairs",
        {"conversations": [["Weather in Rome?", "It is sunny."], ["And now?", "It rains."]]},
        [ASKED, ANSWERED, user("And now?"), assistant("It rains.")],
        answers=("It is sunny.", "It rains."),
    ),
    Format(
        "refusal",
        {"messages": [ASKED, assistant(None, refusal="I cannot say.")]},
        [ASKED, assistant("I cannot say.")],
        answers=("I cannot say.",),
    ),
    Format(
        "flags",
        {
            "conversations": [
                {"from": "human", "value": "Weather in Rome?", "weight": 0},
                {"from": "gpt", "value": "It snows.", "loss": False},
                {"from": "human", "value": "Really?"},
                {"from": "gpt", "value": "It is sunny.", "weight": 1},
            ]
        },
        [
            {**ASKED, "weight": 0},
            assistant("It snows.", loss=False),
            user("Really?"),
            assistant("It is sunny.", weight=1),
        ],
    ),
]

FORMATS = [*WITH_CALLS, *WITHOUT_CALLS]
