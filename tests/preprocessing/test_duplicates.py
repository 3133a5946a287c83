"""`deduplicate`: which rows are removed, what is listed and counted, and the same result with any workers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from reliability.material import sftkit
from sftkit.config.schema.deduplicate_options import DeduplicateConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Row
from sftkit.errors import ConfigError
from sftkit.preprocessing.build import find_finished, run
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import Manifest
from support import dataset, handler, preprocess, shard_bytes, write_jsonl, written
from template_zoo.conversations import assistant, system, user

CHAT = handler("tokenize_and_apply_chat_template_with_masking")
PAIRS = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
MODEL = "sample:model"
LONG = "The quick brown fox jumps over the lazy dog while seven wise owls look on from an old oak tree in the park."


def chat(question: str, answer: str, **columns: Any) -> Row:
    return {"messages": [user(question), assistant(answer)], **columns}


def removed(output: Path) -> dict[tuple[str, int], str]:
    """The places of dropped rows, and the reasons without folders."""
    path = output / "dropped.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    folder = f"{output.parent}/"
    return {(Path(each["path"]).name, each["row"]): each["reason"].replace(folder, "") for each in entries}


def deduplicated(
    folder: Path, rows: list[Row], *handlers: Any, keep: tuple[str, ...] = ("id",), **keys: Any
) -> list[Any]:
    """The ids of the rows that are left."""
    rows = [{"id": index, **row} for index, row in enumerate(rows)]
    source = write_jsonl(folder / "rows.jsonl", rows)
    options = keys.pop("options", {})
    data = dataset(source, data_handlers=handlers or [CHAT], retain_columns=keep)
    out = folder / "out"
    preprocess(
        out,
        data,
        processor={"deduplicate": DeduplicateConfig(**keys)},
        model_name_or_path=MODEL,
        overwrite=True,
        **options,
    )
    return [row["id"] for row in written(out)]


# --- What is compared -------------------------------------------------------------------------------------------------

ROWS = [
    chat("one", "yes"),
    chat("two", "yes"),
    chat("one", "no"),
    chat("one", "yes"),
    chat("One", "Yes"),
    chat(" one", "yes\n"),
]


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ({}, [0, 1, 2, 4, 5]),
        ({"compare": "row"}, [0, 1, 2, 4, 5]),
        ({"compare": "trained"}, [0, 2, 4, 5]),
        ({"compare": "trained", "ignore_case": True}, [0, 2, 5]),
        ({"compare": "trained", "ignore_white_space": True}, [0, 2, 4]),
        ({"compare": "row", "ignore_case": True, "ignore_white_space": True}, [0, 1, 2]),
        ({"compare": "answers"}, [0, 2, 4, 5]),
        ({"compare": "prompts"}, [0, 1, 4, 5]),
        ({"compare": "both"}, [0, 1, 2, 4, 5]),
        ({"compare": "both", "ignore_case": True}, [0, 1, 2, 5]),
        ({"compare": "both", "ignore_case": True, "ignore_white_space": True}, [0, 1, 2]),
        ({"columns": ("messages",)}, [0, 1, 2, 4, 5]),
        ({"columns": ("messages",), "ignore_case": True, "ignore_white_space": True}, [0, 1, 2]),
        ({"columns": ("id",)}, [0, 1, 2, 3, 4, 5]),
    ],
    ids=str,
)
def test_what_is_compared(tmp_path: Path, keys: dict[str, Any], left: list[int]) -> None:
    assert deduplicated(tmp_path, ROWS, **keys) == left


def test_pairs_have_prompts_and_answers(tmp_path: Path) -> None:
    rows = [{"input": "a", "output": "x"}, {"input": "b", "output": "x"}, {"input": "a", "output": "y"}]
    assert deduplicated(tmp_path, rows, PAIRS, compare="answers") == [0, 2]
    assert deduplicated(tmp_path, rows, PAIRS, compare="prompts") == [0, 1]
    assert deduplicated(tmp_path, rows, PAIRS, compare="both") == [0, 1, 2]


def test_system_turns_and_tools_are_no_prompts_and_calls_are_answers(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "a"}}}
    other = {"type": "function", "function": {"name": "look", "arguments": {"at": "b"}}}
    rows = [
        {"messages": [system("Be brief."), user("hi"), assistant("hello")]},
        {"messages": [system("Be kind."), user("hi"), assistant("hello")]},
        {"messages": [user("hi"), assistant("", tool_calls=[call])]},
        {"messages": [user("hi"), assistant("", tool_calls=[other])]},
        {"messages": [user("hi"), assistant("", tool_calls=[call])]},
    ]
    assert deduplicated(tmp_path, rows, compare="both") == [0, 2, 3]


def test_rows_in_which_nothing_is_to_compare_are_kept(tmp_path: Path) -> None:
    rows = [chat("one", "yes", topic=None), chat("two", "no"), chat("three", "no", topic="")]
    rows += [chat("four", "no", topic="a"), chat("five", "no", topic="a")]
    assert deduplicated(tmp_path, rows, columns=("topic",)) == [0, 1, 2, 3]
    rows = [{"messages": [system("a"), assistant("b")]}, {"messages": [system("c"), assistant("d")]}]
    assert deduplicated(tmp_path, rows, compare="prompts") == [0, 1]


def test_columns_have_their_names_after_renaming_and_need_no_other_use(tmp_path: Path) -> None:
    rows = [
        chat("one", "yes", key={"b": [1], "a": 2}),
        chat("two", "no", key={"a": 2, "b": [1]}),
        chat("3", "x", key=7),
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = dataset(source, data_handlers=[CHAT], rename_columns={"key": "group"})
    processor = {"deduplicate": DeduplicateConfig(columns=("group",))}
    manifest = preprocess(tmp_path / "out", data, processor=processor, model_name_or_path=MODEL)
    assert removed(tmp_path / "out") == {("rows.jsonl", 2): "duplicate of rows.jsonl:1"}
    assert manifest.rows_written == 2


def test_rows_of_text(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a b"}, {"text": "A  b"}, {"text": "a b"}])
    for keys, count in (({}, 2), ({"ignore_case": True, "ignore_white_space": True}, 1), ({"method": "near"}, 1)):
        compare = {"compare": "row"} if keys.get("method") == "near" else {}
        processor = {"deduplicate": DeduplicateConfig(**keys, **compare)}
        manifest = preprocess(tmp_path / "out", dataset(source), processor=processor, overwrite=True)
        assert manifest.rows_written == count, keys


# --- Near duplicates --------------------------------------------------------------------------------------------------


def test_near_duplicates(tmp_path: Path) -> None:
    changed = LONG.replace("seven", "eight")
    far = " ".join(random.Random(1).sample(LONG.split(), len(LONG.split())))
    rows = [chat("one", LONG), chat("one", LONG.upper()), chat("one", changed), chat("one", far), chat("two", LONG)]
    assert deduplicated(tmp_path, rows, method="near", compare="answers", ngram=1) == [0]
    assert deduplicated(tmp_path, rows, method="near", compare="answers", ngram=5) == [0, 2, 3]
    assert deduplicated(tmp_path, rows, method="near", compare="answers", ngram=5, threshold=0.5) == [0, 3]
    assert deduplicated(tmp_path, rows, method="near", ngram=2) == [0, 3]
    assert deduplicated(tmp_path, rows, method="near", ngram=5, ignore_case=False) == [0, 1, 2, 3]
    assert deduplicated(tmp_path, rows, method="near", compare="trained") == [0, 2, 3]
    assert removed(tmp_path / "out")[("rows.jsonl", 5)] == "near duplicate of rows.jsonl:1"


# --- Which row is kept ------------------------------------------------------------------------------------------------


def three_sets(folder: Path, **keys: Any) -> tuple[Manifest, dict[tuple[str, int], str]]:
    names = ("web", "eval-a", "eval-b")
    sets = []
    for name in names:
        rows = [chat("shared", "yes"), chat(name, "yes"), chat(name, "yes")]
        source = write_jsonl(folder / f"{name}.jsonl", rows)
        sets.append(dataset(source, name=name, data_handlers=[CHAT]))
    processor = {"deduplicate": DeduplicateConfig(**keys)}
    return preprocess(folder / "out", *sets, processor=processor, model_name_or_path=MODEL), removed(folder / "out")


def test_the_first_row_of_all_data_sets_is_kept(tmp_path: Path) -> None:
    manifest, found = three_sets(tmp_path)
    assert found == {
        ("web.jsonl", 3): "duplicate of web.jsonl:2",
        ("eval-a.jsonl", 1): "duplicate of web.jsonl:1",
        ("eval-a.jsonl", 3): "duplicate of eval-a.jsonl:2",
        ("eval-b.jsonl", 1): "duplicate of web.jsonl:1",
        ("eval-b.jsonl", 3): "duplicate of eval-b.jsonl:2",
    }
    assert manifest.dropped_by_handler == {"deduplicate": {"duplicate of another row": 5}}
    assert (manifest.rows_read, manifest.rows_written) == (9, 4)
    assert [sum(source.dropped.values()) for source in manifest.sources] == [1, 2, 2]


@pytest.mark.parametrize("method", ["exact", "near"])
def test_a_priority_decides_which_row_is_kept(tmp_path: Path, method: str) -> None:
    compare = {"compare": "row"} if method == "exact" else {"compare": "prompts"}
    _, found = three_sets(tmp_path, method=method, priority=("eval-b", "eval*"), **compare)
    kind = {"exact": "duplicate", "near": "near duplicate"}[method]
    assert found == {
        ("web.jsonl", 1): f"{kind} of eval-b.jsonl:1",
        ("web.jsonl", 3): f"{kind} of web.jsonl:2",
        ("eval-a.jsonl", 1): f"{kind} of eval-b.jsonl:1",
        ("eval-a.jsonl", 3): f"{kind} of eval-a.jsonl:2",
        ("eval-b.jsonl", 3): f"{kind} of eval-b.jsonl:2",
    }


def test_a_row_that_is_too_long_for_a_pack_stands_for_no_other(tmp_path: Path) -> None:
    rows = [chat("one", LONG), chat("one", "yes"), chat("two", "yes"), chat("one", LONG)]
    options = {"packing": "bfd", "pack_length": 30, "overflow": "drop"}
    out = tmp_path / "out"
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    processor = {"deduplicate": DeduplicateConfig(compare="prompts")}
    manifest = preprocess(
        out, dataset(source, data_handlers=[CHAT]), processor=processor, model_name_or_path=MODEL, **options
    )
    assert set(manifest.dropped_by_handler) == {"packing"}
    assert {place[1] for place in removed(out)} == {1, 4}


def test_the_parts_of_a_split_conversation_stay_together(tmp_path: Path) -> None:
    turns = [turn for index in range(6) for turn in (user(f"question {index}"), assistant(f"answer {index}"))]
    rows = [{"messages": turns}, chat("other", "yes"), {"messages": turns}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = dataset(source, data_handlers=[CHAT])
    options = {"model_name_or_path": MODEL, "max_seq_length": 60, "overflow": "split_turns"}
    whole = preprocess(tmp_path / "whole", data, **options)
    processor = {"deduplicate": DeduplicateConfig(compare="both")}
    manifest = preprocess(tmp_path / "out", data, processor=processor, **options)
    parts = (whole.rows_written - 1) // 2
    assert parts > 1
    assert manifest.rows_written == parts + 1
    assert manifest.dropped_by_handler == {"deduplicate": {"duplicate of another row": parts}}
    lines = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [3] * parts
    assert {line["content"] for line in lines} == {json.dumps(rows[2])}


def test_rows_for_validation_do_not_repeat_rows_for_training(tmp_path: Path) -> None:
    rows = [chat(f"question {index % 20}", "yes") for index in range(60)]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = dataset(source, data_handlers=[CHAT], validation_rows=5)
    processor = {"deduplicate": DeduplicateConfig()}
    preprocess(tmp_path / "out", data, processor=processor, model_name_or_path=MODEL)
    train, validation = (
        [row["input_ids"] for row in written(tmp_path / "out", each)] for each in ("train", "validation")
    )
    assert (len(train), len(validation)) == (15, 5)
    assert not [row for row in validation if row in train]


# --- The same result, however it is made ------------------------------------------------------------------------------


def many_rows() -> list[Row]:
    rng = random.Random(5)
    words = [f"word{index}" for index in range(400)]
    rows = []
    for index in range(300):
        text = rng.choices(words, k=40)
        rows.append(chat(f"q{index % 250}", " ".join(text)))
        if index % 3 == 0:
            text[rng.randrange(40)] = "changed"
            rows.append(chat(f"q{index % 250}", " ".join(text)))
        if index % 10 == 0:
            rows.append(rows[-1])
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize(
    "keys",
    [{}, {"compare": "answers"}, {"method": "near", "ngram": 1}, {"method": "near", "compare": "trained", "ngram": 2}],
    ids=str,
)
def test_workers_and_units_make_no_difference(tmp_path: Path, keys: dict[str, Any]) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", many_rows())
    data = dataset(source, data_handlers=[CHAT], split=None)
    processor = {"deduplicate": DeduplicateConfig(**keys)}
    results = []
    for name, options in {
        "one": {"num_workers": 1},
        "two": {"num_workers": 2, "unit_size": 9000},
        "three": {"num_workers": 1, "unit_size": 20000},
    }.items():
        out = tmp_path / name
        manifest = preprocess(out, data, processor=processor, model_name_or_path=MODEL, **options)
        lines = (out / "dropped.jsonl").read_text()
        results.append((shard_bytes(out), lines, manifest.dropped, manifest.fingerprint))
    assert results[0] == results[1] == results[2]
    assert sum(results[0][2].values()) >= 25


def test_many_small_files(tmp_path: Path) -> None:
    for index in range(100, 170):
        write_jsonl(tmp_path / "rows" / f"{index}.jsonl", [chat("one", "yes"), chat(str(index), "yes")])
    processor = {"deduplicate": DeduplicateConfig(compare="both")}
    data = dataset(tmp_path / "rows", data_handlers=[CHAT])
    manifest = preprocess(tmp_path / "out", data, processor=processor, model_name_or_path=MODEL)
    assert manifest.units < 10
    expected = {(f"{index}.jsonl", 1): "duplicate of rows/100.jsonl:1" for index in range(101, 170)}
    assert removed(tmp_path / "out") == expected
    assert [sum(source.dropped.values()) for source in manifest.sources] == [0, *[1] * 69]


def test_staged_units_whose_rows_have_other_numbers_now(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in many_rows()]
    source = tmp_path / "rows.jsonl"
    options = {"model_name_or_path": MODEL, "unit_size": 9000, "staging_dir": str(tmp_path / "staging")}
    processor = {"deduplicate": DeduplicateConfig(compare="answers")}
    source.write_text("\n".join(lines))
    data = dataset(source, data_handlers=[CHAT])
    preprocess(tmp_path / "first", data, keep_staging=True, **options)
    three = "\n".join(json.dumps(chat(f"new {index}", "n")) for index in range(3))
    source.write_text("\n".join([three.ljust(len(lines[0])), *lines[1:]]))  # two rows more in as many bytes
    again = preprocess(tmp_path / "again", data, processor=processor, **options)
    assert again.units_found == again.units - 1 > 3
    fresh = preprocess(tmp_path / "fresh", data, processor=processor, model_name_or_path=MODEL)
    assert removed(tmp_path / "again") == removed(tmp_path / "fresh")
    assert shard_bytes(tmp_path / "again") == shard_bytes(tmp_path / "fresh")
    assert fresh.rows_written < fresh.rows_read


def test_other_options_need_no_tokenization_and_make_another_data_set(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    data = dataset(source, data_handlers=[CHAT])
    options = {"model_name_or_path": MODEL, "keep_staging": True, "staging_dir": str(tmp_path / "staging")}
    preprocess(tmp_path / "none", data, **options)
    seen = set()
    for keys in ({}, {"compare": "trained"}, {"method": "near"}, {"method": "near", "threshold": 0.9}):
        processor = {"deduplicate": DeduplicateConfig(**keys)}
        manifest = preprocess(tmp_path / str(len(seen)), data, processor=processor, **options)
        assert manifest.units_found == manifest.units
        seen.add(manifest.fingerprint)
    assert len(seen) == 4


# --- What the commands say --------------------------------------------------------------------------------------------


def config_file(folder: Path, deduplicate: Any, **keys: Any) -> Path:
    source = write_jsonl(folder / "rows.jsonl", ROWS)
    path = folder / "data.json"
    data = {"name": "chat", "data_paths": [str(source)], "data_handlers": [{"name": CHAT.name}], **keys}
    path.write_text(json.dumps({"dataprocessor": {"deduplicate": deduplicate}, "datasets": [data]}))
    return path


def test_the_command_lists_and_counts(tmp_path: Path) -> None:
    done = sftkit(
        "preprocess", "--data_config_path", config_file(tmp_path, "exact"), "--model_name_or_path", MODEL,
        "--output_dir", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "6 rows read, 1 dropped (dropped.jsonl), 5 written" in done.out
    assert "1 dropped by deduplicate: duplicate of another row" in done.out
    assert "duplicate_row" not in done.out
    assert removed(tmp_path / "out") == {("rows.jsonl", 4): "duplicate of rows.jsonl:1"}
    [entry] = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert json.loads(entry["content"]) == ROWS[3]
    audited = sftkit("inspect-shards", tmp_path / "out", "--audit")
    assert "duplicate_row" not in audited.out


@pytest.mark.parametrize(
    ("deduplicate", "message"),
    [
        ("exactly", "dataprocessor.deduplicate.method must be one of exact, near, not 'exactly'"),
        (["exact"], "dataprocessor.deduplicate.method must be text, not a list"),
        ({"method": "near", "threshold": 0.3}, "deduplicate.threshold must be between 0.5 and 1, not 0.3"),
        ({"method": "near", "ngram": 0}, "deduplicate.ngram must be 1 or more, not 0"),
        ({"threshold": 0.9}, "deduplicate.threshold is for method=near; leave it out, or set method=near"),
        ({"compare": "answer"}, "deduplicate.compare must be one of row, trained, prompts, answers, both"),
        ({"compare": "row", "columns": ["id"]}, "compare and columns are both given; set only one of them"),
        ({"columns": ["ident"]}, "no data set has the column 'ident'; columns there: messages"),
        ({"priority": ["web"]}, "priority: 'web' matches no data set; the data sets are chat"),
        ({"on": "row"}, "unknown key 'dataprocessor.deduplicate.on'"),
        ({"ignore_case": "maybe"}, "deduplicate.ignore_case must be true or false, not 'maybe'"),
    ],
    ids=str,
)
def test_wrong_options_end_in_one_sentence(tmp_path: Path, deduplicate: Any, message: str) -> None:
    done = sftkit(
        "preprocess", "--data_config_path", config_file(tmp_path, deduplicate), "--model_name_or_path", MODEL,
        "--output_dir", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()


def test_turns_need_a_handler_that_takes_them(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    with pytest.raises(ConfigError, match="compare=both needs conversations or pairs of input and output"):
        preprocess(tmp_path / "out", dataset(source), processor={"deduplicate": DeduplicateConfig(method="near")})


def test_duplicates_count_as_dropped_rows(tmp_path: Path) -> None:
    done = sftkit(
        "preprocess", "--data_config_path", config_file(tmp_path, "exact"), "--model_name_or_path", MODEL,
        "--output_dir", tmp_path / "out", "--max_dropped_rows", 0,
    )  # fmt: skip
    assert done.code == 1
    assert "1 row dropped, more than max_dropped_rows=0" in done.err
    assert "rows.jsonl:4: duplicate of" in done.err


def test_a_finished_data_set_is_recognized(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    data = dataset(source, data_handlers=[CHAT])
    processor = {"deduplicate": DeduplicateConfig()}
    preprocess(tmp_path / "out", data, processor=processor, model_name_or_path=MODEL)
    from sftkit.config.commands import PreprocessConfig
    from sftkit.config.schema.data_config import ProcessorConfig

    def planned(config: DeduplicateConfig | None) -> Any:
        return plan(
            PreprocessConfig(
                output_dir=str(tmp_path / "out"), datasets=(data,), model_name_or_path=MODEL,
                dataprocessor=ProcessorConfig(deduplicate=config),
            )
        )  # fmt: skip

    assert find_finished(planned(DeduplicateConfig())) is not None
    assert find_finished(planned(DeduplicateConfig(compare="row", ignore_case=False))) is not None
    assert find_finished(planned(DeduplicateConfig(compare="trained"))) is None
    assert find_finished(planned(None)) is None
    assert run(planned(DeduplicateConfig()), SilentProgress()).rows_written == 5
