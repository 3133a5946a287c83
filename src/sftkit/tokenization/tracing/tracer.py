"""Runs a chat template once on traced texts, and makes a program of what it did."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from jinja2.runtime import Context

from sftkit.sandbox.chat_templates import compiled_by_transformers
from sftkit.tokenization.conversations import Message
from sftkit.tokenization.templates import template_runtime
from sftkit.tokenization.templates.compiled_template import recording_code
from sftkit.tokenization.templates.name_lookup import takes_context
from sftkit.tokenization.templates.recording import Mark, Part, Program, Variable
from sftkit.tokenization.tracing.program import content_name, make_program
from sftkit.tokenization.tracing.trace import Trace, UntraceableError
from sftkit.tokenization.tracing.traced_text import TracedText, concatenate
from sftkit.tokenization.tracing.tracing_environment import Containment, TracedMessage, TracingEnvironment, contains


class Tracer:
    """Traces one template."""

    def __init__(self, source: str, day: str) -> None:
        """Prepare to trace a template, which is given a date in the form YYYY-MM-DD.

        Raises:
            ValueError: its output cannot be recorded.
            UntraceableError: its code cannot be traced.
        """
        self._template = compiled_by_transformers(source, day)
        if takes_context(self._template.globals):
            raise UntraceableError("a function takes the context")
        code = Containment().visit(recording_code(source, day))
        self._code = compile(ast.fix_missing_locations(code), "<trace>", "exec")

    @property
    def tojson(self) -> Any:
        """The filter `tojson` of the template, which programs may call."""
        environment: Any = self._template.environment
        return environment.filters["tojson"]

    def trace(self, messages: Sequence[Message], values: Mapping[str, Any]) -> Program:
        """Render a conversation on traced texts.

        Args:
            messages: messages with a role and a content, which are texts.
            values: the other variables of the template.

        Returns:
            A program for conversations with the same roles and other variables.

        Raises:
            UntraceableError: the template does something that cannot be traced.
            Exception: whatever the template raises.
        """
        trace = Trace()
        environment: Any = self._template.environment
        tracing = TracingEnvironment.of(environment, trace)
        traced = [_traced_message(trace, index, message) for index, message in enumerate(messages)]
        written: list[str] = []
        marks: list[Mark] = []
        context = Context(tracing, {**self._template.globals, **values, "messages": traced}, None, {})
        names: dict[str, Any] = {"environment": tracing}
        exec(self._code, names)
        names.update(
            contains=contains,
            message_at=template_runtime.message_at,
            str_join=lambda texts: concatenate(trace, list(texts)),
        )
        names["root"](context, written, written.append, marks.append, dict(zip(map(id, traced), count(), strict=False)))
        parts = [_parts(trace, text) for text in written]
        return make_program(trace, len(messages), parts, marks, {"tojson": self.tojson})


def _traced_message(trace: Trace, index: int, message: Message) -> TracedMessage:
    content = TracedText(trace, message["content"], [Variable(content_name(index), index)])
    return TracedMessage({key: content if key == "content" else value for key, value in message.items()})


def _parts(trace: Trace, text: str) -> Sequence[Part]:
    if isinstance(text, TracedText):
        return text.parts
    if trace.sentinel[:8] in text:
        raise UntraceableError("a copy of a text is written")
    return [text]
