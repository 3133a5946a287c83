"""Rows of every format become the tokens that transformers gives for messages written by hand."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sftkit.config.commands import PreprocessConfig
from sftkit.config.loading import load_config
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from sftkit.sample import sample_path
from support import dataset, handler, preprocess, write_jsonl, written

MODEL = "sample:model"
STOP = "<|im_end|>"

Messages = list[dict[str, Any]]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


@dataclass(frozen=True)
class Case:
    name: str
    """Of the format, and of the case after a space."""
    row: Row
    messages: Messages
    untrained: tuple[int, ...] = ()
    """Indices of answers without a loss."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a run without a data config, if it needs some."""


PAIR = [user("What is 2 + 3?"), answer("It is 5.")]
WITH_CONTEXT = [user("How many apples?\nAnn has 2."), answer("2")]
EARLIER = [user("Hi."), answer("Hello!")]
CHAT = {"chat": True}
HISTORY = [["Hi.", "Hello!"]]

CASES = [
    Case("messages", {"messages": PAIR}, PAIR),
    Case(
        "messages system", {"messages": [system("Be brief."), *EARLIER, *PAIR]}, [system("Be brief."), *EARLIER, *PAIR]
    ),
    Case(
        "messages sharegpt",
        {"conversations": [{"from": "human", "value": "What is 2 + 3?"}, {"from": "gpt", "value": "It is 5."}]},
        PAIR,
    ),
    Case("alpaca", {"instruction": "What is 2 + 3?", "input": "", "output": "It is 5."}, PAIR),
    Case("alpaca without_input", {"instruction": "What is 2 + 3?", "output": "It is 5."}, PAIR),
    Case("alpaca input", {"instruction": "How many apples?", "input": "Ann has 2.", "output": "2"}, WITH_CONTEXT),
    Case("alpaca only_input", {"instruction": "", "input": "What is 2 + 3?", "output": "It is 5."}, PAIR),
    Case(
        "alpaca history",
        {
            "instruction": "What is 2 + 3?",
            "input": None,
            "output": "It is 5.",
            "system": "Be brief.",
            "history": HISTORY,
        },
        [system("Be brief."), *EARLIER, *PAIR],
    ),
    Case(
        "alpaca history_as_json",
        {"instruction": "What is 2 + 3?", "output": "It is 5.", "history": json.dumps(HISTORY)},
        [*EARLIER, *PAIR],
    ),
    Case("alpaca response", {"instruction": "What is 2 + 3?", "response": "It is 5."}, PAIR),
    Case(
        "alpaca dolly",
        {"instruction": "How many apples?", "context": "Ann has 2.", "response": "2", "category": "qa"},
        WITH_CONTEXT,
    ),
    Case("query_response", {"query": "What is 2 + 3?", "response": "It is 5."}, PAIR),
    Case(
        "query_response history",
        {"query": "What is 2 + 3?", "response": "It is 5.", "system": "Be brief.", "history": EARLIER},
        [system("Be brief."), *EARLIER, *PAIR],
    ),
    Case("question_answer", {"question": "What is 2 + 3?", "answer": "It is 5."}, PAIR),
    Case(
        "question_answer number",
        {"question": "How many apples?", "context": "Ann has 2.", "answer": 2},
        WITH_CONTEXT,
    ),
    Case(
        "question_answer openorca",
        {"id": "a", "system_prompt": "Be brief.", "question": "What is 2 + 3?", "response": "It is 5."},
        [system("Be brief."), *PAIR],
    ),
    Case("prompt_response", {"prompt": "What is 2 + 3?", "response": "It is 5."}, PAIR),
    Case("prompt_response list", {"prompt": [*EARLIER, PAIR[0]], "response": "It is 5."}, [*EARLIER, *PAIR], (1,)),
    Case("prompt_completion", {"prompt": PAIR[:1], "completion": PAIR[1:]}, PAIR),
    Case("prompt_completion turns", {"prompt": [*EARLIER, PAIR[0]], "completion": PAIR[1:]}, [*EARLIER, *PAIR], (1,)),
    Case("prompt_completion texts", {"prompt": "What is 2 + 3?", "completion": "It is 5."}, PAIR, (), CHAT),
    Case("input_output", {"input": "What is 2 + 3?", "output": "It is 5."}, PAIR, (), CHAT),
    Case(
        "input_output named",
        {"q": "What is 2 + 3?", "a": "It is 5."},
        PAIR,
        (),
        {"chat": True, "input_field_name": "q", "output_field_name": "a"},
    ),
    Case(
        "prompt_completion chosen",
        {"prompt": [user("What is 2 + 3?")], "chosen": [answer("It is 5.")], "rejected": [answer("6")]},
        PAIR,
        (),
        {"output_field_name": "chosen"},
    ),
    Case(
        "alpaca chosen",
        {"instruction": "What is 2 + 3?", "chosen": "It is 5.", "rejected": "6"},
        PAIR,
        (),
        {"output_field_name": "chosen"},
    ),
    Case(
        "query_response rejected",
        {"query": "What is 2 + 3?", "response": "It is 5.", "rejected_response": "6", "history": HISTORY},
        [*EARLIER, *PAIR],
        (),
        {"output_field_name": "response"},
    ),
    Case(
        "prompt_completion sharegpt_chosen",
        {
            "conversations": [{"from": "human", "value": "What is 2 + 3?"}],
            "chosen": {"from": "gpt", "value": "It is 5."},
            "rejected": {"from": "gpt", "value": "6"},
        },
        PAIR,
        (),
        {"output_field_name": "chosen"},
    ),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(sample_path(MODEL))


def expected(tokenizer: Any, case: Case) -> Row:
    """The ids of the messages; an answer is what follows its generation prompt, to the stop token."""

    def ids(messages: Messages, **options: Any) -> list[int]:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    whole = ids(case.messages)
    labels = [-100] * len(whole)
    stop = tokenizer.convert_tokens_to_ids(STOP)
    for index, message in enumerate(case.messages):
        if message["role"] == "assistant" and index not in case.untrained:
            start = len(ids(case.messages[:index], add_generation_prompt=True))
            end = whole.index(stop, start) + 1
            labels[start:end] = whole[start:end]
    return {"input_ids": whole, "labels": labels}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_without_a_data_config(case: Case, tmp_path: Path, tokenizer: Any) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [case.row, case.row])
    preprocess(tmp_path / "out", training_data_path=(str(file),), model_name_or_path=MODEL, **case.options)
    assert written(tmp_path / "out") == [expected(tokenizer, case)] * 2


@pytest.mark.parametrize("is_named", [False, True], ids=["recognized", "named"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_with_a_data_config(case: Case, is_named: bool, tmp_path: Path, tokenizer: Any) -> None:
    arguments: dict[str, Any] = {"format": case.name.split()[0]} if is_named else {}
    if "input_field_name" in case.options:
        arguments["columns"] = {"input": "q", "output": "a"}
    elif "output_field_name" in case.options:
        arguments["answer_column"] = case.options["output_field_name"]
    handlers = [
        handler("convert_to_messages", **arguments),
        handler("tokenize_and_apply_chat_template_with_masking", conversation_column="messages"),
    ]
    file = write_jsonl(tmp_path / "rows.jsonl", [case.row])
    preprocess(tmp_path / "out", dataset(file, data_handlers=handlers), model_name_or_path=MODEL)
    assert written(tmp_path / "out") == [expected(tokenizer, case)]


def test_mixed_rows_work_row_by_row_also_in_several_files(tmp_path: Path, tokenizer: Any) -> None:
    mixed = [case for case in CASES if not case.options]
    for number, case in enumerate(mixed[:6]):
        write_jsonl(tmp_path / "data" / f"{number}.jsonl", [case.row])
    write_jsonl(tmp_path / "data" / "6.jsonl", [case.row for case in mixed[6:]])
    preprocess(tmp_path / "out", training_data_path=(str(tmp_path / "data"),), model_name_or_path=MODEL)
    assert written(tmp_path / "out") == [expected(tokenizer, case) for case in mixed]


def test_columns_of_other_formats_may_be_null(tmp_path: Path, tokenizer: Any) -> None:
    by_name = {case.name: case for case in CASES}
    cases = [by_name[name] for name in ("messages", "alpaca", "alpaca input", "question_answer")]
    names = dict.fromkeys(name for case in cases for name in case.row)
    columns = {name: [case.row.get(name) for case in cases] for name in names}
    pq.write_table(pa.table({**columns, "history": pa.nulls(len(cases))}), tmp_path / "rows.parquet")
    preprocess(tmp_path / "out", training_data_path=(str(tmp_path / "rows.parquet"),), model_name_or_path=MODEL)
    assert written(tmp_path / "out") == [expected(tokenizer, case) for case in cases]


def test_text_is_text_if_all_other_columns_are_null(tmp_path: Path, tokenizer: Any) -> None:
    table = pa.table({"messages": pa.nulls(1), "instruction": pa.nulls(1), "output": pa.nulls(1), "text": ["hi"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    preprocess(
        tmp_path / "out",
        training_data_path=(str(tmp_path / "rows.parquet"),),
        model_name_or_path=MODEL,
        train_on="all",
    )
    ids = tokenizer("hi" + STOP)["input_ids"]
    assert written(tmp_path / "out") == [{"input_ids": ids, "labels": ids}]


# --- Pairs --------------------------------------------------------------------------------------------

INTRODUCTION = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request."

PAIRS: list[tuple[str, Row, str, str, bool]] = [
    ("input_output", {"input": "2 + 3?", "output": "5"}, "2 + 3?", " 5", True),
    ("prompt_completion", {"prompt": "The sky is", "completion": " blue."}, "The sky is", " blue.", True),
    ("prompt_completion_no_space", {"prompt": "ab", "completion": "cd"}, "ab", "cd", True),
    ("prompt_completion_with_eos", {"prompt": "ab", "completion": " cd" + STOP}, "ab", " cd", True),
    ("prompt_completion_empty_prompt", {"prompt": "", "completion": "cd"}, "", "cd", True),
    (
        "alpaca",
        {"instruction": "Add.", "input": "2, 3", "output": "5"},
        f"{INTRODUCTION}, paired with an input that provides further context. {REQUEST}\n\n### Instruction:\nAdd.\n\n"
        "### Input:\n2, 3\n\n### Response:\n",
        "5",
        False,
    ),
    (
        "alpaca_without_input",
        {"instruction": "Add 2 and 3.", "input": "", "output": "5"},
        f"{INTRODUCTION}. {REQUEST}\n\n### Instruction:\nAdd 2 and 3.\n\n### Response:\n",
        "5",
        False,
    ),
    ("question_answer", {"question": "2 + 3?", "answer": 5}, "2 + 3?", " 5", False),
    (
        "query_response",
        {"query": "And 4?", "response": "9", "system": "Be brief.", "history": [["2 + 3?", "5"]]},
        "Be brief.\n2 + 3?\n5\nAnd 4?",
        " 9",
        False,
    ),
]


@pytest.mark.parametrize(
    ("row", "source", "target", "with_template"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS]
)
def test_pairs_are_texts(
    row: Row, source: str, target: str, with_template: bool, tmp_path: Path, tokenizer: Any
) -> None:
    """With a chat template only the formats that are pairs; without one all questions and answers."""
    bare = tmp_path / "bare"
    shutil.copytree(sample_path(MODEL), bare, ignore=shutil.ignore_patterns("*.jinja"))
    ids = tokenizer(source + target + STOP)["input_ids"]
    untrained = len(tokenizer(source)["input_ids"])
    file = write_jsonl(tmp_path / "rows.jsonl", [row])
    for number, model in enumerate([str(bare), *([MODEL] if with_template else [])]):
        out = tmp_path / f"out{number}"
        preprocess(out, training_data_path=(str(file),), model_name_or_path=model)
        assert written(out) == [{"input_ids": ids, "labels": [-100] * untrained + ids[untrained:]}]


def test_chat_false_makes_texts_of_questions_and_answers(tmp_path: Path, tokenizer: Any) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"question": "2 + 3?", "answer": "5"}])
    preprocess(tmp_path / "out", training_data_path=(str(file),), model_name_or_path=MODEL, chat=False)
    [row] = written(tmp_path / "out")
    assert row["input_ids"] == tokenizer("2 + 3? 5" + STOP)["input_ids"]


# --- Rows that cannot be used -------------------------------------------------------------------------

BAD: list[tuple[Row, str]] = [
    ({"instruction": "a", "output": None}, "column 'output' is null where an answer should be"),
    ({"instruction": "a", "output": ""}, "column 'output' is empty where an answer should be"),
    ({"instruction": "a", "output": " "}, "column 'output' is empty where an answer should be"),
    ({"instruction": "a"}, "column 'output' not found; columns here: instruction"),
    ({"instruction": "a", "output": True}, "column 'output' must be text, not bool"),
    ({"instruction": "a", "output": ["b"]}, "column 'output' must be text or a list of messages"),
    ({"instruction": "", "input": None, "output": "b"}, "column 'instruction' is null or empty where the question of "
     "an answer should be"),
    ({"instruction": "a", "output": "b", "response": "c"}, "'output' and 'response' are answers; name the one to train "
     "with output_field_name (in a data config: answer_column)"),
    ({"instruction": "a", "output": "b", "history": [["c"]]}, "turn 0 of column 'history' must be a pair of a "
     "question and an answer"),
    ({"instruction": "a", "output": "b", "history": "c"}, "column 'history' is not JSON: Expecting value"),
    ({"instruction": "a", "output": "b", "history": 7}, "column 'history' must be a list of pairs, not int"),
]  # fmt: skip


def test_bad_rows_are_quarantined_with_a_reason(tmp_path: Path) -> None:
    good = {"instruction": "a", "output": "b"}
    file = write_jsonl(tmp_path / "rows.jsonl", [good, *(row for row, _ in BAD)])
    preprocess(tmp_path / "out", training_data_path=(str(file),), model_name_or_path=MODEL, max_bad_rows=len(BAD))
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [reason for _, reason in BAD]
    assert len(written(tmp_path / "out")) == 1


def test_rows_with_empty_answers_are_dropped_if_the_config_says_so(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": text} for text in ("b", "", None, " ")]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    options: dict[str, Any] = {"training_data_path": (str(file),), "model_name_or_path": MODEL}
    manifest = preprocess(tmp_path / "out", drop_empty_answers=True, **options)
    assert [source.dropped for source in manifest.sources] == [{"empty answer": 3}]


def test_a_question_outside_of_the_format_is_not_lost(tmp_path: Path) -> None:
    rows = [{"messages": PAIR}, {"question": "a", "answer": "b"}, {"messages": PAIR, "instruction": "Add."}]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    options = {"training_data_path": (str(file),), "model_name_or_path": MODEL, "max_bad_rows": 1}
    with pytest.raises(DataError, match="uses the column 'instruction' \\(1 of the first 3 rows filled\\)"):
        preprocess(tmp_path / "out", **options)
    preprocess(tmp_path / "out", **options, ignore_columns=("instruction",))
    [line] = (tmp_path / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["reason"] == (
        "column 'instruction' does not belong to the format messages; set `format`, or remove the column"
    )


# --- Preference rows ----------------------------------------------------------------------------------

HH = {"chosen": "\n\nHuman: hi\n\nAssistant: yo", "rejected": "\n\nHuman: hi\n\nAssistant: no"}

REFUSED: list[tuple[Row, dict[str, str]]] = [
    ({"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}, {"output_field_name": "chosen"}),
    ({"instruction": "2 + 3?", "chosen": "5", "rejected": "6"}, {"output_field_name": "chosen"}),
    ({"query": "2 + 3?", "response": "5", "rejected_response": "6"}, {"output_field_name": "response"}),
    ({"messages": PAIR, "rejected_response": "6"}, {"dataset_conversation_field": "messages"}),
    ({"chosen": PAIR, "rejected": PAIR}, {"dataset_conversation_field": "chosen"}),
    ({"prompt": "2 + 3?", "chosen": PAIR, "rejected": PAIR}, {"dataset_conversation_field": "chosen"}),
    (
        HH,
        {
            "dataset_text_field": "chosen",
            "response_template": "\n\nAssistant:",
            "instruction_template": "\n\nHuman:",
        },
    ),
]


@pytest.mark.parametrize(("row", "remedy"), REFUSED)
def test_preference_rows_are_refused_with_a_way_that_works(row: Row, remedy: dict[str, str], tmp_path: Path) -> None:
    words = ["--training_data_path", str(write_jsonl(tmp_path / "rows.jsonl", [row])), "--num_workers", "1"]
    words += ["--model_name_or_path", MODEL, "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ConfigError) as refusal:
        plan(load_config(PreprocessConfig, words))
    [message] = refusal.value.problems
    assert "rows have a preferred and a rejected answer; to train the preferred one, set" in message
    for key, value in remedy.items():
        assert f"{key}: {value if value.isalpha() else json.dumps(value)}" in message
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(remedy), encoding="utf-8")
    run(plan(load_config(PreprocessConfig, [*words, "--config", str(tmp_path / "run.yaml")])), SilentProgress())
    [made] = written(tmp_path / "out")
    assert any(label != -100 for label in made["labels"])


def test_an_answer_column_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}])
    with pytest.raises(ConfigError, match="output_field_name: column 'chose' not found; columns there: prompt, chosen"):
        preprocess(
            tmp_path / "out", training_data_path=(str(file),), model_name_or_path=MODEL, output_field_name="chose"
        )
