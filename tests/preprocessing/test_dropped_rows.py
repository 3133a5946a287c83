"""dropped.jsonl: the rows that handlers and limits removed, each with its place and reason, and their limit."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reliability.material import sftkit
from sftkit.cli.console.reports.show_preprocess import print_result
from sftkit.config.commands import PreprocessConfig, TrainConfig
from sftkit.config.validation import validate_config
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.preprocessing.build import find_finished
from sftkit.preprocessing.planning import plan
from sftkit.preprocessing.training_shards import find_or_build_shards
from sftkit.shards.manifest import Manifest
from support import dataset, handler, preprocess, write_jsonl, written
from template_zoo.conversations import assistant, user

CHAT = handler("tokenize_and_apply_chat_template_with_masking")


def dropped(output: Path) -> list[dict[str, Any]]:
    path = output / "dropped.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def places(output: Path) -> list[tuple[str, int, str]]:
    return [(Path(entry["path"]).name, entry["row"], entry["reason"]) for entry in dropped(output)]


def tokens(length: int, trained: int) -> Row:
    """A row of which the last tokens are trained."""
    ids = list(range(1, length + 1))
    return {"input_ids": ids, "labels": [-100] * (length - trained) + ids[length - trained :]}


def first_line(manifest: Manifest) -> str:
    screen = io.StringIO()
    print_result(manifest, "out", Console(file=screen, width=300))
    return next(line for line in screen.getvalue().splitlines() if "rows read" in line)


# --- What is listed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_every_rule_that_drops_a_row_says_which_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "dropping_functions.py").write_text(
        "def keep(row):\n    return None if row['messages'][0]['content'] == 'DROP' else row\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.delitem(sys.modules, "dropping_functions", raising=False)
    monkeypatch.chdir(tmp_path)
    rows: list[Any] = [
        [user("hi"), assistant("yes")],
        [user("hi"), assistant("  ")],
        [user("<|im_end|>"), assistant("yes")],
        [user("DROP"), assistant("yes")],
        [user("hi"), {**assistant("yes"), "train": False}],
        [user("long " * 60), assistant("yes")],
        [user("hi"), assistant("yes " * 600)],
        [user("hi"), assistant("yes")],
        5,
        [user("x") for _ in range(31)],
    ]
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": number, "messages": each} for number, each in enumerate(rows)])
    many = write_jsonl(tmp_path / "more.jsonl", [{"id": 10, "messages": rows[4]}, {"id": 11, "messages": rows[0]}])
    handlers = [
        handler("skip_large_text", column_name="messages", max_length=30),
        handler("dropping_functions:keep"),
        CHAT,
    ]
    options: dict[str, Any] = {
        "model_name_or_path": "sample:model",
        "drop_empty_answers": True,
        "special_tokens_in_content": "drop",
        "max_seq_length": 40,
        "max_bad_rows": 1,
        "unit_size": 200,
    }
    data = dataset(source, many, data_handlers=handlers, retain_columns=("id",))
    manifest = preprocess(tmp_path / "out", data, num_workers=workers, **options)
    assert places(tmp_path / "out") == [
        ("in.jsonl", 2, "empty answer"),
        ("in.jsonl", 3, "a special token in its content"),
        ("in.jsonl", 4, "dropping_functions:keep returned None"),
        ("in.jsonl", 5, "no trained token"),
        ("in.jsonl", 6, "cut at 40 tokens before the first answer"),
        ("in.jsonl", 10, "skip_large_text: messages has 30 or more"),
        ("more.jsonl", 1, "no trained token"),
    ]
    content = [json.loads(entry["content"]) for entry in dropped(tmp_path / "out")[:3]]
    assert content == [{"id": number, "messages": rows[number]} for number in (1, 2, 3)]
    assert [row["id"] for row in written(tmp_path / "out")] == [0, 6, 7, 11]
    assert manifest.files.keys() == {"README.md", "quarantine.jsonl", "dropped.jsonl"}
    assert first_line(manifest) == (
        "12 rows read, 7 dropped (dropped.jsonl), 1 quarantined (quarantine.jsonl), 4 written"
    )
    by_option = preprocess(tmp_path / "drop", data, **{**options, "overflow": "drop"})
    assert [row for row in places(tmp_path / "drop") if "max_seq_length" in row[2]] == [
        ("in.jsonl", 6, "longer than max_seq_length=40"),
        ("in.jsonl", 7, "longer than max_seq_length=40"),
    ]
    assert sum(by_option.dropped.values()) == len(places(tmp_path / "drop")) == 8


def test_rows_without_a_response_are_listed(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "Q: a A: b"}, {"text": "nothing"}])
    preprocess(
        tmp_path / "out",
        dataset(source),
        model_name_or_path="sample:model",
        response_template="A:",
        dataset_text_field="text",
    )
    assert places(tmp_path / "out") == [("in.jsonl", 2, "no response found by response_template")]


@pytest.mark.parametrize("overflow", ["truncate", "drop"])
def test_rows_that_fit_no_pack_are_listed_with_their_source(tmp_path: Path, overflow: str) -> None:
    rows = [tokens(5, 2), tokens(30, 2), tokens(4, 1), tokens(40, 39), tokens(6, 0), tokens(9, 1)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    options: dict[str, Any] = {"packing": "bfd", "pack_length": 8, "overflow": overflow, "unit_size": 200}
    manifest = preprocess(tmp_path / "out", dataset(source), **options)
    reason = "longer than pack_length=8" if overflow == "drop" else "cut at 8 tokens before the first answer"
    long = [2, 4, 6] if overflow == "drop" else [2, 6]
    expected = {**dict.fromkeys(long, reason), 5: "no trained token"}
    assert places(tmp_path / "out") == [("in.jsonl", row, expected[row]) for row in sorted(expected)]
    assert [json.loads(entry["content"]) for entry in dropped(tmp_path / "out") if entry["row"] in long] == [
        rows[row - 1] for row in long
    ]
    assert sum(manifest.dropped.values()) == len(expected)


def test_without_dropped_rows_there_is_no_list(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [tokens(5, 2)])
    preprocess(tmp_path / "out", dataset(source))
    assert not (tmp_path / "out" / "dropped.jsonl").exists()


def test_a_long_row_is_listed_with_its_beginning(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "x" * 5000}, {"text": "\x1b[2J", "id": "y" * 50}])
    handlers = [handler("skip_large_text", column_name="text", max_length=10)]
    preprocess(
        tmp_path / "out",
        dataset(source, data_handlers=handlers),
        model_name_or_path="sample:model",
        train_on="all",
    )
    [entry] = dropped(tmp_path / "out")
    assert entry["content"] == '{"text": "' + "x" * 1990


# --- keep_dropped -----------------------------------------------------------------------------------------


def test_keep_dropped_is_how_many_rows_are_listed(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [tokens(3, 0) for _ in range(30)] + [tokens(3, 1)])
    options: dict[str, Any] = {"unit_size": 300, "keep_dropped": 4}
    first = preprocess(tmp_path / "out", dataset(source), **options)
    assert [row for _, row, _ in places(tmp_path / "out")] == [1, 2, 3, 4]
    assert first_line(first) == "31 rows read, 30 dropped (the first 4 in dropped.jsonl), 1 written"
    arguments = ("--training_data_path", source, "--output_dir", tmp_path / "out", "--unit_size", 300)
    assert "nothing to do" in sftkit("preprocess", *arguments, "--keep_dropped", 4).out
    sftkit("preprocess", *arguments, "--keep_dropped", 100)
    assert [row for _, row, _ in places(tmp_path / "out")] == list(range(1, 31))
    assert "nothing to do" in sftkit("preprocess", *arguments, "--keep_dropped", 30).out
    none = sftkit("preprocess", *arguments, "--keep_dropped", 0).out
    assert "31 rows read, 30 dropped, 1 written" in none
    assert not (tmp_path / "out" / "dropped.jsonl").exists()


def test_data_sets_made_before_there_was_a_list_are_finished(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [tokens(3, 0), tokens(3, 1)])
    preprocess(tmp_path / "out", dataset(source))
    path = tmp_path / "out" / "manifest.json"
    record = json.loads(path.read_text())
    del record["config"]["keep_dropped"], record["config"]["max_dropped_rows"], record["files"]["dropped.jsonl"]
    path.write_text(json.dumps(record))
    (tmp_path / "out" / "dropped.jsonl").unlink()
    planned = plan(PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(dataset(source),), num_workers=1))
    assert find_finished(planned) is not None


# --- max_dropped_rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "head"),
    [
        (0, "3 rows dropped, more than max_dropped_rows=0:"),
        (2, "3 rows dropped, more than max_dropped_rows=2:"),
        (0.29, "3 rows dropped of 10 read, more than max_dropped_rows=0.29 allows (2):"),
    ],
)
def test_more_dropped_rows_than_max_dropped_rows_fail_the_run(tmp_path: Path, limit: float, head: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*[tokens(3, 0)] * 3, *[tokens(3, 1)] * 7])
    for place in (tmp_path / "out" / "dropped.jsonl", tmp_path / "out" / ".staging" / "dropped.jsonl"):
        with pytest.raises(DataError) as caught:
            preprocess(tmp_path / "out", dataset(source), max_dropped_rows=limit, keep_dropped=0, overwrite=True)
        assert str(caught.value).splitlines() == [
            head,
            *(f"  {source}:{row}: no trained token" for row in (1, 2, 3)),
            f"All of them are in {place}; change the handlers and limits that drop them, or set max_dropped_rows=3 "
            "to allow it.",
        ]
        assert len(place.read_text().splitlines()) == 3
        if place.parent.name == "out":
            preprocess(tmp_path / "out", dataset(write_jsonl(tmp_path / "other.jsonl", [tokens(9, 2)])))
    for allowed in (3, 0.3, 4):
        preprocess(tmp_path / f"out{allowed}", dataset(source), max_dropped_rows=allowed)


def test_rows_that_fit_no_pack_count_as_dropped(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [tokens(30, 2), tokens(4, 1)])
    with pytest.raises(DataError, match=r"(?s)^1 row dropped, more than max_dropped_rows=0:\n.*in\.jsonl:1: longer "):
        preprocess(tmp_path / "out", dataset(source), packing="bfd", pack_length=8, overflow="drop", max_dropped_rows=0)


@pytest.mark.parametrize("limit", [3, 0.2])
def test_a_run_stops_once_it_must_drop_too_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr("sftkit.preprocessing.stage_units.EXCESS_ROWS", 0)
    source = write_jsonl(tmp_path / "in.jsonl", [{**tokens(4, 0), "id": number} for number in range(200)])
    with pytest.raises(DataError, match=r"(?s)^\d+ or more rows dropped.*before all rows were read\. Change the"):
        preprocess(
            tmp_path / "out",
            dataset(source),
            max_dropped_rows=limit,
            unit_size=600,
            staging_dir=str(tmp_path / "units"),
        )
    units = len([path for path in (tmp_path / "units").glob("*.account.arrow") if ".dropped" not in path.name])
    assert 0 < units < 25


def test_a_finished_data_set_with_too_many_dropped_rows_is_refused_and_kept(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [tokens(3, 0), tokens(3, 1)])
    manifest = preprocess(tmp_path / "out", dataset(source))
    planned = plan(PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(dataset(source),), num_workers=1))
    assert find_finished(planned) == manifest
    with pytest.raises(
        DataError, match=r"holds this data set, but 1 rows of it were dropped, more than max_dropped_rows=0; change"
    ):
        find_finished(replace(planned, config=replace(planned.config, max_dropped_rows=0)))


@pytest.mark.parametrize(("value", "problem"), [(1.5, "a fraction below 1, not 1.5"), (-1, "must be 0 or more")])
def test_limits_that_are_none_are_refused(value: float, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"max_dropped_rows .*{problem}"):
        validate_config(PreprocessConfig(output_dir="o", training_data_path=("nowhere",), max_dropped_rows=value))


# --- Other commands ---------------------------------------------------------------------------------------


def test_verify_finds_a_list_that_changed_or_is_gone(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [tokens(3, 0), tokens(3, 1)])
    preprocess(tmp_path / "out", dataset(source))
    verify = ("inspect-shards", tmp_path / "out", "--verify", "true")
    assert sftkit(*verify).code == 0
    path = tmp_path / "out" / "dropped.jsonl"
    path.write_text(path.read_text().replace("no trained", "a trained"))
    assert "dropped.jsonl: its content changed" in sftkit(*verify).out
    path.unlink()
    found = sftkit(*verify)
    assert (found.code, "dropped.jsonl: is missing" in found.out) == (1, True)


def test_a_list_is_no_source_and_a_file_of_that_name_is_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data" / "in.jsonl", [tokens(3, 0), tokens(3, 1)])
    preprocess(tmp_path / "data" / "out", dataset(tmp_path / "data"))
    again = preprocess(tmp_path / "again", dataset(tmp_path / "data"))
    assert again.rows_read == 2
    write_jsonl(tmp_path / "own" / "dropped.jsonl", [tokens(3, 1)] * 5)
    assert preprocess(tmp_path / "third", dataset(tmp_path / "own")).rows_read == 5


def test_training_on_raw_data_lists_what_it_drops(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"messages": [user("x"), {**assistant("y"), "train": flag}]} for flag in (False, True)]
    )
    config = TrainConfig(
        output_dir=str(tmp_path / "run"),
        cache_dir=str(tmp_path / "cache"),
        training_data_path=(str(source),),
        model_name_or_path="sample:model",
        num_workers=1,
    )
    find_or_build_shards(config, SilentProgress())
    [folder] = (tmp_path / "cache").iterdir()
    assert places(folder) == [("in.jsonl", 1, "no trained token")]
