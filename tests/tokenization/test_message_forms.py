"""Messages in a form that a template would lose or misread get the one that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sftkit.tokenization.chat_tokenizer import ChatTokenizer

Make = Callable[..., ChatTokenizer]

CALL = {"id": "abcdef123", "type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}
AS_TEXT = {**CALL, "function": {"name": "f", "arguments": '{"a":"é"}'}}
USER = {"role": "user", "content": "hi"}

LOOP = "{% for m in messages %}[{{ m.role }}]BODY</s>{% endfor %}"
EACH_CALL = "{% for c in m.tool_calls or [] %}<{{ c.function.name }} {{ ARGUMENTS }}>{% endfor %}"
ONLY_TEXT = LOOP.replace(
    "BODY", "{{ m.content + '' }}" + EACH_CALL.replace("ARGUMENTS", "c.function.arguments | tojson")
)
ONLY_NULL = LOOP.replace(  # as DeepSeek's: calls are written if there is no content, and their arguments are text
    "BODY",
    "{% if m.content is not defined %}" + EACH_CALL.replace("ARGUMENTS", "'' + c.function.arguments") + "{% else %}"
    "{{ m.content }}{% endif %}",
)
EITHER = LOOP.replace(
    "BODY",
    "{{ m.content ~ '!' if m.content is defined else '' }}"
    + EACH_CALL.replace(
        "ARGUMENTS", "c.function.arguments if c.function.arguments is string else c.function.arguments | tojson"
    ),
)
NO_DEVELOPER = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}[{{ m.role }}]{{ m.content }}</s>"
    "{% endif %}{% endfor %}"
)


def rendered(make: Make, template: str, *messages: Any) -> str:
    return (
        make(template)
        .conversations.find_trained_spans({"messages": [USER, *messages]}, "messages")[0]
        .removeprefix("[user]hi")
    )


def without_content(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != "content"}


@pytest.mark.parametrize("calls", [[CALL], [AS_TEXT]])
@pytest.mark.parametrize(
    ("template", "written"),
    [(ONLY_TEXT, '[assistant]<f {"a": "é"}></s>'), (ONLY_NULL, '[assistant]<f {"a":"é"}></s>')],
)
def test_calls_are_written_whatever_the_content_beside_them(
    template: str, written: str, calls: list[Any], chat_tokenizer: Make
) -> None:
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    for each in (message, {**message, "content": None}, without_content(message)):
        text = rendered(chat_tokenizer, template, each).removeprefix("</s>")
        assert text.replace('":"', '": "') == written.replace('":"', '": "')


def test_a_form_that_the_template_writes_stays(chat_tokenizer: Make) -> None:
    message = {"role": "assistant", "content": "", "tool_calls": [AS_TEXT]}
    assert rendered(chat_tokenizer, EITHER, message) == '!</s>[assistant]!<f {"a":"é"}></s>'
    assert rendered(chat_tokenizer, EITHER, {**message, "content": None}) == '!</s>[assistant]<f {"a":"é"}></s>'
    as_object = {**message, "tool_calls": [CALL]}
    assert rendered(chat_tokenizer, EITHER, as_object) == '!</s>[assistant]!<f {"a": "é"}></s>'


def test_a_developer_message_is_a_system_message_where_the_template_has_no_such_role(chat_tokenizer: Make) -> None:
    developer, answer = {"role": "developer", "content": "Be brief."}, {"role": "assistant", "content": "x"}
    text = chat_tokenizer(NO_DEVELOPER).conversations.find_trained_spans(
        {"messages": [developer, USER, answer]}, "messages"
    )[0]
    assert text == "[system]Be brief.</s>[user]hi</s>[assistant]x</s>"
    known = chat_tokenizer(EITHER).conversations.find_trained_spans(
        {"messages": [developer, USER, answer]}, "messages"
    )[0]
    assert known == "[developer]Be brief.!</s>[user]hi!</s>[assistant]x!</s>"


def test_what_is_no_json_stays_as_it_is(chat_tokenizer: Make) -> None:
    broken = {**CALL, "function": {"name": "f", "arguments": "a"}}
    message = {"role": "assistant", "content": "x", "tool_calls": [broken, "y"]}
    assert rendered(chat_tokenizer, ONLY_TEXT, {**message, "tool_calls": [broken]}) == (
        f"</s>[assistant]x<f {json.dumps('a')}></s>"
    )
