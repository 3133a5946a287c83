"""Conversations rendered as text, compared with transformers and with a plain Jinja environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chat_templates as templates
from chat_templates import SEED, plain_rendering
from sftkit.core.rows import Row
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from support import dataset, handler, preprocess, write_jsonl, written

MakeChatTokenizer = Callable[..., ChatTokenizer]

CONVERSATIONS: list[Row] = [
    {"messages": [{"role": role, "content": f"{role} says"} for role in ("system", "user", "assistant")]},
    {"messages": [{"role": role, "content": "x\n y "} for role in ("tools", "tool", "documents", "else")], "id": 7},
    {"messages": []},
]
TOOLS: list[list[Row]] = [
    [{"name": "add", "parameters": {"a": {"type": "number"}, "b": {"type": "number"}}}],
    [{"name": "say", "parameters": {"text": {"type": "string", "enum": ["hi", "ho"]}}, "strict": True}],
    [],
]


@pytest.mark.parametrize("row", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
@pytest.mark.parametrize(
    "source", [SEED, "\n\n  " + SEED, SEED.replace("{%-", "{%"), "a\n{{ messages['messages'] }}\n"]
)
def test_a_template_that_takes_a_whole_row_gets_it_as_messages(
    chat_tokenizer: MakeChatTokenizer, source: str, row: Row
) -> None:
    assert chat_tokenizer(source).conversations.render(row, None) == plain_rendering(
        source, messages=row, add_generation_prompt=False
    )


def test_the_seeds_template_on_shared_conversations_is_what_jinja_renders(
    chat_tokenizer: MakeChatTokenizer, shared_data: Callable[[str], Path]
) -> None:
    rows = [json.loads(line) for line in shared_data("multi_turn_chat.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer = chat_tokenizer(SEED)
    assert [tokenizer.conversations.render(row, None) for row in rows] == [
        plain_rendering(SEED, messages=row) for row in rows
    ]


@pytest.mark.parametrize("template", ["CHATML", "CHATML_IN_LINES", "GENERATION", "QWEN3_LIKE", "ESCAPES"])
def test_a_conversation_column_is_rendered_as_transformers_renders_it(
    chat_tokenizer: MakeChatTokenizer, reference: Callable[[str], Any], template: str
) -> None:
    source = getattr(templates, template)
    messages = CONVERSATIONS[0]["messages"]
    rendered = chat_tokenizer(source).conversations.render({"chat": messages, "other": 1}, "chat")
    assert rendered == reference("bpe").apply_chat_template(messages, chat_template=source, tokenize=False)


def test_tools_and_documents_may_be_json_text(chat_tokenizer: MakeChatTokenizer) -> None:
    source = "{{ tools | tojson }} {{ documents | tojson }}"
    row = {
        "messages": [{"role": "user", "content": "a"}],
        "tools": TOOLS[0],
        "documents": [{"title": "t", "text": "x"}],
    }
    as_text = {**row, "tools": json.dumps(TOOLS[0]), "documents": json.dumps(row["documents"])}
    expected = f"{json.dumps(row['tools'])} {json.dumps(row['documents'])}"
    assert chat_tokenizer(source).conversations.render(row, "messages") == expected
    assert chat_tokenizer(source).conversations.render(as_text, "messages") == expected
    for nothing in (None, "", []):
        assert (
            chat_tokenizer(source).conversations.render({**row, "tools": nothing, "documents": nothing}, "messages")
            == "null null"
        )


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "repository"])
def test_tools_that_differ_between_rows_get_no_extra_keys(
    tmp_path: Path, tokenizer_path: Callable[[str], str], datasets_cache: Path, kind: str
) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"call {i}"}, {"role": "assistant", "content": "ok"}], "tools": tools}
        for i, tools in enumerate(TOOLS)
    ]
    if kind == "jsonl":
        path = write_jsonl(tmp_path / "in.jsonl", rows)
    elif kind == "json":
        path = tmp_path / "in.json"
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = tmp_path / "in.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path = tmp_path / "repository"
        write_jsonl(path / "train.jsonl", rows)
        (path / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.jsonl\n---\n")
    render = handler("apply_tokenizer_chat_template", dataset_text_field="text", conversation_column="messages")
    preprocess(
        tmp_path / "out",
        dataset(path, data_handlers=[render]),
        processor={"chat_template": templates.TOOLS},
        model_name_or_path=tokenizer_path("bpe"),
    )
    expected = [
        "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in tools)
        + f"<|im_start|>user\ncall {i}<|im_end|>\n<|im_start|>assistant\nok<|im_end|>\n"
        for i, tools in enumerate(TOOLS)
    ]
    assert [row["text"] for row in written(tmp_path / "out")] == expected
    assert not any("null" in text for text in expected)
