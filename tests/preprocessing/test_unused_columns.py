"""Columns that hold data and are not used: counted, reported, and an error where a part of the row would be lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import HandlerConfig
from sftkit.errors import DataError
from sftkit.preprocessing.planning import plan
from support import dataset, handler, preprocess, write_jsonl, written

MODEL = "sample:model"
PAIRS = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
CHAT = handler("tokenize_and_apply_chat_template_with_masking")
TEMPLATE = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}"
TOOL_TEMPLATE = "{% if tools %}{{ tools | tojson }}{% endif %}" + TEMPLATE
TOOL = {"type": "function", "function": {"name": "now", "parameters": {}}}


def pair(**others: Any) -> dict[str, Any]:
    return {"input": "2 + 3", "output": "5", **others}


def chat(text: str = "Hello", **others: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Hi."}], **others}


def unused(
    folder: Path, rows: list[dict[str, Any]], *handlers: HandlerConfig, template: str = TEMPLATE, **keys: Any
) -> Any:
    """Run on rows, and return the columns that the manifest lists as not used."""
    options = {key: keys.pop(key) for key in ("compat", "train_on", "unit_size") if key in keys}
    data = dataset(write_jsonl(folder / "rows.jsonl", rows), data_handlers=handlers, **keys)
    processor = {"chat_template": template}
    manifest = preprocess(folder / "out", data, processor=processor, model_name_or_path=MODEL, **options)
    return dict(manifest.sources[0].columns_not_used)


def test_columns_that_nothing_uses_are_counted_where_they_are_filled(tmp_path: Path) -> None:
    rows = [pair(id=0, note="a", tags=[], meta={}), pair(id=1, note="", tags=["x"], meta={"a": None}), pair(id=None)]
    assert unused(tmp_path, rows, PAIRS) == {"id": 2, "note": 1, "tags": 1}
    stored = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert stored["sources"][0]["columns_not_used"] == {"id": 2, "note": 1, "tags": 1}


def test_each_of_several_small_files_has_its_own_counts(tmp_path: Path) -> None:
    for number in range(70):
        write_jsonl(tmp_path / "in" / f"{number:02}.jsonl", [pair(**{f"n{number % 2}": 1}), pair()])
    manifest = preprocess(
        tmp_path / "out", dataset(tmp_path / "in" / "*.jsonl", data_handlers=[PAIRS]), model_name_or_path=MODEL
    )
    assert [dict(source.columns_not_used) for source in manifest.sources] == [{"n0": 1}, {"n1": 1}] * 35


def test_counts_are_those_of_reused_units(tmp_path: Path) -> None:
    data = dataset(write_jsonl(tmp_path / "rows.jsonl", [pair(id=1)] * 3), data_handlers=[PAIRS])
    for run in ("first", "second"):
        manifest = preprocess(tmp_path / run, data, model_name_or_path=MODEL, staging_dir=str(tmp_path / "units"))
        assert dict(manifest.sources[0].columns_not_used) == {"id": 3}
    assert manifest.units_found == 1


@pytest.mark.parametrize("column", ["instruction", "system", "history", "context", "question", "images"])
def test_a_part_of_a_row_that_nothing_uses_is_an_error_before_rows_are_tokenized(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError) as error:
        unused(tmp_path, [pair(**{column: f"text {n}"}) for n in range(20)], PAIRS)
    assert str(error.value) == (
        f"dataset 'data' ({tmp_path}/rows.jsonl): no handler and no chat template uses the column {column!r} (20 of "
        "the first 20 rows filled), so the model would never see it; use it in a handler, or set "
        f"ignore_columns={column} to go on without it"
    )
    assert not (tmp_path / "out").exists()


def test_the_input_of_an_alpaca_row_must_be_used_with_its_instruction(tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": "1 2", "output": "3"}] * 4
    masking = handler("tokenize_and_apply_input_masking", input_field_name="instruction", output_field_name="output")
    with pytest.raises(DataError, match="uses the column 'input'"):
        unused(tmp_path, rows, masking)


def test_ignored_columns_are_no_error_and_not_listed(tmp_path: Path) -> None:
    rows = [pair(system="Be brief.", id=1)] * 5
    assert unused(tmp_path, rows, PAIRS, ignore_columns=("system",)) == {"id": 5}
    config = PreprocessConfig(
        output_dir=str(tmp_path / "o"),
        training_data_path=(str(tmp_path / "rows.jsonl"),),
        model_name_or_path=MODEL,
        ignore_columns=("system", "id"),
    )
    assert plan(config).samples["training_data"].unused == {"system": 5, "id": 5}


def test_columns_that_are_removed_by_name_are_a_decision(tmp_path: Path) -> None:
    rows = [pair(system="Be brief.", history=[["a", "b"]], id=1)] * 5
    remove = handler("remove_columns", columns=["history"])
    assert unused(tmp_path, rows, remove, PAIRS, remove_columns=("system",)) == {"id": 5}


def test_removing_all_columns_is_no_decision(tmp_path: Path) -> None:
    arguments = {**PAIRS.arguments, "remove_columns": "all"}
    with pytest.raises(DataError, match="uses the column 'system'"):
        unused(tmp_path, [pair(system="Be brief.")] * 5, HandlerConfig(name=PAIRS.name, arguments=arguments))


def test_compat_fms_lists_and_does_not_stop(tmp_path: Path) -> None:
    assert unused(tmp_path, [pair(system="Be brief.")] * 5, PAIRS, compat="fms") == {"system": 5}


def test_rows_of_the_twitter_complaints_data_are_no_error(tmp_path: Path) -> None:
    row = {"Tweet text": "@x hi", "ID": 0, "Label": 2, "text_label": "no", "output": "### Label: no", "input": "@x hi"}
    rows = [row] * 5
    others = {"ID": 5, "Label": 5, "Tweet text": 5, "text_label": 5}
    assert unused(tmp_path / "a", rows, PAIRS) == others
    template = handler("apply_custom_data_formatting_template", dataset_text_field="t", template="{{Tweet text}}")
    assert unused(tmp_path / "b", rows, template, train_on="all") == {
        "ID": 5, "Label": 5, "input": 5, "output": 5, "text_label": 5
    }  # fmt: skip
    assert unused(tmp_path / "c", rows, train_on="all", rename_columns={"output": "text"}) == {**others, "input": 5}


def test_raw_fields_beside_the_messages_that_hold_their_text_are_no_error(tmp_path: Path) -> None:
    rows = [chat(f"Tell me about {n}.", prompt=f"Tell me about {n}. ", prompt_id=n) for n in range(20)]
    assert unused(tmp_path, rows, CHAT) == {"prompt_id": 20}


def test_a_prompt_that_the_messages_do_not_hold_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="uses the column 'prompt'"):
        unused(tmp_path, [chat(f"Tell me about {n}.", prompt=f"Answer {n} in French") for n in range(20)], CHAT)


def test_the_same_conversation_in_two_formats_is_no_error(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]
    assert unused(tmp_path, [chat(conversations=turns)] * 5, CHAT) == {}
    assert unused(tmp_path / "json", [chat(conversations=json.dumps(turns))] * 5, CHAT) == {}


def test_tools_are_used_if_the_template_renders_them(tmp_path: Path) -> None:
    rows = [chat(tools=[TOOL])] * 5
    assert unused(tmp_path / "a", rows, CHAT, template=TOOL_TEMPLATE) == {}
    with pytest.raises(DataError, match="uses the column 'tools'"):
        unused(tmp_path / "b", rows, CHAT)


def test_tools_of_pairs_are_listed_where_a_data_config_makes_pairs_of_the_rows(tmp_path: Path) -> None:
    assert unused(tmp_path, [pair(tools=[TOOL])] * 5, PAIRS) == {"tools": 5}
    config = PreprocessConfig(
        output_dir=str(tmp_path / "o"), training_data_path=(str(tmp_path / "rows.jsonl"),), model_name_or_path=MODEL
    )
    with pytest.raises(DataError, match="uses the column 'tools'"):
        plan(config)


def test_a_column_that_only_later_rows_have_stops_the_run_after_tokenizing(tmp_path: Path) -> None:
    rows = [pair()] * 1100 + [pair(system="Be brief.")] * 5
    with pytest.raises(DataError, match=r"uses the column 'system' \(5 of 1,105 rows filled\)"):
        unused(tmp_path, rows, PAIRS)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert unused(tmp_path, rows, PAIRS, ignore_columns=("system",)) == {}
    assert unused(tmp_path / "few", rows[:-3], PAIRS) == {"system": 2}


def test_rows_that_come_with_their_tokens_are_complete(tmp_path: Path) -> None:
    rows = [{"input_ids": [5, 6], "labels": [-100, 6], "messages": [{"role": "user", "content": "Hello"}]}] * 5
    assert unused(tmp_path, rows) == {"messages": 5}


@pytest.mark.parametrize(
    ("handlers", "expected"),
    [
        ([handler("rename_columns", columns={"input": "q", "output": "a"}),
          handler("tokenize_and_apply_input_masking", input_field_name="q", output_field_name="a")], {"note": 3}),
        ([handler("duplicate_columns", old_column="input", new_column="text")], {"output": 3, "note": 3}),
        ([handler("skip_large_text", column_name="note", max_length=99), PAIRS], {"note": 3}),
        ([handler("apply_custom_jinja_template", dataset_text_field="t", template="{{ note }}"), PAIRS], {"note": 3}),
        ([handler("apply_custom_jinja_template", dataset_text_field="text", template="{{ element | tojson }}")], {}),
        ([handler("apply_custom_jinja_template", dataset_text_field="text", template="{{ element.note }}")],
         {"input": 3, "output": 3}),
        ([handler("retain_columns", columns=["input", "output"]), PAIRS], {"note": 3}),
    ],
)  # fmt: skip
def test_content_is_followed_through_the_handlers(
    tmp_path: Path, handlers: list[HandlerConfig], expected: dict[str, int]
) -> None:
    assert unused(tmp_path, [pair(note="n")] * 3, *handlers, train_on="all") == expected


def test_everything_counts_as_used_by_a_function_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows_of_mine.py").write_text("def text(row):\n    return {'text': row['system'] + row['output']}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [pair(system="Be brief.")] * 3
    assert unused(tmp_path, rows, HandlerConfig(name="rows_of_mine:text"), train_on="all") == {}


def test_names_from_the_data_are_limited(tmp_path: Path) -> None:
    found = unused(tmp_path, [pair(**{f"{n:03}" + "x" * 300: 1 for n in range(250)})], PAIRS)
    assert len(found) == 200
    assert {len(name) for name in found} == {200}


def test_retained_columns_ride_along_beside_those_of_the_handlers(tmp_path: Path) -> None:
    rows = [pair(id=n, source="s", note="n") for n in range(4)]
    for number, handlers in enumerate(
        [[PAIRS], [HandlerConfig(name=PAIRS.name, arguments={**PAIRS.arguments, "remove_columns": "all"})]]
    ):
        folder = tmp_path / str(number)
        assert unused(folder, rows, *handlers, retain_columns=("id", "source")) == {"note": 4}
        assert [(row["id"], row["source"]) for row in written(folder / "out")] == [(n, "s") for n in range(4)]
        assert set(written(folder / "out")[0]) == {"input_ids", "labels", "id", "source"}


def test_retained_columns_ride_along_beside_templates_and_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text_of_mine.py").write_text("def text(row):\n    return {'text': row['input'] + row['output']}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    jinja = handler("apply_custom_jinja_template", dataset_text_field="text", template="{{ input }} {{ output }}")
    for name, each in (("jinja", jinja), ("function", HandlerConfig(name="text_of_mine:text"))):
        unused(tmp_path / name, [pair(id=n) for n in range(3)], each, retain_columns=("id",), train_on="all")
        assert [row["id"] for row in written(tmp_path / name / "out")] == [0, 1, 2]


def test_a_retained_column_that_some_rows_lack_is_null_there(tmp_path: Path) -> None:
    unused(tmp_path, [pair(id=1), pair()], PAIRS, retain_columns=("id",))
    assert [row["id"] for row in written(tmp_path / "out")] == [1, None]


def test_retaining_all_that_handlers_need_removes_the_rest_on_loading(tmp_path: Path) -> None:
    assert unused(tmp_path, [pair(id=1, note="n")] * 2, PAIRS, retain_columns=("input", "output")) == {
        "id": 2, "note": 2
    }  # fmt: skip
    assert set(written(tmp_path / "out")[0]) == {"input_ids", "labels", "input", "output"}
    arguments = {**PAIRS.arguments, "remove_columns": "all"}
    removing = HandlerConfig(name=PAIRS.name, arguments=arguments)
    unused(tmp_path / "all", [pair(id=1)] * 2, removing, retain_columns=("input", "output"))
    assert set(written(tmp_path / "all" / "out")[0]) == {"input_ids", "labels"}


def test_the_handler_that_retains_columns_keeps_the_tokens(tmp_path: Path) -> None:
    unused(tmp_path, [pair(id=1)] * 2, PAIRS, handler("retain_columns", columns=["id"]))
    assert set(written(tmp_path / "out")[0]) == {"input_ids", "labels", "id"}
