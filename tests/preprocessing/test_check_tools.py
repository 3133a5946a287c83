"""`check_tools`: every seeded fault in tool calls is found, in every form of conversations, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftkit import inspect_shards
from sftkit.audit.findings import (
    TOOL_ARGUMENTS_INVALID,
    TOOL_JSON_INVALID,
    TOOL_NOT_OFFERED,
    TOOL_ORDER,
    TOOL_RESULT_UNPAIRED,
    TOOL_RULES,
    TOOL_SCHEMA_UNUSABLE,
)
from sftkit.audit.tools.argument_schemas import ArgumentSchemas
from sftkit.config.commands import PreprocessConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.handlers.messages.tool_use import read_tool_use, usual_reader
from sftkit.preprocessing.build import run
from sftkit.preprocessing.pipeline.tool_checking import faults_of_row
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest
from support import dataset, handler, shard_bytes, write_jsonl

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
}
BROKEN = '{"city": "Par'

Turn = tuple[str, Any]
"""("user", text), ("answer", text), ("call", (id, name, arguments)) or ("result", (id, name, text))."""

GOOD: list[Turn] = [
    ("user", "weather?"),
    ("call", ("c1", "weather", {"city": "Paris", "days": 2})),
    ("result", ("c1", "weather", "sunny")),
    ("answer", "sunny"),
    ("user", "and Rome?"),
    ("call", ("c2", "weather", {"city": "Rome"})),
    ("result", ("c2", "weather", "rain")),
    ("answer", "rain"),
]


def called(at: int, name: str, arguments: Any) -> Callable[[list[Turn]], None]:
    def change(turns: list[Turn]) -> None:
        turns[at] = ("call", (turns[at][1][0], name, arguments))

    return change


def without(*places: int) -> Callable[[list[Turn]], None]:
    def change(turns: list[Turn]) -> None:
        for place in sorted(places, reverse=True):
            del turns[place]

    return change


def swapped(one: int, other: int) -> Callable[[list[Turn]], None]:
    def change(turns: list[Turn]) -> None:
        turns[one], turns[other] = turns[other], turns[one]

    return change


FAULTS: dict[str, tuple[Callable[[list[Turn]], None], str]] = {
    "unknown tool": (called(1, "wether", {"city": "Paris"}), TOOL_NOT_OFFERED),
    "unknown tool, later": (called(5, "wether", {"city": "Rome"}), TOOL_NOT_OFFERED),
    "missing argument": (called(1, "weather", {"days": 2}), TOOL_ARGUMENTS_INVALID),
    "no argument": (called(1, "weather", {}), TOOL_ARGUMENTS_INVALID),
    "null for a required argument": (called(1, "weather", {"city": None}), TOOL_ARGUMENTS_INVALID),
    "wrong type": (called(5, "weather", {"city": ["Rome"]}), TOOL_ARGUMENTS_INVALID),
    "out of range": (called(1, "weather", {"city": "Paris", "days": 0}), TOOL_ARGUMENTS_INVALID),
    "orphan result": (without(1), TOOL_RESULT_UNPAIRED),
    "two results": (lambda turns: turns.insert(3, turns[2]), TOOL_RESULT_UNPAIRED),
    "no result": (without(2), TOOL_ORDER),
    "no answer": (without(3), TOOL_ORDER),
    "result before its call": (swapped(1, 2), TOOL_RESULT_UNPAIRED),
    "answer before the result": (swapped(2, 3), TOOL_ORDER),
    "question before the result": (swapped(2, 4), TOOL_ORDER),
    "answer after the next question": (swapped(3, 4), TOOL_ORDER),
}


# --- The same conversation in several forms -----------------------------------------------------------


def openai(turns: list[Turn], *, as_text: bool = False) -> Row:
    messages: list[Row] = []
    for kind, value in turns:
        if kind == "call":
            given = json.dumps(value[2]) if as_text and not isinstance(value[2], str) else value[2]
            call = {"id": value[0], "type": "function", "function": {"name": value[1], "arguments": given}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif kind == "result":
            messages.append({"role": "tool", "tool_call_id": value[0], "content": value[2]})
        else:
            messages.append({"role": {"user": "user", "answer": "assistant"}[kind], "content": value})
    tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    return {"messages": messages, "tools": [tool]}


def openai_text(turns: list[Turn]) -> Row:
    row = openai(turns, as_text=True)
    return {**row, "tools": json.dumps(row["tools"])}


def older_openai(turns: list[Turn]) -> Row:
    messages: list[Row] = []
    for kind, value in turns:
        if kind == "call":
            given = value[2] if isinstance(value[2], str) else json.dumps(value[2])
            messages.append({"role": "assistant", "content": None,
                             "function_call": {"name": value[1], "arguments": given}})  # fmt: skip
        elif kind == "result":
            messages.append({"role": "function", "name": value[1], "content": value[2]})
        else:
            messages.append({"role": {"user": "user", "answer": "assistant"}[kind], "content": value})
    return {"messages": messages, "functions": [{"name": "weather", "parameters": SCHEMA}]}


def sharegpt(turns: list[Turn]) -> Row:
    names = {"user": "human", "answer": "gpt", "call": "function_call", "result": "observation"}
    conversation = []
    for kind, value in turns:
        text = value
        if kind == "call":
            given = BROKEN if value[2] == BROKEN else json.dumps(value[2])
            text = f'{{"name": "{value[1]}", "arguments": {given}}}'
        elif kind == "result":
            text = value[2]
        conversation.append({"from": names[kind], "value": text})
    return {"conversations": conversation, "tools": json.dumps([{"name": "weather", "parameters": SCHEMA}])}


def anthropic(turns: list[Turn]) -> Row:
    messages: list[Row] = []
    for kind, value in turns:
        if kind == "call":
            block = {"type": "tool_use", "id": value[0], "name": value[1], "input": value[2]}
            messages.append({"role": "assistant", "content": [{"type": "text", "text": "let me see"}, block]})
        elif kind == "result":
            block = {"type": "tool_result", "tool_use_id": value[0], "content": [{"type": "text", "text": value[2]}]}
            messages.append({"role": "user", "content": [block]})
        else:
            messages.append({"role": {"user": "user", "answer": "assistant"}[kind], "content": value})
    return {"messages": messages, "tools": [{"name": "weather", "input_schema": SCHEMA}]}


def gemini(turns: list[Turn]) -> Row:
    contents: list[Row] = []
    for kind, value in turns:
        if kind == "call":
            part: Row = {"functionCall": {"id": value[0], "name": value[1], "args": value[2]}}
        elif kind == "result":
            response = {"id": value[0], "name": value[1], "response": {"output": value[2]}}
            part = {"functionResponse": response}
        else:
            part = {"text": value}
        contents.append({"role": "model" if kind in ("call", "answer") else "user", "parts": [part]})
    properties = {"city": {"type": "STRING"}, "days": {"type": "INTEGER", "minimum": 1}}
    schema = {"type": "OBJECT", "properties": properties, "required": ["city"]}
    return {"contents": contents, "tools": [{"functionDeclarations": [{"name": "weather", "parameters": schema}]}]}


FORMS = [openai, openai_text, older_openai, sharegpt, anthropic, gemini]


def rules(row: Row) -> list[str]:
    column = next(name for name in ("messages", "conversations", "contents") if name in row)
    faults = faults_of_row(row, lambda row: read_tool_use(row, column, usual_reader()), ArgumentSchemas())
    return [fault.rule for fault in faults]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_conversation_without_a_fault_has_none_in_any_form(form: Callable[[list[Turn]], Row]) -> None:
    assert rules(form(GOOD)) == []
    assert rules(form(GOOD[:2])) == []  # a model learns to call
    assert rules(form([*GOOD[:3]])) == []


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_seeded_fault_is_found_in_every_form(form: Callable[[list[Turn]], Row], name: str) -> None:
    change, rule = FAULTS[name]
    turns = list(GOOD)
    change(turns)
    assert rule in rules(form(turns))


@pytest.mark.parametrize("form", [openai, openai_text, older_openai, sharegpt, anthropic, gemini])
def test_broken_json_is_found_in_every_form_that_has_it(form: Callable[[list[Turn]], Row]) -> None:
    turns = list(GOOD)
    called(1, "weather", BROKEN)(turns)
    assert rules(form(turns)) == [TOOL_JSON_INVALID]
    row = form(GOOD)
    tools = "functions" if "functions" in row else "tools"
    assert rules({**row, tools: json.dumps(row[tools])[:-2]}) == [TOOL_JSON_INVALID]


def call(name: str, arguments: Any = None, **keys: Any) -> Row:
    return {"function": {"name": name, "arguments": arguments or {}}, **keys}


def assistant(*calls: Row) -> Row:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def result(**keys: Any) -> Row:
    return {"role": "tool", "content": "done", **keys}


ANSWER, QUESTION = {"role": "assistant", "content": "done"}, {"role": "user", "content": "go"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([assistant(call("a", id="1"), call("b", id="2")), result(tool_call_id="2"), result(tool_call_id="1"), ANSWER],
         []),
        ([assistant(call("a", id="1"), call("b", id="2")), result(tool_call_id="1"), ANSWER], [TOOL_ORDER]),
        ([assistant(call("a", id="1")), result(tool_call_id="2"), ANSWER], [TOOL_RESULT_UNPAIRED, TOOL_ORDER]),
        ([assistant(call("a"), call("b")), result(name="b"), result(name="a"), ANSWER], []),
        ([assistant(call("a"), call("b")), result(), result(), ANSWER], []),
        ([assistant(call("a"), call("b")), result(), ANSWER], []),  # one result with those of both
        ([assistant(call("a"), call("b"), call("a")), result(), result(), ANSWER], [TOOL_ORDER]),
        ([assistant(call("a")), result(name="b"), ANSWER], [TOOL_RESULT_UNPAIRED]),
        ([assistant(call("a", id="1")), result(tool_call_id="1"), assistant(call("b", id="1")),
          result(tool_call_id="1"), ANSWER], []),
        ([assistant(call("a", id="1")), result(), ANSWER], []),
        ([assistant(call("a")), assistant(call("b")), result(), result(), ANSWER],
         [TOOL_ORDER, TOOL_RESULT_UNPAIRED]),
        ([assistant(call("c")), result(), ANSWER], [TOOL_NOT_OFFERED]),
        # Anthropic: the user says something beside a result.
        ([assistant(call("a", id="1")), {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "1", "content": "x"}, {"type": "text", "text": "so?"}]},
          ANSWER], []),
    ],
)  # fmt: skip
def test_calls_are_paired_with_results(messages: list[Row], expected: list[str]) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    assert rules({"messages": [QUESTION, *messages], "tools": tools}) == expected


def test_tools_without_a_list_may_be_in_the_system_prompt() -> None:
    messages = [QUESTION, assistant(call("add_up")), result(), ANSWER]
    assert rules({"messages": messages}) == [TOOL_NOT_OFFERED]
    described = [{"role": "system", "content": "Tools: add_up(a, b)"}, *messages]
    assert rules({"messages": described}) == []
    assert rules({"messages": described, "tools": [{"name": "subtract"}]}) == [TOOL_NOT_OFFERED]


def test_tools_of_the_same_name_allow_the_arguments_of_each() -> None:
    tools = [{"name": "a", "parameters": {"required": [name]}} for name in ("x", "y")]
    for arguments, expected in (({"x": 1}, []), ({"y": 1}, []), ({"z": 1}, [TOOL_ARGUMENTS_INVALID])):
        assert rules({"messages": [assistant(call("a", arguments)), result(), ANSWER], "tools": tools}) == expected


def test_a_tool_whose_schema_is_none_matters_only_if_it_is_called() -> None:
    tools = [{"name": "a", "parameters": {"type": "objekt"}}, {"name": "b", "parameters": {}}, {"type": "search"}]
    for name, expected in (("a", [TOOL_SCHEMA_UNUSABLE]), ("b", []), ("search", [])):
        assert rules({"messages": [assistant(call(name)), result(), ANSWER], "tools": tools}) == expected


# --- In runs ------------------------------------------------------------------------------------------

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def seeded(form: Callable[[list[Turn]], Row]) -> list[Row]:
    """Rows with one fault each: a good one, an unknown tool, wrong arguments, an orphan, a wrong order, broken JSON."""
    rows = [form(GOOD)]
    for name in ("unknown tool", "missing argument", "orphan result", "answer before the result"):
        turns = list(GOOD)
        FAULTS[name][0](turns)
        rows.append(form(turns))
    turns = list(GOOD)
    called(1, "weather", BROKEN)(turns)
    return [*rows, form(turns)]


def preprocess(folder: Path, rows: list[Row], *, converts: bool = True, **keys: Any) -> Manifest:
    write_jsonl(folder / "rows.jsonl", rows)
    handlers = [handler("convert_to_messages")] if converts else []
    handlers.append(handler("tokenize_and_apply_chat_template_with_masking"))
    config = PreprocessConfig(
        output_dir=str(folder / keys.pop("out", "out")),
        datasets=(dataset(folder / "rows.jsonl", data_handlers=handlers, **keys.pop("data", {})),),
        model_name_or_path="sample:model",
        **keys,
    )
    processor = replace(config.dataprocessor, chat_template=TEMPLATE)
    return run(plan(replace(config, dataprocessor=processor)), SilentProgress())


def findings(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    assert manifest.audit is not None
    return {each.rule: each.examples for each in manifest.audit.findings if each.rule in TOOL_RULES}


@pytest.mark.parametrize("form", [openai, openai_text, sharegpt, anthropic, gemini], ids=lambda form: form.__name__)
def test_faulty_rows_are_reported_or_dropped_or_quarantined(form: Callable[[list[Turn]], Row], tmp_path: Path) -> None:
    rows = seeded(form)
    warned = preprocess(tmp_path, rows, check_tools="warn", max_bad_rows=1)  # the JSON cannot be converted
    place = tmp_path / "rows.jsonl"
    assert findings(warned) == {
        TOOL_NOT_OFFERED: (f"{place}:2",),
        TOOL_ARGUMENTS_INVALID: (f"{place}:3",),
        TOOL_RESULT_UNPAIRED: (f"{place}:4", f"{place}:5"),
        TOOL_ORDER: (f"{place}:5",),
    }
    dropped = preprocess(tmp_path, rows, check_tools="drop", out="dropped")
    assert dropped.rows_written == 1
    assert dropped.sources[0].dropped_by_handler["convert_to_messages"] == {
        "check_tools: a call names a tool that the row does not offer": 1,
        "check_tools: arguments of a call that are not valid against the tool's schema": 1,
        "check_tools: a result that belongs to no call": 1,
        "check_tools: an order that is not call, result, answer": 1,
        "check_tools: invalid JSON of a tool call, or of the tools": 1,
    }
    removed = [json.loads(line)["reason"] for line in (tmp_path / "dropped" / "dropped.jsonl").read_text().splitlines()]
    assert removed[0].endswith("row does not offer (message 1 calls 'wether', which is no tool of the row (weather))")
    preprocess(tmp_path, rows, check_tools="error", out="bad", max_bad_rows=5)
    listed = [json.loads(line) for line in (tmp_path / "bad" / "quarantine.jsonl").read_text().splitlines()]
    assert [each["row"] for each in listed] == [2, 3, 4, 5, 6]
    assert listed[0]["reason"] == (
        "message 1 calls 'wether', which is no tool of the row (weather), which check_tools=error refuses"
    )
    with pytest.raises(DataError, match=r"5 rows cannot be used:\n  .*rows.jsonl:2: message 1 calls 'wether'"):
        preprocess(tmp_path, rows, check_tools="error", out="failed")


def test_conversations_that_are_not_converted_are_checked_too(tmp_path: Path) -> None:
    rows = seeded(openai_text)
    dropped = preprocess(tmp_path, rows, check_tools="drop", converts=False)
    assert dropped.rows_written == 1


def test_without_the_option_the_bytes_are_the_same_and_nothing_is_reported(tmp_path: Path) -> None:
    rows = seeded(openai)[:5]
    off = preprocess(tmp_path, rows)
    warn = preprocess(tmp_path, rows, check_tools="warn", out="warned")
    assert findings(off) == {}
    assert len(findings(warn)) == 4
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "warned")


@pytest.mark.parametrize("form", [openai, sharegpt, anthropic], ids=lambda form: form.__name__)
def test_an_audit_of_shards_checks_retained_conversations_and_tools(
    form: Callable[[list[Turn]], Row], tmp_path: Path
) -> None:
    rows = seeded(form)[:5]
    manifest = preprocess(tmp_path, rows, data={"retain_columns": ("messages", "tools")})
    assert findings(manifest) == {}
    report = inspect_shards(tmp_path / "out", audit=True)
    assert report.audit is not None
    shard = "train-00000-of-00001.parquet"
    assert {each.rule: each.examples for each in report.audit.findings if each.rule in TOOL_RULES} == {
        TOOL_NOT_OFFERED: (f"{shard}:1",),
        TOOL_ARGUMENTS_INVALID: (f"{shard}:2",),
        TOOL_RESULT_UNPAIRED: (f"{shard}:3", f"{shard}:4"),
        TOOL_ORDER: (f"{shard}:4",),
    }


def test_data_without_conversations_cannot_be_checked(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"input": "a", "output": "b"}])
    pair = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    config = PreprocessConfig(
        output_dir=str(tmp_path / "out"),
        datasets=(dataset(tmp_path / "rows.jsonl", data_handlers=[pair]),),
        model_name_or_path="sample:model",
        check_tools="warn",
    )
    with pytest.raises(ConfigError, match="check_tools=warn checks conversations, but no data set has a handler"):
        plan(config)


def test_no_fault_is_reported_in_real_data_that_reading_does_not_confirm(shared_data: Callable[[str], Path]) -> None:
    glaive = json.loads(shared_data("glaive_toolcall_en_demo.json").read_text(encoding="utf-8"))
    lines = shared_data("reason_tool_use_demo_50.jsonl").read_text(encoding="utf-8").splitlines()
    reasoning = [json.loads(line) for line in lines]
    faulty = [(name, number, rules(row)) for name, rows in (("glaive", glaive), ("reasoning", reasoning))
              for number, row in enumerate(rows, 1) if rules(row)]  # fmt: skip
    # The schema of track_calories has one number for `calories_per_item`, and the call has a list of three.
    assert faulty == [("glaive", 260, [TOOL_ARGUMENTS_INVALID])]
    assert '"calories_per_item": [150, 350, 800]' in glaive[259]["conversations"][3]["value"]
