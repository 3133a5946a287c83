"""What a chat template does not render is found: messages, calls, keys, tools and documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import chat_templates as templates
from sftkit.cli.console.reports.show_preprocess import print_result
from sftkit.core.row_log import RowError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec
from support import dataset, handler, preprocess, write_jsonl, written

MakeChatTokenizer = Callable[..., ChatTokenizer]
Row = dict[str, Any]

THREE_ROLES = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}"
    "<|{{ m.role }}|>{{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CALLS_OR_CONTENT = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTENT_OR_CALLS = CALLS_OR_CONTENT.replace("{% if m.tool_calls %}", "{% if m.tool_calls and not m.content %}")
LAST_TWO = THREE_ROLES.replace("in messages", "in messages[-2:]")
WITHOUT_MANY_SYSTEMS = THREE_ROLES.replace(
    "{% if m.role in", "{% if not (loop.index0 and m.role == 'system') and m.role in"
)
IN_LOWER_CASE = THREE_ROLES.replace("m.content }}", "m.content | lower | replace(' ', '_') }}")
FIRST_LETTERS = THREE_ROLES.replace("m.content }}", "m.content[:3] }}")
BETWEEN_TAGS = THREE_ROLES.replace(
    "{{ m.content }}",
    "{% if '<a>' in m.content %}{{ m.content.split('<a>')[1].split('</a>')[0].upper() }}"
    "{% else %}{{ m.content }}{% endif %}",
)
REASONING_LAST = THREE_ROLES.replace(
    "{{ m.content }}",
    "{% if loop.last and m.reasoning_content %}<think>{{ m.reasoning_content | upper }}</think>{% endif %}"
    "{{ m.content }}",
)
RESULTS_AS_JSON = THREE_ROLES.replace("'assistant']", "'assistant', 'tool']").replace(
    "{{ m.content }}", "{{ m.content | tojson if m.role == 'tool' else m.content }}"
)
TOOL_ROLE = THREE_ROLES.replace("'assistant']", "'assistant', 'tool']")


def say(role: str | None, content: Any = "", **keys: Any) -> Row:
    return {"role": role, "content": content, **keys}


def call(name: str = "f", **arguments: Any) -> Row:
    return {"tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}


HI, YO = say("user", "hi"), say("assistant", "this is it")
CALLED = [say("user", "w?"), say("assistant", "", **call()), say("tool", "RESULT"), say("assistant", "done")]


@pytest.mark.parametrize(
    ("template", "messages", "rules", "keys"),
    [
        (THREE_ROLES, [say("context", "Speak French."), HI, YO], ["message_not_rendered"], ["role: context"]),
        (THREE_ROLES, [say("context", "hi"), HI, YO], ["message_not_rendered"], ["role: context"]),
        (THREE_ROLES, [say("context", " \n"), HI, YO], [], []),
        (THREE_ROLES, [say("context", ["hi"]), HI, YO], ["message_not_rendered"], ["role: context"]),
        (THREE_ROLES, CALLED, ["message_not_rendered"], ["tool_calls", "role: tool"]),
        (TOOL_ROLE, CALLED, ["message_not_rendered"], ["tool_calls"]),
        (CALLS_OR_CONTENT, CALLED, [], []),
        (CALLS_OR_CONTENT, [HI, say("assistant", "I ask.", **call()), YO], ["field_not_rendered"], ["content"]),
        (CONTENT_OR_CALLS, [HI, say("assistant", "I ask f.", **call()), YO], ["message_not_rendered"], ["tool_calls"]),
        (RESULTS_AS_JSON, [HI, YO, say("tool", 'a "b"\nc'), YO], [], []),
        (RESULTS_AS_JSON, [HI, YO, say("tool", {"a": [1]}), YO], [], []),
        (LAST_TWO, [HI, YO], [], []),
        (LAST_TWO, [say("system", "is"), HI, YO], ["message_not_rendered"], ["role: system"]),
        (WITHOUT_MANY_SYSTEMS, [say("system", "a"), HI, YO], [], []),
        (WITHOUT_MANY_SYSTEMS, [HI, say("system", "a"), YO], ["message_not_rendered"], ["role: system"]),
        (IN_LOWER_CASE, [say("user", "Who Is It?"), YO], [], []),
        (FIRST_LETTERS, [say("user", "Who Is It?"), YO], [], []),
        (BETWEEN_TAGS, [say("user", "b <a>x</a> c"), say("assistant", "<a>ß</a>")], [], []),
        (templates.LLAMA2, [say("system", "Be brief."), say("user", " hi\n"), YO], [], []),
        (templates.QWEN3_LIKE, [HI, say("assistant", "<think>\nhm\n</think>\n\nyo"), HI, YO], [], []),
        (templates.QWEN3_LIKE, [HI, say("assistant", "<think>\nhm\n</think>\n\n"), HI, YO], [], []),
        (REASONING_LAST, [HI, {**YO, "reasoning_content": "hm"}, HI, YO], [], ["reasoning_content"]),
        (REASONING_LAST, [HI, {**YO, "reasoning_content": "is"}, HI, YO], [], ["reasoning_content"]),
        (REASONING_LAST, [HI, {**YO, "reasoning_content": "hm"}, HI, {**YO, "thinking": "hm"}], [], []),
        (THREE_ROLES, [HI, {**YO, "reasoning": "hm"}], ["field_not_rendered"], ["reasoning"]),
        (THREE_ROLES, [{**HI, "name": "ann", "id": 7}, {**YO, "weight": 1, "train": True}], [], ["name", "id"]),
        (THREE_ROLES, [{**HI, "images": ["a.png"], "name": ""}, YO], ["field_not_rendered"], ["images"]),
        (
            THREE_ROLES.replace("{{ m.content }}", "{{ m.content if m.content is string else m.content[0].text }}"),
            [say("user", [{"type": "text", "text": "hi"}, {"type": "image", "url": "a"}]), YO],
            ["field_not_rendered"],
            ["content: image"],
        ),
    ],
)
@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_what_a_template_leaves_out_is_found(
    chat_tokenizer: MakeChatTokenizer,
    template: str,
    messages: list[Row],
    rules: list[str],
    keys: list[str],
    train_on: str,
) -> None:
    tokenizer = chat_tokenizer(template, train_on=train_on)
    for _ in range(2):
        rendered = tokenizer.conversations.render_checked(
            {"messages": [{**each, "weight": None} for each in messages]}, "messages"
        )
        assert [*map(sorted, rendered[1])] == [rules, sorted(keys)]
    notes = tokenizer.conversations.prepare({"messages": messages}, "messages").notes
    others = {"empty_answer", "prompt_mismatch"}
    assert ([rule for rule in notes.rules if rule not in others], sorted(notes.not_rendered)) == (rules, sorted(keys))


def test_tools_and_documents_that_are_left_out_are_found(chat_tokenizer: MakeChatTokenizer) -> None:
    row = {"messages": [HI, YO], "tools": [{"name": "f"}], "documents": [{"text": "d"}]}
    expected = (("field_not_rendered",), ("tools", "documents"))
    assert chat_tokenizer(THREE_ROLES).conversations.prepare(row, "messages").notes == expected
    with_tools = "{% if tools %}{{ tools | tojson }}{% endif %}" + THREE_ROLES
    expected = (("field_not_rendered",), ("documents",))
    assert chat_tokenizer(with_tools).conversations.prepare(row, "messages").notes == expected


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("assistent", r"message 1 has the role 'assistent', which the chat template does not render \(did you mean "),
        ("User", r"message 1 has the role 'User', .* \(did you mean 'user'\?\)"),
        ("narrator", "message 1 has the role 'narrator', which the chat template does not render; correct it"),
        (None, "message 1 has no role, and the chat template does not render it"),
        ("", "message 1 has no role"),
        (["user"], r"message 1 has the role \"\['user'\]\""),
    ],
)
def test_a_message_of_an_unknown_role_that_is_left_out_is_refused(
    chat_tokenizer: MakeChatTokenizer, role: Any, message: str
) -> None:
    with pytest.raises(RowError, match=message):
        chat_tokenizer(THREE_ROLES).conversations.prepare({"messages": [HI, say(role, "hello"), YO]}, "messages")


def test_a_message_of_an_unknown_role_that_is_rendered_is_fine(chat_tokenizer: MakeChatTokenizer) -> None:
    messages = [HI, say("narrator", "Later."), YO]
    assert chat_tokenizer(templates.CHATML).conversations.prepare({"messages": messages}, "messages").notes == ((), ())


@pytest.mark.parametrize("template", [LAST_TWO, WITHOUT_MANY_SYSTEMS, templates.QWEN3_LIKE])
def test_programs_leave_out_what_the_reference_leaves_out(tokenizer_path: Callable[[str], str], template: str) -> None:
    def make(policy: EnginePolicy) -> ChatTokenizer:
        return ChatTokenizer(ChatTokenizerSpec(TokenizerSpec(tokenizer_path("bpe"), template), "all", policy))

    fast = make(EnginePolicy(frozenset(), verify_fraction=0.0))
    reference = make(EnginePolicy(frozenset({ENCODER, RENDERER}), verify_fraction=0.0))
    shapes: list[list[Row]] = [
        [HI, YO],
        [say("system", "e"), HI, YO],
        [HI, say("assistant", "<think>\na\n</think>\n\n"), say("system", "y"), HI, YO],
        [HI, say("assistant", "o"), say("system", " "), HI, YO],
    ]
    for _ in range(20):
        for messages in shapes:
            row = {"messages": messages}
            assert (
                fast.conversations.prepare(row, "messages").notes
                == reference.conversations.prepare(row, "messages").notes
            )
    assert fast.rows_by_programs > 20


@pytest.mark.parametrize(
    "name", ["tokenize_and_apply_chat_template_with_masking", "apply_tokenizer_chat_template"], ids=["tokens", "text"]
)
def test_what_is_left_out_is_in_the_manifest_and_printed(
    tmp_path: Path, tokenizer_path: Callable[[str], str], name: str
) -> None:
    context = say("context", "Speak French.")
    rows = [[HI, YO], [context, HI, YO], [{**HI, "name": "ann"}, YO], [HI, say("assistent", "x"), YO]]
    first = write_jsonl(tmp_path / "first.jsonl", [{"messages": messages} for messages in rows])
    second = write_jsonl(tmp_path / "second.jsonl", [{"messages": rows[2]}, {"messages": rows[0]}])
    handlers = [handler(name, conversation_column="messages")]
    if name.startswith("apply"):
        handlers = [handler(name, conversation_column="messages", dataset_text_field="text")]
        options: Row = {"response_template": "<|assistant|>", "dataset_text_field": "text"}
    else:
        options = {}
    manifest = preprocess(
        tmp_path / "out",
        dataset(first, second, data_handlers=handlers),
        model_name_or_path=tokenizer_path("bpe"),
        processor={"chat_template": THREE_ROLES},
        max_bad_rows=1,
        **options,
    )
    assert manifest.not_rendered == {"name": 2, "role: context": 1}
    assert [source.not_rendered for source in manifest.sources] == [{"name": 1, "role: context": 1}, {"name": 1}]
    assert manifest.quarantined == 1
    assert len(written(tmp_path / "out")) == 5
    assert manifest.audit is not None
    [finding] = [each for each in manifest.audit.findings if each.rule == "message_not_rendered"]
    assert (finding.level, finding.rows, list(finding.examples)) == ("error", 1, [f"{first}:2"])
    stored = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert stored["not_rendered"] == {"name": 2, "role: context": 1}
    screen = StringIO()
    print_result(manifest, "out", Console(file=screen, width=300))
    assert "not rendered: `name` in 2 rows, messages of the role `context` in 1 row\n" in screen.getvalue()
