"""The conversations that templates are tested with, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Messages, tools, documents, and variables for the template."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    variables: dict[str, Any] = field(default_factory=dict)

    @property
    def row(self) -> dict[str, Any]:
        """A row of a data set with this conversation."""
        row = {"messages": self.messages, "tools": self.tools, "documents": self.documents}
        return {**row, "chat_template_kwargs": self.variables}


def system(content: Any) -> Message:
    return {"role": "system", "content": content}


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def assistant(content: Any, **keys: Any) -> Message:
    return {"role": "assistant", "content": content, **keys}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def call(number: int, a: int, b: int) -> dict[str, Any]:
    arguments = {"a": a, "b": b}
    return {"id": f"call0000{number}", "type": "function", "function": {"name": "add", "arguments": arguments}}


def result(number: int, content: str) -> Message:
    return {"role": "tool", "name": "add", "tool_call_id": f"call0000{number}", "content": content}


def lookalike(header: str, stop: str) -> Conversation:
    """Contents that contain the start and end of an assistant turn of a template."""
    contents = (f"{header}fake{stop}", f"{header}x", "c", f"d{stop}e")
    return Conversation([user(contents[0]), assistant(contents[1]), user(contents[2]), assistant(contents[3])])


def mimic(header: str, stop: str) -> Conversation:
    """Contents that equal the start or end of an assistant turn of a template."""
    return Conversation([user(header), assistant(header), user(stop), assistant(stop)])


def trailing_stop(stop: str) -> Conversation:
    """Answers that end with a stop token in the content, and with white space, which many templates trim."""
    return Conversation([user("a"), assistant(f"x{stop} \n "), user("c"), assistant(f"\n{stop}")])


def thought_and_stop(stop: str) -> Conversation:
    """Reasoning in the content, and a stop token at its end."""
    return Conversation([user("a"), assistant(f"<think>\nh\n</think>\n\nb{stop}")])


def stop_in_reasoning(stop: str) -> Conversation:
    """Reasoning that ends with a stop token, and an empty answer."""
    return Conversation([user("a"), assistant("", reasoning_content=f"h{stop}")])


ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
ONE_CALL, TWO_CALLS = [call(1, 1, 2)], [call(1, 1, 2), call(2, 3, 4)]
TWO_TURNS = [user("hi"), assistant("hello"), user("bye"), assistant("see you")]

CONVERSATIONS = {
    "single": Conversation([user("hi"), assistant("hello")]),
    "multi": Conversation(TWO_TURNS),
    "system": Conversation([system("be kind"), *TWO_TURNS]),
    "same": Conversation([user("same"), assistant("same"), user("same"), assistant("same")]),
    "empty": Conversation([user("a"), assistant(""), user("c"), assistant("d")]),
    "empty last": Conversation([user("a"), assistant("b"), user("c"), assistant("")]),
    "blank": Conversation([user(" "), assistant(" \n "), user("c"), assistant("d")]),
    "padded": Conversation([user(" a "), assistant("  b \n"), user("c"), assistant("\n d")]),
    "trailing eos": Conversation([user("a"), assistant("x</s> \n ")]),
    "twice": Conversation([user("a"), assistant("b"), assistant("c")]),
    "first": Conversation([assistant("b"), user("c"), assistant("d")]),
    "open": Conversation([user("a"), assistant("b"), user("c")]),
    "parts": Conversation([user(parts("a", "b")), assistant(parts("c", "d")), user(parts("a")), assistant(parts("d"))]),
    "think": Conversation(
        [
            user("a"),
            assistant("<think>\nhm\n</think>\n\nb"),
            user("c"),
            assistant("<think>\nho\n</think>\n\nd"),
        ]
    ),
    "reasoning": Conversation(
        [user("a"), assistant("b", reasoning_content="hm"), user("c"), assistant("d", reasoning_content="ho")]
    ),
    "thinking": Conversation([user("a"), assistant("b", thinking="hm"), user("c"), assistant("d", thinking="ho")]),
    "tool": Conversation(
        [user("1+2?"), assistant("", tool_calls=ONE_CALL), result(1, "3"), assistant("It is 3.")], [ADD]
    ),
    "tool null": Conversation(
        [user("1+2?"), assistant(None, tool_calls=ONE_CALL), result(1, "3"), assistant("It is 3.")], [ADD]
    ),
    "tool words": Conversation(
        [user("1+2?"), assistant("Let me see.", tool_calls=ONE_CALL), result(1, "3"), assistant("It is 3.")], [ADD]
    ),
    "tool thought": Conversation(
        [
            user("1+2?"),
            assistant("", tool_calls=ONE_CALL, reasoning_content="hm"),
            result(1, "3"),
            assistant("It is 3.", reasoning_content="ho"),
        ],
        [ADD],
    ),
    "tool last": Conversation([user("1+2?"), assistant("", tool_calls=ONE_CALL, reasoning_content="hm")], [ADD]),
    "tool then more": Conversation(
        [
            user("1+2?"),
            assistant("", tool_calls=ONE_CALL),
            result(1, "3"),
            assistant("It is 3."),
            user("bye"),
            assistant("see you"),
        ],
        [ADD],
    ),
    "parallel": Conversation(
        [
            user("1+2? 3+4?"),
            assistant("", tool_calls=TWO_CALLS),
            result(1, "3"),
            result(2, "7"),
            assistant("3 and 7."),
        ],
        [ADD],
    ),
    "same results": Conversation(
        [
            user("1+2?"),
            assistant("", tool_calls=ONE_CALL),
            result(1, "3"),
            assistant("", tool_calls=ONE_CALL),
            result(1, "3"),
            assistant("3"),
        ],
        [ADD],
    ),
}
