"""Which columns each handler uses, and which columns the content of a column gets into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sftkit.config.schema.data_config import DatasetConfig
from sftkit.handlers.base import Handler
from sftkit.handlers.registry import build_handlers
from sftkit.sample import sample_path
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from support import WATCHED, handler

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
TOOLS = "{% if tools is defined %}{{ tools }}{% endif %}" + PLAIN
DOCUMENTS = "{{ documents }}" + PLAIN
WHOLE_ROW = "{{ messages['system'] }}{% for m in messages.turns %}{{ m.content }}{% endfor %}{{ messages.get('end') }}"

CONVERSATIONS = ("messages", "conversations", "conversation", "contents", "chat", "turns", "dialogue", "dialog")
SYSTEM = ("system", "system_prompt", "systemInstruction", "system_instruction")


def built(name: str, arguments: Mapping[str, Any]) -> Handler:
    data = DatasetConfig(name="data", data_paths=("a",), data_handlers=(handler(name, **arguments),))
    return build_handlers(data, 0)[0].handler


def tokenizer(template: str) -> ChatTokenizer:
    named = TokenizerSpec(str(sample_path("sample:model")), chat_template=template)
    return ChatTokenizer(ChatTokenizerSpec(named, "assistant", WATCHED))


@pytest.mark.parametrize(
    ("name", "arguments", "template", "expected"),
    [
        ("tokenize_and_apply_chat_template_with_masking", {}, PLAIN, {"chat_template_kwargs"}),
        ("tokenize_and_apply_chat_template_with_masking", {}, TOOLS, {"chat_template_kwargs", "tools"}),
        ("apply_tokenizer_chat_template", {"dataset_text_field": "t", "conversation_column": "m"}, DOCUMENTS,
         {"chat_template_kwargs", "documents"}),
        ("tokenize_and_apply_chat_template_with_masking", {}, WHOLE_ROW,
         {"chat_template_kwargs", "system", "turns", "end"}),
        ("tokenize_and_apply_chat_template_with_masking", {"conversation_column": None}, PLAIN, None),
        ("apply_custom_jinja_template",
         {"dataset_text_field": "t", "template": "{{ a }}{% if b is defined %}{{ b }}{% endif %}"}, PLAIN, {"a", "b"}),
        ("apply_custom_jinja_template", {"dataset_text_field": "t", "template": "{{ element['a b'] }}{{ element.c }}"},
         PLAIN, {"a b", "c", "element"}),
        ("apply_custom_jinja_template", {"dataset_text_field": "t", "template": "{{ element | tojson }}"}, PLAIN, None),
        ("apply_custom_data_formatting_template", {"dataset_text_field": "t", "template": "{{a}}"}, PLAIN, set()),
        ("tokenize_and_apply_input_masking", {"input_field_name": "a", "output_field_name": "b"}, PLAIN, set()),
        ("convert_to_messages", {"format": "messages"}, PLAIN,
         {*CONVERSATIONS, *SYSTEM, "tools", "functions"}),
        ("convert_to_messages", {"format": "input_output", "columns": {"input": "i"}, "answer_column": "o"}, PLAIN,
         {"i", "output", "completion", "o", *SYSTEM, "history", "tools", "functions"}),
        ("convert_to_pair", {"format": "prompt_completion"}, PLAIN,
         {"prompt", "completion", *SYSTEM}),
        ("convert_to_messages", {"conversation_column": "c", "system_column": "s"}, PLAIN,
         {"s", "tools", "functions"}),
        ("rename_columns", {"columns": {"a": "b"}}, PLAIN, set()),
        ("skip_large_text", {"column_name": "a", "max_length": 3}, PLAIN, set()),
        ("filter", {"condition": "a > 1 and (b is undefined or b > element.c)"}, PLAIN, {"b", "c"}),
        ("filter_length", {"min_turns": 3, "conversation_column": "a"}, PLAIN, set()),
    ],
)  # fmt: skip
def test_a_handler_says_which_other_columns_it_may_use(
    name: str, arguments: dict[str, Any], template: str, expected: set[str] | None
) -> None:
    columns = built(name, arguments).may_read(tokenizer(template))
    assert (columns if columns is None else set(columns)) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "column", "expected"),
    [
        ("rename_columns", {"columns": {"a": "b", "c": "d"}}, "a", {"b"}),
        ("rename_columns", {"columns": {"a": "b", "c": "d"}}, "b", set()),
        ("duplicate_columns", {"old_column": "a", "new_column": "b"}, "a", {"b"}),
        ("convert_to_messages", {"conversation_column": "c", "messages_column": "m"}, "system", {"m"}),
        ("convert_to_messages", {"conversation_column": "c", "tools_column": "functions"}, "functions", {"tools"}),
        ("tokenize_and_apply_input_masking", {"input_field_name": "a", "output_field_name": "b"}, "b",
         {"input_ids", "labels", "attention_mask"}),
        ("tokenize_and_apply_input_masking", {"input_field_name": "a", "output_field_name": "b"}, "c", set()),
        ("skip_large_text", {"column_name": "a", "max_length": 3}, "a", set()),
        ("filter", {"condition": "a > 1"}, "a", set()),
    ],
)  # fmt: skip
def test_a_handler_says_where_the_content_of_a_column_goes(
    name: str, arguments: dict[str, Any], column: str, expected: set[str]
) -> None:
    assert set(built(name, arguments).content_goes_to(column, tokenizer(TOOLS))) == expected
