"""Random conversations of everything that JSON can hold, usual ones more often."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from sftkit.tokenization.conversations import Conversation

# fmt: off
TEXTS = [
    "", "a", " a b\n", "user", "assistant", "<think>\na\n</think>\n\nb", "x" * 40, "it's \"q\" & <b>", "\\n", "é😀",
    "\u2028\x85\xa0", "\ud800", "\x00", "{{ a }}", "1", "-2.5", "%s", "{0}", "a,b\na", "[]", "True", "None", "<|a|>",
    "<|im_end|>", "\x1c a", "ǅß",
]
KEYS = [
    "content", "role", "tool_calls", "name", "reasoning_content", "thinking", "items", "keys", "get", "update", "strip",
    "x", "a", "values", "copy", "pop", "function", "arguments", "type", "text", "b", "_y", "__class__", "reasoning",
    "tool_call_id", "a b",
]
# fmt: on
ROLES = ["system", "user", "assistant", "tool", "developer"]


class ConversationMaker:
    """Makes conversations."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def usual(self) -> Conversation:
        """Make one of texts with calls, tools, reasoning and parts as data sets have them."""
        random = self._random
        messages = [{"role": "system", "content": self._text()}] if random.random() < 0.4 else []
        for _ in range(random.randrange(1, 4)):
            messages.append({"role": "user", "content": self._content()})
            answer: dict[str, Any] = {"role": "assistant", "content": self._content()}
            if random.random() < 0.2:
                answer[random.choice(["reasoning_content", "thinking", "reasoning"])] = random.choice(
                    [self._text(), None]
                )
            if random.random() < 0.25:
                answer |= {
                    "content": random.choice([None, "", self._text()]),
                    "tool_calls": [self._call(), self._call()],
                }
                messages += [answer, {"role": "tool", "tool_call_id": "c1", "name": "f", "content": self._text()}]
                answer = {"role": "assistant", "content": self._text()}
            messages.append(answer)
        tools = [self._tool()] * random.randrange(1, 3) if random.random() < 0.3 else None
        documents = [{"title": self._text(), "text": self._text()}] if random.random() < 0.1 else None
        return Conversation(messages, tools, documents, {"extra": self._text()} if random.random() < 0.3 else {})

    def odd(self) -> Conversation:
        """Make one of any JSON values."""
        random = self._random
        messages = [self._odd_message() for _ in range(random.randrange(1, 5))]
        tools = random.choice([None, None, [], [self._mapping(2)], [self._tool(), self._mapping(1)]])
        documents = random.choice([None, None, None, [], [self._mapping(1)]])
        variables = {"extra": self._value(2), **({"n": self._value(1)} if random.random() < 0.2 else {})}
        if random.random() < 0.1:
            return Conversation(
                {"conversation": messages, "x": self._value(2), "role": "a"}, tools, documents, variables
            )
        return Conversation(messages, tools, documents, variables if random.random() < 0.5 else {})

    def _odd_message(self) -> dict[str, Any]:
        random = self._random
        message = {"role": random.choice([*ROLES, *ROLES, self._value(1)]), "content": self._value(2)}
        message |= {random.choice(KEYS): self._value(2) for _ in range(random.choice([0, 0, 1, 3]))}
        if random.random() < 0.2:
            message["tool_calls"] = random.choice([[self._call()], self._value(2), [self._value(1)]])
        if random.random() < 0.1:
            del message[random.choice(["role", "content"])]
        return message

    def _text(self) -> str:
        text = "".join(self._random.choice(TEXTS) for _ in range(self._random.choice([1, 1, 2, 3])))
        return text if self._random.random() < 0.1 else text.replace("\ud800", "")

    def _content(self) -> Any:
        text = self._text()
        parts = [{"type": "text", "text": text}, {"type": "image"}]
        return self._random.choice([text, text, text, text, parts[:1], parts])

    def _call(self) -> dict[str, Any]:
        arguments = self._random.choice([{"a": self._value(1), "b": "x"}, {}, '{"a": 1}', ""])
        return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}

    def _tool(self) -> dict[str, Any]:
        parameters = {"type": "object", "properties": {"a": {"type": "string", "enum": ["é", None]}}, "required": ["a"]}
        return {"type": "function", "function": {"name": "f", "description": self._text(), "parameters": parameters}}

    def _mapping(self, depth: int) -> dict[str, Any]:
        return {self._random.choice(KEYS): self._value(depth - 1) for _ in range(self._random.randrange(4))}

    def _value(self, depth: int) -> Any:
        random = self._random
        made: list[Callable[[], Any]] = [
            *(self._text, self._text, lambda: random.choice([None, True, False])),
            lambda: random.choice([0, 1, -1, 7, 2**70]),
            lambda: random.choice([0.0, 1.5, -0.0, 1e20, float("nan"), float("inf")]),
        ]
        if depth > 0:
            made += [lambda: self._mapping(depth), lambda: [self._value(depth - 1) for _ in range(random.randrange(3))]]
        return random.choice(made)()
