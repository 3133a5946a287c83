"""Handlers that remove rows by a condition, a function or their size, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chat_templates as templates
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import HandlerConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.row_log import RowError, RowLog
from sftkit.core.rows import Batch, Row
from sftkit.errors import ConfigError, DataError
from sftkit.handlers.filters.condition import Condition, variables_of_condition
from sftkit.handlers.filters.measures import measure_conversation
from sftkit.handlers.registry import build_handlers, function_paths
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import check_config, plan
from sftkit.sandbox.render_limits import TemplateLimitError
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from support import dataset, handler, write_jsonl

Apply = Callable[..., tuple[list[Any], RowLog]]

MASKING = handler("tokenize_and_apply_chat_template_with_masking")


@pytest.fixture
def apply(chat_tokenizer: Callable[..., ChatTokenizer]) -> Apply:
    """Runs rows through handlers; returns the ids of the rows that are left, and the log."""

    def run(rows: list[Row], *handlers: HandlerConfig) -> tuple[list[Any], RowLog]:
        batch, log = Batch(rows, np.arange(1, len(rows) + 1)), RowLog()
        for link in build_handlers(dataset("unused", data_handlers=handlers), 0):
            batch = link.bind(chat_tokenizer(templates.CHATML))(batch, log)
        return [row.get("id") for row in batch.rows], log

    return run


def chat(*texts: str, **columns: Any) -> Row:
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)],
        **columns,
    }


def problems(*handlers: HandlerConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_handlers(dataset("unused", data_handlers=handlers), 0)
    return list(caught.value.problems)


# --- Conditions ---------------------------------------------------------------------------------------


ROWS = [
    chat("Hi", "Hello", id="a", source="x", score=3),
    chat("Hi", "Hello", "Bye", "Good bye", id="b", source="x", score=1),
    chat("Hi", "Hello", "Bye", "Good bye", id="c", source="y", score=3),
]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("len(messages) > 2 and source == 'x'", ["b"]),
        ("turns > 2", ["b", "c"]),
        ("roles.user == 1", ["a"]),
        ("roles.tool == 0 and roles.system == 0", ["a", "b", "c"]),
        ("characters == 7", ["a"]),
        ("answer_characters > 5", ["b", "c"]),
        ("score >= 2", ["a", "c"]),
        ("element.score >= 2 and element['source'] == 'y'", ["c"]),
        ("grade is undefined or grade > 3", ["a", "b", "c"]),
        ("grade | default(5) > 5", []),
        ("source in ['y', 'z']", ["c"]),
        ("'Bye' in messages | map(attribute='content') | list", ["b", "c"]),
        ("messages[-1].content | length > 5", ["b", "c"]),
        ("not source\n == 'x'", ["c"]),
        ("source ~ '}}' == 'x}}'", ["a", "b"]),
    ],
)
def test_rows_stay_of_which_the_condition_is_true(apply: Apply, condition: str, kept: list[str]) -> None:
    found, log = apply(ROWS, handler("filter", condition=condition))
    assert found == kept
    assert log.quarantined == 0
    reason = f"filter: not ({' '.join(condition.split())})"
    assert dict(log.dropped) == ({reason: 3 - len(kept)} if len(kept) < 3 else {})


def test_dropped_rows_get_the_reason_that_the_config_gives(apply: Apply) -> None:
    assert dict(apply(ROWS, handler("filter", condition="turns > 2", reason="one exchange"))[1].dropped) == {
        "one exchange": 1
    }


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("score > 2", "the condition uses a missing value: 'score' is undefined; columns here: messages, id"),
        ("messages[0].score > 2", "the condition uses a missing value: 'dict object' has no attribute 'score'"),
        ("messages > 2", "the condition cannot be evaluated: '>' not supported between instances of 'list' and 'int'"),
        ("id.missing", "the condition uses a missing value: "),
        ("id.__class__.__mro__", "the condition cannot be evaluated: access to attribute '__class__'"),
        ("lipsum() and id", "the condition uses the function lipsum"),
    ],
)
def test_rows_on_which_the_condition_fails_are_quarantined(apply: Apply, condition: str, reason: str) -> None:
    if "lipsum" in condition:
        with pytest.raises(TemplateLimitError, match=reason):
            apply([chat("Hi", "Hello", id="a")], handler("filter", condition=condition))
        return
    found, log = apply([chat("Hi", "Hello", id="a")], handler("filter", condition=condition))
    assert found == []
    assert [row.reason[: len(reason)] for row in log.bad] == [reason]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"condition": "source =="}, "condition 'source ==' is not a valid expression: unexpected 'end'"),
        ({"condition": "source | shout"}, "No filter named 'shout'"),
        ({"condition": "a }} b {{ c"}, "is not a valid expression"),
        ({"condition": "a) or (b"}, "is not a valid expression"),
        ({"condition": "{% if a %}"}, "is not a valid expression"),
        ({"condition": "a, b"}, "is not a valid expression"),
        ({"condition": ""}, "is not a valid expression"),
        ({"condition": "9 ** 9 ** 9 > score"}, "`condition`: the expression has the operator **"),
        ({"condition": "(" * 500 + "a" + ")" * 500}, "condition"),
        ({"condition": "'source'"}, "must use a column or a measure: it is the same for all rows"),
        ({}, "`condition` or `function` must be set, and not both"),
        ({"condition": "a", "function": "b:c"}, "`condition` or `function` must be set, and not both"),
        ({"condition": "a", "function_kwargs": {"b": 1}}, "function_kwargs needs `function`"),
    ],
)
def test_wrong_arguments_are_named_before_any_data_is_read(arguments: dict[str, Any], problem: str) -> None:
    [found] = problems(handler("filter", **arguments))
    assert found.startswith("datasets[0].data_handlers[0].filter: ")
    assert problem in found


def test_a_condition_that_takes_too_much_memory_ends_the_run(apply: Apply) -> None:
    with pytest.raises(TemplateLimitError, match=r"^1: .*condition"):
        apply(ROWS, handler("filter", condition="score * 99999999999 * 'a' > 'b'"))


def test_columns_of_a_condition_are_found_without_evaluating_it() -> None:
    found = variables_of_condition("a > 1 and b is defined and b == c and element.d and tokens > 3 and len(range(2))")
    assert (found.columns, found.optional_columns, found.measures) == ({"a", "c"}, {"b", "d"}, {"tokens"})
    assert not found.whole_row
    assert variables_of_condition("element | length > 3").whole_row


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_a_clear_error(text: str) -> None:
    try:
        condition = Condition(text)
    except ConfigError:
        return
    with suppress(RowError, TemplateLimitError):
        assert condition.holds({"a": 1}, {}) in (True, False)


# --- Measures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "de"}]}, (2, 5, 2)),
        ({"conversations": [{"from": "human", "value": "abc"}, {"from": "gpt", "value": "de"}]}, (2, 5, 2)),
        ({"conversations": '[{"from": "human", "value": "abc"}]'}, (1, 3, 0)),
        ({"contents": [{"role": "user", "parts": [{"text": "abc"}]}, {"role": "model", "parts": [{"text": "d"}]}]},
         (2, 4, 1)),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"a": 1}]}]}, (1, 10, 10)),
        ({"messages": [{"role": "assistant", "content": "a", "reasoning_content": "bc"}]}, (1, 3, 3)),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "abc"}, {"type": "text", "text": "d"}]}]},
         (1, 1, 0)),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "ab"},
                                                         {"type": "text", "text": "c"}]}]}, (1, 3, 3)),
        ({"conversations": [{"from": "function_call", "value": '{"name": "f"}'}]}, (1, 13, 13)),
    ],
)  # fmt: skip
def test_conversations_of_all_forms_are_measured(row: Row, expected: tuple[int, int, int]) -> None:
    found = measure_conversation(row, None)
    assert (found.turns, found.characters, found.answer_characters) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "abc"}, "no column holds a conversation to measure; columns here: text"),
        ({"messages": []}, "column 'messages' must hold a list of messages, not an empty list"),
        ({"messages": "abc"}, "column 'messages' must hold a list of messages, not str"),
        ({"messages": [{"role": "user", "content": "a"}, 5]}, "message 1 of column 'messages' must be an object"),
    ],
)
def test_rows_without_a_conversation_are_quarantined_by_its_measures(apply: Apply, row: Row, reason: str) -> None:
    for each in (handler("filter", condition="turns > 0"), handler("filter_length", min_turns=1)):
        found, log = apply([row], each)
        assert found == []
        assert [bad.reason[: len(reason)] for bad in log.bad] == [reason]


# --- Lengths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "kept", "reasons"),
    [
        ({"min_turns": 3}, ["b", "c"], {"fewer than min_turns=3": 1}),
        ({"max_turns": 3}, ["a"], {"more than max_turns=3": 2}),
        ({"min_turns": 2, "max_turns": 4}, ["a", "b", "c"], {}),
        ({"min_characters": 8}, ["b", "c"], {"fewer than min_characters=8": 1}),
        ({"max_answer_characters": 5}, ["a"], {"more than max_answer_characters=5": 2}),
        ({"min_answer_characters": 6, "max_turns": 3}, [],
         {"fewer than min_answer_characters=6": 1, "more than max_turns=3": 2}),
    ],
)  # fmt: skip
def test_rows_outside_the_limits_are_dropped_each_with_its_limit(
    apply: Apply, limits: dict[str, int], kept: list[str], reasons: dict[str, int]
) -> None:
    found, log = apply(ROWS, handler("filter_length", **limits))
    assert found == kept
    assert dict(log.dropped) == reasons


def test_limits_on_tokens_apply_after_a_handler_that_tokenizes(apply: Apply) -> None:
    long = chat("Hi", "The cat sat on the mat and the dog ran in the park.", id="long")
    rows = [chat("Hi", "Hello", id="short"), long]
    for name in ("trained_tokens", "tokens"):
        for limit, kept in ((1, ["short", "long"]), (500, [])):
            assert apply(rows, MASKING, handler("filter_length", **{f"min_{name}": limit}))[0] == kept
            assert apply(rows, MASKING, handler("filter", condition=f"{name} >= {limit}"))[0] == kept
    found, log = apply(rows, MASKING, handler("filter_length", min_trained_tokens=12, max_turns=9))
    assert found == ["long"]
    assert dict(log.dropped) == {"fewer than min_trained_tokens=12": 1}


def test_the_first_token_of_a_row_is_not_a_trained_one(apply: Apply) -> None:
    rows = [{"id": "a", "input_ids": [1, 2, 3], "labels": [1, -100, 3]}, {"id": "b", "input_ids": [1], "labels": [1]}]
    assert apply(rows, handler("filter", condition="trained_tokens == 1 and tokens == 3"))[0] == ["a"]
    assert apply(rows, handler("filter_length", max_trained_tokens=1, min_trained_tokens=1))[0] == ["a"]
    found, log = apply([{"id": "c", "input_ids": "x"}], handler("filter_length", min_tokens=1))
    assert found == []
    assert log.bad[0].reason == "column 'input_ids' must be a list of whole numbers to measure tokens"


@pytest.mark.parametrize(
    ("handlers", "problem"),
    [
        ([handler("filter_length", min_tokens=3), MASKING],
         "[0].filter_length counts tokens, so it must come after the handler tokenize_and_apply_chat_template_with"),
        ([handler("filter", condition="trained_tokens > 3"), MASKING], "[0].filter counts tokens, so it must come"),
        ([handler("tokenize", dataset_text_field="text"), handler("filter_length", min_trained_tokens=3)],
         "[1].filter_length counts trained tokens, which need labels, but no handler before it makes labels"),
        ([handler("filter_length")], "[0].filter_length: set at least one limit: min_turns, max_turns, "),
        ([handler("filter_length", conversation_column="messages")], "[0].filter_length: set at least one limit"),
        ([handler("filter_length", min_turns=3, max_turns=2)],
         "[0].filter_length: min_turns must not be more than max_turns, but 3 is more than 2"),
        ([handler("filter_length", min_turns=-1)], "[0].filter_length: min_turns must be 1 or more, not -1"),
        ([handler("filter_length", min_turns="few")], "[0].filter_length.min_turns must be a whole number"),
        ([handler("filter_length", min_words=1)], "[0].filter_length.min_words"),
    ],
)  # fmt: skip
def test_limits_that_cannot_work_are_named_before_any_data_is_read(handlers: list[HandlerConfig], problem: str) -> None:
    [found] = problems(*handlers)
    assert problem in found


# --- In runs ------------------------------------------------------------------------------------------


def config_of(folder: Path, *handlers: HandlerConfig, **keys: Any) -> PreprocessConfig:
    path = folder / "rows.jsonl"
    if not path.exists():
        write_jsonl(path, ROWS)
    data = dataset(path, data_handlers=handlers, **keys.pop("data", {}))
    return PreprocessConfig(output_dir=str(folder / "out"), datasets=(data,), model_name_or_path="sample:model", **keys)


def test_each_removed_row_is_counted_and_listed_with_its_reason(tmp_path: Path) -> None:
    filters = [handler("filter", condition="source == 'x'"), MASKING, handler("filter_length", max_turns=3)]
    manifest = run(plan(config_of(tmp_path, *filters)), SilentProgress())
    assert manifest.rows_written == 1
    assert manifest.sources[0].dropped_by_handler == {
        "filter": {"filter: not (source == 'x')": 1},
        "filter_length": {"more than max_turns=3": 1},
    }
    listed = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert [(each["row"], each["reason"]) for each in listed] == [
        (2, "more than max_turns=3"),
        (3, "filter: not (source == 'x')"),
    ]


@pytest.mark.parametrize("condition", ["sorce == 'x'", "tokens > 2"])
def test_a_column_that_no_row_has_is_named_before_the_run(tmp_path: Path, condition: str) -> None:
    name = "input_ids" if condition.startswith("tokens") else "sorce"
    rendering = handler("apply_tokenizer_chat_template", dataset_text_field="t")
    with pytest.raises(DataError, match=f"filter needs column '{name}', which no row has"):
        plan(config_of(tmp_path, handler("filter", condition=condition), rendering))


@pytest.mark.parametrize(
    "condition", ["source == 'x'", "source is defined", "element.source == 'x'", "element | length > 3"]
)
def test_columns_of_a_condition_are_not_removed_before_it_is_evaluated(tmp_path: Path, condition: str) -> None:
    keys = {"data": {"retain_columns": ("messages",)}}
    manifest = run(plan(config_of(tmp_path, handler("filter", condition=condition), MASKING, **keys)), SilentProgress())
    assert manifest.rows_written == (3 if condition in ("source is defined", "element | length > 3") else 2)


FUNCTIONS = """
import os

def keep(row, least=2):
    return len(row["messages"]) > least

def odd(row):
    return row

def failing(row):
    return 1 / 0 > 1

def listed(row):
    with open("names.txt") as names:
        return row["id"] in names.read()
"""


@pytest.fixture
def own_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module of filters."""
    (tmp_path / "own_filters.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_filters", raising=False)
    return tmp_path


def test_a_function_of_the_user_decides(apply: Apply, own_filters: Path) -> None:
    assert apply(ROWS, handler("filter", function="own_filters:keep"))[0] == ["b", "c"]
    found, log = apply(ROWS, handler("filter", function="own_filters:keep", function_kwargs={"least": 4}))
    assert found == []
    assert dict(log.dropped) == {"filter: own_filters:keep returned False": 3}
    for name, reason in (
        ("odd", "own_filters:odd must return True or False, not dict"),
        ("failing", "own_filters:failing raised ZeroDivisionError: division by zero"),
    ):
        _, log = apply(ROWS[:1], handler("filter", function=f"own_filters:{name}"))
        assert [bad.reason for bad in log.bad] == [reason]


def test_files_that_a_filter_reads_decide_whether_rows_are_reused(own_filters: Path) -> None:
    (own_filters / "names.txt").write_text("a")
    config = config_of(own_filters, handler("filter", function="own_filters:listed"), MASKING, staging_dir="units")
    assert run(plan(config), SilentProgress()).rows_written == 1
    (own_filters / "names.txt").write_text("a b")
    assert run(plan(config), SilentProgress()).rows_written == 2


def test_functions_of_filters_need_the_same_trust_as_others(own_filters: Path) -> None:
    config = config_of(own_filters, handler("filter", function="os:getcwd"), MASKING)
    assert function_paths(config.datasets) == ["os:getcwd"]
    with pytest.raises(ConfigError, match="os belongs to Python or to an installed package"):
        check_config(config)
    for path, problem in (("own_filters", "write it package.module:function"), ("own_filters:no", "has no 'no'")):
        with pytest.raises(ConfigError, match=problem):
            check_config(config_of(own_filters, handler("filter", function=path), MASKING))
