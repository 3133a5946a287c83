"""`dataprocessor.decontaminate` in whole runs: rows with evaluation questions are dropped, listed and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.config.commands import PreprocessConfig
from sftkit.config.loading import load_config
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError, SourceError
from sftkit.preprocessing.build import run
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest
from support import shard_bytes, write_jsonl

PLANTED = (
    "If a train leaves at nine and travels for three hours and ten minutes, when does it arrive at its destination?"
)
SHORT = "Who painted the ceiling of the chapel?"


def conversation(question: str, answer: str = "An answer.") -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


ROWS = [
    conversation("Say hello to the class, and tell them what is on the menu of the canteen for the whole week."),
    conversation(PLANTED.upper()),
    conversation("What is new?", f"A riddle: {PLANTED}"),
    conversation(f"Tell me, {SHORT.lower()}"),
    conversation("Who painted this?"),
]


def build(folder: Path, decontaminate: Any, rows: list[Row] | None = None, **options: Any) -> Manifest:
    source = write_jsonl(folder / "in.jsonl", rows or ROWS)
    config = {
        "training_data_path": str(source),
        "model_name_or_path": "sample:model",
        "output_dir": str(folder / "out"),
        "dataprocessor": {"decontaminate": decontaminate},
        **options,
    }
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_config(PreprocessConfig, ["--config", str(folder / "config.json")])
    return run(plan(loaded), SilentProgress())


def dropped(folder: Path) -> list[tuple[int, str]]:
    lines = (folder / "out" / "dropped.jsonl").read_text().splitlines()
    return [(row["row"], row["reason"]) for row in map(json.loads, lines)]


def evaluation_set(folder: Path, kind: str) -> Path:
    path = folder / f"test.{kind}"
    questions = [PLANTED, SHORT]
    if kind == "jsonl":
        write_jsonl(path, [{"question": each, "answer": "Say hello to the class."} for each in questions])
    elif kind == "parquet":
        pq.write_table(pa.table({"problem": questions}), path)
    elif kind == "json":
        path.write_text(json.dumps([conversation(each, "Who painted this?") for each in questions]))
    else:
        path.write_text("\n".join(["", *questions]))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "json", "txt"])
def test_rows_with_evaluation_questions_are_dropped_and_listed(tmp_path: Path, kind: str) -> None:
    path = evaluation_set(tmp_path, kind)
    manifest = build(tmp_path, [str(path)])
    assert manifest.rows_written == 2
    assert manifest.dropped == {f"has words of the evaluation set {path}": 3}
    rows, reasons = zip(*dropped(tmp_path), strict=True)
    assert rows == (2, 3, 4)
    first = 2 if kind == "txt" else 1
    assert reasons[0].endswith(f"{path} (row {first}): if a train leaves at nine and travels for three hours and ten")
    assert reasons[2].endswith(f"(row {first + 1}): who painted the ceiling of the chapel")


def test_the_section_has_settings(tmp_path: Path) -> None:
    path = str(
        write_jsonl(tmp_path / "test.jsonl", [{"id": 1, "task": f"{PLANTED} {SHORT}", "question": "Who painted this?"}])
    )
    section = {"paths": path, "columns": ["task"], "ngrams": [4], "min_share": 0.5}
    assert build(tmp_path, section).rows_written == 2


def test_the_result_is_the_same_with_workers_and_without_the_option_it_is_as_before(tmp_path: Path) -> None:
    rows = [conversation(PLANTED if number % 7 == 0 else f"Question {number}?") for number in range(400)]
    path = str(evaluation_set(tmp_path, "jsonl"))
    made = []
    for name, options in (("a", {}), ("b", {"num_workers": 2, "unit_size": 4096})):
        (tmp_path / name).mkdir()
        manifest = build(tmp_path / name, [path], rows, **options)
        assert (manifest.rows_read, manifest.rows_written) == (400, 342)
        made.append(shard_bytes(tmp_path / name / "out"))
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("section", "error", "message"),
    [
        ({"paths": []}, ConfigError, "dataprocessor.decontaminate.paths names no evaluation set"),
        ({"ngrams": [8]}, ConfigError, "missing key 'dataprocessor.decontaminate.paths'"),
        ({"paths": ["PATH"], "ngrams": [0]}, ConfigError, "dataprocessor.decontaminate.ngrams must be lengths of runs"),
        ({"paths": ["PATH"], "ngrams": ["many"]}, ConfigError, "dataprocessor.decontaminate.ngrams"),
        ({"paths": ["PATH"], "min_share": 2}, ConfigError, "dataprocessor.decontaminate.min_share"),
        ({"path": "PATH"}, ConfigError, "unknown key 'dataprocessor.decontaminate.path' (did you mean 'paths'?)"),
        (["PATH/none.jsonl"], SourceError, "none.jsonl"),
        (["PATH/none.txt"], SourceError, "none.txt: no such file or directory"),
        (["PATH/empty.txt"], DataError, "empty.txt: holds no question of 3 words"),
        (["PATH/broken.jsonl"], DataError, "broken.jsonl:2: "),
        (["PATH/odd.jsonl"], DataError, "odd.jsonl:1: no column 'question' or"),
        (
            {"paths": ["PATH/odd.jsonl"], "columns": ["ask"]},
            DataError,
            "odd.jsonl:1: no column 'ask'; columns there: id",
        ),
    ],
)
def test_what_is_wrong_with_the_section_is_said_before_anything_is_written(
    tmp_path: Path, section: Any, error: type[Exception], message: str
) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "broken.jsonl").write_text('{"question": "one"}\n{"question": \n')
    write_jsonl(tmp_path / "odd.jsonl", [{"id": "x"}])
    given = json.loads(json.dumps(section).replace("PATH", str(tmp_path)))
    with pytest.raises(error) as raised:
        build(tmp_path, given)
    assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_rows_of_tokens_cannot_be_compared(tmp_path: Path) -> None:
    path = str(evaluation_set(tmp_path, "jsonl"))
    with pytest.raises(DataError, match="its rows have no text to compare with evaluation questions"):
        build(tmp_path, [path], [{"input_ids": [1, 2], "labels": [1, 2]}])


@pytest.mark.parametrize("pattern", ["", "/*.jsonl", "/*.txt"])
def test_of_a_directory_all_files_but_those_for_training_are_read(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "train_and_test"
    folder.mkdir()
    if pattern == "/*.txt":
        for name, text in (("train", "Who painted this?"), ("test", PLANTED), ("more", SHORT)):
            (folder / f"{name}.txt").write_text(text, encoding="utf-16")
    else:
        for name, text in (("train", "Who painted this?"), ("test", PLANTED), ("more", SHORT)):
            write_jsonl(folder / f"{name}.jsonl", [{"question": text}])
    assert build(tmp_path, [f"{folder}{pattern}"]).rows_written == 2
    assert [row for row, _ in dropped(tmp_path)] == [2, 3, 4]


def test_files_for_training_are_read_if_there_are_no_others(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_jsonl(tmp_path / "set" / "train.jsonl", [{"question": PLANTED}])
    assert build(tmp_path, [str(tmp_path / "set")]).rows_written == 3


def test_of_a_folder_in_hub_layout_the_test_split_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [{"question": "Who painted this?"}])
    write_jsonl(folder / "b.jsonl", [{"question": PLANTED}])
    files = "".join(
        f"  - split: {name}\n    path: {file}\n" for name, file in (("train", "a.jsonl"), ("test", "b.jsonl"))
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    assert build(tmp_path, [str(folder)]).rows_written == 3


def test_a_column_that_many_rows_have_in_common_is_no_question(tmp_path: Path) -> None:
    instruction = "Decide whether the review is positive or negative, and write one word as your answer to it."
    reviews = [
        {"instruction": instruction, "input": f"The menu had {number} soups and too much salt"} for number in range(11)
    ]
    path = str(write_jsonl(tmp_path / "test.jsonl", [*reviews, {"instruction": PLANTED, "input": None}]))
    rows = [conversation(f"{instruction} It was fine."), conversation(reviews[4]["input"]), conversation(PLANTED)]
    assert build(tmp_path, [path], rows).rows_written == 1
    same = write_jsonl(tmp_path / "same.jsonl", [{"id": number, **reviews[0]} for number in range(20)])
    (tmp_path / "b").mkdir()
    assert build(tmp_path / "b", [str(same)], rows).rows_written == 2  # one row that is there 20 times
    odd = write_jsonl(tmp_path / "odd.jsonl", [{"instruction": instruction, "input": f"{n}"} for n in range(12)])
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"odd\.jsonl: holds no question of 3 words or more that"):
        build(tmp_path / "c", [str(odd)], rows)


def test_conversations_as_json_text_are_compared_without_their_escapes(tmp_path: Path) -> None:
    question = "首都是哪里？请用一个词回答这个问题"
    rows = [{"messages": json.dumps(conversation(question)["messages"])}, conversation("Who is there?")]
    handlers = [{"name": name} for name in ("convert_to_messages", "tokenize_and_apply_chat_template_with_masking")]
    datasets = [{"name": "x", "data_paths": [str(tmp_path / "in.jsonl")], "data_handlers": handlers}]
    path = str(write_jsonl(tmp_path / "test.jsonl", rows[:1]))
    assert build(tmp_path, [path], rows, training_data_path=None, datasets=datasets).rows_written == 1
