"""Whole runs, from files to a directory of shards, compared with independent computations."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_templates import SEED, plain_rendering
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import DatasetConfig, HandlerConfig, SplitConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError, OutputError, SourceError
from sftkit.preprocessing.build import find_finished, run
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import read_manifest
from sftkit.shards.reading import open_shards
from support import ALL_TOKENIZERS, dataset, handler, preprocess, shard_bytes, write_jsonl, written

Locate = Callable[[str], str]

PAIRS = [
    {"id": i, "input": f"question {i} " + "cat " * (i % 7), "output": "yes" if i % 3 else "no dog"} for i in range(50)
]


def masking(**arguments: Any) -> HandlerConfig:
    return HandlerConfig(
        name="tokenize_and_apply_input_masking",
        arguments={"fn_kwargs": {"input_field_name": "input", "output_field_name": "output"}, **arguments},
    )


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", PAIRS)


def paired(path: Path, **keys: Any) -> DatasetConfig:
    return dataset(path, data_handlers=[masking(remove_columns="all", batched=False)], **keys)


def expected_rows(tokenizer: Any, rows: list[Row] = PAIRS) -> list[Row]:
    """Input masking row by row with the transformers tokenizer."""
    made = []
    for row in rows:
        space = "" if row["input"][-1:].isspace() or row["output"][:1].isspace() else " "
        text = row["input"] + space + row["output"] + tokenizer.eos_token
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        masked = next(index for index, (_, end) in enumerate(offsets) if end > len(row["input"]))
        made.append({"input_ids": ids, "labels": [-100] * masked + ids[masked:]})
    return made


# --- Examples -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_an_input_output_config_equals_tokenizing_row_by_row(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate, reference: Callable[[str], Any], name: str
) -> None:
    manifest = preprocess(
        tmp_path / "out",
        paired(pairs),
        processor={"sampling_stopping_strategy": "first_exhausted", "seed": 66},
        model_name_or_path=tokenizer_path(name),
        max_seq_length=4096,
        num_dataset_shards=3,
    )
    assert written(tmp_path / "out") == expected_rows(reference(name))
    assert manifest.columns == ("input_ids", "labels")


@pytest.mark.parametrize("name", ["granite", "qwen3", "tinyllama"])
@pytest.mark.parametrize("data", ["twitter_complaints_input_output.jsonl", "nestful_100_samples_input_output.jsonl"])
def test_shared_pairs_equal_tokenizing_row_by_row(
    tmp_path: Path,
    tokenizer_path: Locate,
    reference: Callable[[str], Any],
    shared_data: Callable[[str], Path],
    name: str,
    data: str,
) -> None:
    path = shared_data(data)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    preprocess(tmp_path / "out", paired(path), model_name_or_path=tokenizer_path(name), num_dataset_shards=3)
    assert written(tmp_path / "out") == expected_rows(reference(name), rows)


def test_a_response_template_config_trains_the_responses_of_shared_conversations(
    tmp_path: Path, tokenizer_path: Locate, reference: Callable[[str], Any], shared_data: Callable[[str], Path]
) -> None:
    path = shared_data("multi_turn_chat.jsonl")
    preprocess(
        tmp_path / "out",
        dataset(
            path,
            retain_columns=("formatted_chat",),
            data_handlers=[
                handler("apply_tokenizer_chat_template", dataset_text_field="formatted_chat"),
                handler("tokenize", dataset_text_field="formatted_chat", truncation=False, max_length=4096),
                handler("skip_large_text", column_name="input_ids", max_length=4096),
                HandlerConfig(name="retain_columns", arguments={"columns": ["formatted_chat"]}),
            ],
        ),
        processor={"sampling_stopping_strategy": "first_exhausted", "seed": 66, "chat_template": SEED},
        instruction_template="<|start_of_role|>user<|end_of_role|>",
        response_template="<|start_of_role|>assistant<|end_of_role|>",
        model_name_or_path=tokenizer_path("granite"),
        max_seq_length=8192,
        num_dataset_shards=10,
    )
    tokenizer = reference("granite")
    expected = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = plain_rendering(SEED, messages=json.loads(line))
        made = tokenizer(text, return_offsets_mapping=True)
        responses = re.finditer(r"<\|start_of_role\|>assistant<\|end_of_role\|>(.*?<\|end_of_text\|>)", text, re.DOTALL)
        spans = [match.span(1) for match in responses]
        trained = [any(max(s, start) < min(e, end) for start, end in spans) for s, e in made["offset_mapping"]]
        labels = [token if loss else -100 for token, loss in zip(made["input_ids"], trained, strict=True)]
        if len(labels) < 4096:
            expected.append({"input_ids": made["input_ids"], "labels": labels, "formatted_chat": text})
    assert written(tmp_path / "out") == expected
    assert len(list((tmp_path / "out").glob("train-*.parquet"))) == 10


# --- Shards -------------------------------------------------------------------------------------------


def test_shards_are_contiguous_balanced_and_keep_the_order(tmp_path: Path, pairs: Path, tokenizer_path: Locate) -> None:
    manifest = preprocess(
        tmp_path / "out", paired(pairs), model_name_or_path=tokenizer_path("bpe"), num_dataset_shards=4
    )
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert [file.name for file in files] == [f"train-{i:05d}-of-00004.parquet" for i in range(4)]
    tables = [pq.read_table(file) for file in files]
    assert tables[0].schema.field("input_ids").type == pa.list_(pa.int32())
    assert sum(table.num_rows for table in tables) == 50
    tokens = [sum(map(len, table["input_ids"].to_pylist())) for table in tables]
    longest = max(len(ids) for table in tables for ids in table["input_ids"].to_pylist())
    assert max(tokens) - min(tokens) <= 2 * longest
    assert [shard.tokens for shard in manifest.splits["train"].shards] == tokens
    assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_fewer_rows_than_shards_is_an_error_that_leaves_no_data_set(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate
) -> None:
    with pytest.raises(DataError, match="50 rows cannot fill 51 shards; use at most 50"):
        preprocess(tmp_path / "out", paired(pairs), model_name_or_path=tokenizer_path("bpe"), num_dataset_shards=51)
    assert_staged_only(tmp_path / "out")


def assert_staged_only(out: Path, *others: str) -> None:
    """A failed run left complete units for the next run, and nothing else."""
    assert sorted(path.name for path in out.iterdir()) == sorted([".staging", *others])
    assert all(path.name.startswith("unit-") and path.suffix == ".arrow" for path in (out / ".staging").iterdir())


def test_load_dataset_gives_train_and_validation(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate, datasets_cache: Path
) -> None:
    preprocess(
        tmp_path / "out",
        paired(pairs, split=SplitConfig(train=0.8, validation=0.2)),
        model_name_or_path=tokenizer_path("bpe"),
        num_dataset_shards=3,
        num_eval_dataset_shards=2,
    )
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(datasets_cache))
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 40, "validation": 10}
    assert loaded["train"].to_list() == written(tmp_path / "out")
    assert loaded["validation"].to_list() == written(tmp_path / "out", "validation")
    assert open_shards(str(tmp_path / "out")).column_names("validation") == ["input_ids", "labels"]


RETAINED: list[Row] = [
    {"n": 1, "note": None, "tags": ["a"], "meta": {"x": 1}, "empty": None},
    {"n": 2.5, "note": "x", "tags": [], "meta": {"y": "z"}, "empty": None},
    {"n": 3, "note": None, "tags": None, "meta": None, "empty": None},
]


def test_bytes_do_not_depend_on_the_size_of_units_or_the_number_of_workers(
    tmp_path: Path, tokenizer_path: Locate
) -> None:
    rows = [{**pair, **RETAINED[i % 3]} for i, pair in enumerate(PAIRS)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    data = dataset(
        source,
        data_handlers=[masking()],
        retain_columns=("input", "output", "id", *RETAINED[0]),
        split=SplitConfig(validation=0.1),
    )
    made = []
    for index, (workers, unit_size) in enumerate([(1, 8 << 20), (1, 300), (2, 300)]):
        manifest = preprocess(
            tmp_path / f"out{index}",
            data,
            model_name_or_path=tokenizer_path("bpe"),
            num_dataset_shards=3,
            num_workers=workers,
            unit_size=unit_size,
        )
        made.append((shard_bytes(tmp_path / f"out{index}"), manifest.fingerprint, manifest.splits, manifest.rows_read))
    assert made[0] == made[1] == made[2]
    first = next(row for row in written(tmp_path / "out0") if row["id"] % 3 == 1)
    assert (first["n"], first["note"], first["tags"], first["meta"]["y"], first["empty"]) == (2.5, "x", [], "z", None)


def test_retained_parquet_values_are_stored_as_json_types(tmp_path: Path, tokenizer_path: Locate) -> None:
    import datetime
    import decimal

    table = pa.table(
        {
            "input": ["a"],
            "output": ["b"],
            "day": [datetime.date(2020, 2, 3)],
            "at": pa.array([datetime.datetime(2020, 2, 3, 4, 5)], pa.timestamp("us")),
            "price": [decimal.Decimal("1.50")],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    data = dataset(
        tmp_path / "in.parquet", data_handlers=[masking()], retain_columns=("input", "output", "day", "at", "price")
    )
    preprocess(tmp_path / "out", data, model_name_or_path=tokenizer_path("bpe"))
    [row] = written(tmp_path / "out")
    assert (row["day"], row["at"], row["price"]) == ("2020-02-03", "2020-02-03 04:05:00", "1.50")


def test_retained_values_of_different_kinds_are_an_error(tmp_path: Path, tokenizer_path: Locate) -> None:
    pair = {"input": "a", "output": "b"}
    for values, row in (([1, "one"], 2), ([2**70, 1], 1), ([{"a": 1}, [1]], 2)):
        source = write_jsonl(tmp_path / "in.jsonl", [{**pair, "v": value} for value in values])
        data = dataset(source, data_handlers=[masking()], retain_columns=("input", "output", "v"))
        for unit_size in (1, 8 << 20):
            place = "retain_columns" if unit_size == 1 else rf"in\.jsonl:{row}: retain_columns"
            with pytest.raises(DataError, match=place):
                preprocess(tmp_path / "out", data, model_name_or_path=tokenizer_path("bpe"), unit_size=unit_size)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([{}, None], ["{}", None]),
        ([[{}], [], [None]], [["{}"], [], [None]]),
        ([{"a": {}, "b": 1}, {"a": None}], [{"a": "{}", "b": 1}, {"a": None, "b": None}]),
        ([{}, {"a": 1}], [{"a": None}, {"a": 1}]),
    ],
)
def test_retained_objects_that_never_have_a_key_become_text(
    tmp_path: Path, tokenizer_path: Locate, values: list[Any], stored: list[Any]
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"input": "a", "output": "b", "v": value} for value in values])
    data = dataset(source, data_handlers=[masking()], retain_columns=("input", "output", "v"))
    for unit_size in (1, 8 << 20):
        out = tmp_path / f"out-{unit_size}"
        preprocess(out, data, model_name_or_path=tokenizer_path("bpe"), unit_size=unit_size)
        assert [row["v"] for row in written(out)] == stored


@pytest.mark.parametrize("value", [[], None, [None], [[]], {"a": None}])
def test_retained_values_without_a_type_are_written(tmp_path: Path, tokenizer_path: Locate, value: Any) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"input": "a", "output": "b", "v": value}])
    data = dataset(source, data_handlers=[masking()], retain_columns=("input", "output", "v"))
    preprocess(tmp_path / "out", data, model_name_or_path=tokenizer_path("bpe"))
    assert written(tmp_path / "out")[0]["v"] == value


# --- Length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["truncate", "drop", "error"])
def test_rows_longer_than_max_seq_length(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate, reference: Callable[[str], Any], overflow: str
) -> None:
    expected = expected_rows(reference("bpe"))
    limit = sorted(len(row["input_ids"]) for row in expected)[30]
    long = [row for row in expected if len(row["input_ids"]) > limit]
    assert 0 < len(long) < 50
    options = {"model_name_or_path": tokenizer_path("bpe"), "max_seq_length": limit, "overflow": overflow}
    if overflow == "error":
        with pytest.raises(
            DataError, match=f"{len(long)} rows cannot be used:\n.*tokens, more than max_seq_length={limit}"
        ):
            preprocess(tmp_path / "out", paired(pairs), **options)
        manifest = preprocess(tmp_path / "allowed", paired(pairs), max_bad_rows=len(long), **options)
        assert (manifest.rows_written, manifest.quarantined) == (50 - len(long), len(long))
        return
    manifest = preprocess(tmp_path / "out", paired(pairs), **options)
    cut = [{name: ids[:limit] for name, ids in row.items()} for row in expected]
    if overflow == "drop":
        assert written(tmp_path / "out") == [row for row in expected if len(row["input_ids"]) <= limit]
        assert manifest.dropped == {f"longer than max_seq_length={limit}": len(long)}
    else:
        trained = [row for row in cut if any(label != -100 for label in row["labels"])]
        assert written(tmp_path / "out") == trained
        assert manifest.dropped.get("no trained token", 0) == 50 - len(trained)


def test_a_row_left_without_a_trained_token_is_dropped_and_counted(tmp_path: Path, tokenizer_path: Locate) -> None:
    rows = [{"input": "cat " * 50, "output": "dog"}, {"input": "cat", "output": "dog"}]
    manifest = preprocess(
        tmp_path / "out",
        paired(write_jsonl(tmp_path / "in.jsonl", rows)),
        model_name_or_path=tokenizer_path("bpe"),
        max_seq_length=20,
    )
    assert len(written(tmp_path / "out")) == 1
    assert manifest.dropped == {"cut at 20 tokens before the first answer": 1}


def test_a_label_on_the_first_position_trains_nothing(tmp_path: Path) -> None:
    rows = [{"input_ids": [5, 6], "labels": [5, -100]}, {"input_ids": [5, 6], "labels": [-100, 6]}]
    manifest = preprocess(tmp_path / "out", dataset(write_jsonl(tmp_path / "in.jsonl", rows)))
    assert written(tmp_path / "out") == [rows[1]]
    assert manifest.dropped == {"no trained token": 1}


# --- Mixing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"])
def test_a_mix_equals_interleave_datasets_of_the_processed_data_sets(
    tmp_path: Path, tokenizer_path: Locate, reference: Callable[[str], Any], strategy: str
) -> None:
    contents = [PAIRS[:30], [{**row, "input": "other " + row["input"]} for row in PAIRS[:20]]]
    fractions = SplitConfig(train=0.8, validation=0.2)
    parts = [
        paired(write_jsonl(tmp_path / f"{i}.jsonl", rows), name=str(i), sampling=weight, split=fractions)
        for i, (rows, weight) in enumerate(zip(contents, (0.7, 0.3), strict=True))
    ]
    manifest = preprocess(
        tmp_path / "out",
        *parts,
        processor={"seed": 66, "sampling_stopping_strategy": strategy},
        model_name_or_path=tokenizer_path("bpe"),
        num_dataset_shards=2,
    )
    processed = [datasets.Dataset.from_list(expected_rows(reference("bpe"), rows)) for rows in contents]
    split = [each.train_test_split(train_size=0.8, test_size=0.2, seed=66) for each in processed]
    mixed = datasets.interleave_datasets(
        [each["train"] for each in split], probabilities=[0.7, 0.3], seed=66, stopping_strategy=strategy
    )
    assert written(tmp_path / "out") == mixed.to_list()
    held_out = datasets.concatenate_datasets([each["test"] for each in split])
    assert written(tmp_path / "out", "validation") == held_out.to_list()
    assert manifest.rows_written == len(mixed) + len(held_out)
    assert manifest.rows_written == manifest.rows_read - manifest.rows_left_out + manifest.rows_repeated


def test_data_sets_of_tokens_and_of_text_cannot_be_combined(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate
) -> None:
    text = dataset(write_jsonl(tmp_path / "t.jsonl", [{"text": "a"}]), name="text")
    with pytest.raises(DataError, match=r"some data sets become tokens and others text \(text\); "):
        preprocess(tmp_path / "out", paired(pairs), text, model_name_or_path=tokenizer_path("bpe"))


# --- Tokens and text ----------------------------------------------------------------------------------

TOKENIZED = [
    {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "source": "a"},
    {"input_ids": [4, 5], "labels": [-100, 5], "source": "b"},
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "large"])
def test_tokenized_rows_are_written_unchanged(tmp_path: Path, kind: str) -> None:
    if kind == "jsonl":
        path = write_jsonl(tmp_path / "in.jsonl", TOKENIZED)
    else:
        path = tmp_path / "in.parquet"
        table = pa.Table.from_pylist(TOKENIZED)
        if kind == "large":
            table = table.cast(
                pa.schema(
                    [(n, pa.large_list(pa.int64())) for n in ("input_ids", "labels")] + [("source", pa.large_string())]
                )
            )
        pq.write_table(table, path)
    manifest = preprocess(tmp_path / "out", dataset(path))
    assert written(tmp_path / "out") == [{name: row[name] for name in ("input_ids", "labels")} for row in TOKENIZED]
    assert manifest.tokenizer is None
    assert (manifest.splits["train"].tokens, manifest.splits["train"].trained_tokens) == (5, 3)
    preprocess(tmp_path / "kept", dataset(path, retain_columns=("input_ids", "labels", "source")))
    assert written(tmp_path / "kept") == TOKENIZED


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"input_ids": [1, 2], "labels": [1]}, "input_ids and labels differ in length (2 and 1)"),
        ({"input_ids": [1, "2"], "labels": [1, 2]}, "column 'input_ids' must be a list of whole numbers (32 bits)"),
        ({"input_ids": [1, 2**31], "labels": [1, 2]}, "column 'input_ids' must be a list of whole numbers (32 bits)"),
        ({"input_ids": [1, True], "labels": [1, 2]}, "column 'input_ids' must be a list of whole numbers (32 bits)"),
        ({"input_ids": [1, 2], "labels": None}, "column 'labels' must be a list of whole numbers (32 bits)"),
        (
            {"input_ids": [1, 2]},
            "rows have input_ids but no labels; set response_template, use a masking handler, or set train_on=all to "
            "train on every token",
        ),
        (
            {"q": "x"},
            "after all handlers, rows have the columns q: no input_ids and no text column 'text'; "
            "add a handler that tokenizes, or set dataset_text_field",
        ),
    ],
)
def test_invalid_tokenized_rows_are_quarantined(tmp_path: Path, row: Row, reason: str) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [TOKENIZED[0], row])
    manifest = preprocess(tmp_path / "out", dataset(path), max_bad_rows=1)
    assert manifest.quarantined == 1
    [entry] = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert (entry["path"], entry["row"], entry["reason"]) == (str(path), 2, reason)


def test_input_ids_without_labels_are_an_error_unless_train_on_is_all(
    tmp_path: Path,
) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"input_ids": [1, 2, 3]}])
    with pytest.raises(DataError, match=r"in\.jsonl\): .*response_template.*masking handler.*train_on=all"):
        preprocess(tmp_path / "out", dataset(path))
    assert not (tmp_path / "out").exists()
    preprocess(tmp_path / "out", dataset(path), train_on="all")
    assert written(tmp_path / "out") == [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}]


def test_train_on_all_puts_a_loss_on_every_token_of_a_text(
    tmp_path: Path, tokenizer_path: Locate, reference: Callable[[str], Any]
) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": "the cat sat"}])
    preprocess(tmp_path / "out", dataset(path), train_on="all", model_name_or_path=tokenizer_path("bos_eos"))
    ids = reference("bos_eos")("the cat sat")["input_ids"]
    assert written(tmp_path / "out") == [{"input_ids": ids, "labels": ids}]


def test_text_without_further_options_becomes_text_shards(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": "ab", "n": 1}, {"text": "你", "n": 2}])
    manifest = preprocess(tmp_path / "out", dataset(path))
    assert written(tmp_path / "out") == [{"text": "ab"}, {"text": "你"}]
    assert manifest.text_column == "text"
    split = manifest.splits["train"]
    assert (split.rows, split.tokens, split.trained_tokens, split.length_max) == (2, 0, 0, 2)


def test_a_text_without_a_response_is_dropped_and_counted(
    tmp_path: Path, tokenizer_path: Locate, reference: Callable[[str], Any]
) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"t": "Q: a\nA: b"}, {"t": "Q: only"}, {"t": "Q: c\nA: d"}])
    manifest = preprocess(
        tmp_path / "out",
        dataset(path, data_handlers=[handler("add_tokenizer_eos_token", dataset_text_field="t")]),
        response_template="\nA:",
        model_name_or_path=tokenizer_path("bos"),
    )
    assert manifest.dropped == {"no response found by response_template": 1}
    tokenizer = reference("bos")
    for row, text in zip(written(tmp_path / "out"), ["Q: a\nA: b</s>", "Q: c\nA: d</s>"], strict=True):
        assert row["input_ids"] == tokenizer(text)["input_ids"]
        assert tokenizer.decode([label for label in row["labels"] if label != -100]) == text[-6:]


@pytest.mark.parametrize("unit_size", [1, 40, 8 << 20])
def test_the_result_of_a_row_does_not_depend_on_other_rows_of_its_unit(tmp_path: Path, unit_size: int) -> None:
    rows: list[Row] = [
        {"input_ids": [1, 2], "labels": [1, 2]},
        {"input_ids": [3, 4]},
        {"q": "neither"},
        {"input_ids": [5, 6], "labels": [-100, 6]},
    ]
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    manifest = preprocess(tmp_path / "out", dataset(path), max_bad_rows=2, unit_size=unit_size)
    assert written(tmp_path / "out") == [rows[0], rows[3]]
    assert manifest.quarantined == 2
    manifest = preprocess(tmp_path / "all", dataset(path), max_bad_rows=1, unit_size=unit_size, train_on="all")
    assert written(tmp_path / "all") == [rows[0], {"input_ids": [3, 4], "labels": [3, 4]}, rows[3]]
    assert manifest.quarantined == 1


def test_rows_without_tokens_or_text_are_an_error_that_names_their_columns(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"q": "a", "w": 1}])
    with pytest.raises(
        DataError, match=r"in\.jsonl\): after all handlers, rows have the columns q, w: no input_ids and no text"
    ):
        preprocess(tmp_path / "out", dataset(path))


# --- Row accounting -----------------------------------------------------------------------------------

LINES = [
    json.dumps({"input": "cat", "output": "dog"}),
    json.dumps({"input": "cat " * 30, "output": "dog"}),
    json.dumps({"input": None, "output": "dog"}),
    json.dumps({"input": "cat", "output": ""}),
    json.dumps({"input": "long " * 3, "output": "dog"}),
    "{broken",
    "[1]",
    "",
]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.sampled_from(LINES), max_size=25),
    unit_size=st.integers(1, 400),
    overflow=st.sampled_from(["truncate", "drop", "error"]),
)
def test_every_row_read_is_kept_dropped_or_quarantined(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Locate, lines: list[str], unit_size: int, overflow: str
) -> None:
    folder = tmp_path_factory.mktemp("account")
    path = folder / "in.jsonl"
    path.write_text("\n".join([LINES[0], *lines]) + "\n")
    skip = handler("skip_large_text", column_name="input", max_length=14)
    if overflow != "drop":
        skip = handler("skip_large_text", column_name="input", max_length=1000)
    manifest = preprocess(
        folder / "out",
        dataset(path, data_handlers=[skip, masking()]),
        model_name_or_path=tokenizer_path("bpe"),
        max_bad_rows=1000,
        unit_size=unit_size,
        overflow=overflow,
        max_seq_length=20,
    )
    counts = Counter([LINES[0], *lines])
    assert manifest.rows_read == sum(counts.values()) - counts[""]
    assert manifest.rows_read == manifest.rows_written + sum(manifest.dropped.values()) + manifest.quarantined
    bad = counts["{broken"] + counts["[1]"] + counts[LINES[2]] + (counts[LINES[1]] if overflow == "error" else 0)
    assert manifest.quarantined == bad
    assert manifest.rows_written == len(written(folder / "out"))
    [source] = manifest.sources
    assert (source.rows_read, source.quarantined) == (manifest.rows_read, manifest.quarantined)
    assert source.rows_kept + sum(source.dropped.values()) + source.quarantined == source.rows_read
    quarantine = folder / "out" / "quarantine.jsonl"
    numbers = [json.loads(line)["row"] for line in quarantine.read_text().splitlines()] if bad else []
    assert numbers == sorted(numbers)
    assert len(numbers) == bad
    assert quarantine.exists() == bool(bad)


def test_the_counts_of_the_manifest_are_those_of_the_shards(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate
) -> None:
    manifest = preprocess(
        tmp_path / "out",
        paired(pairs, split=SplitConfig(train=0.5, validation=0.3)),
        model_name_or_path=tokenizer_path("bpe"),
        num_dataset_shards=2,
    )
    assert manifest == read_manifest(tmp_path / "out")
    assert (manifest.rows_read, manifest.rows_written, manifest.rows_left_out, manifest.rows_repeated) == (
        50,
        40,
        10,
        0,
    )
    for name, split in manifest.splits.items():
        rows = written(tmp_path / "out", name)
        lengths = [len(row["input_ids"]) for row in rows]
        assert (split.rows, split.tokens) == (len(rows), sum(lengths))
        assert split.trained_tokens == sum(label != -100 for row in rows for label in row["labels"])
        assert (split.length_min, split.length_max) == (min(lengths), max(lengths))
        buckets = Counter(str(1 << (length.bit_length() - 1)) for length in lengths)
        assert dict(split.length_histogram) == dict(buckets)
        for shard in split.shards:
            data = (tmp_path / "out" / shard.file).read_bytes()
            assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    [source] = manifest.sources
    assert (source.path, source.bytes) == (str(pairs), pairs.stat().st_size)
    assert source.sha256 == hashlib.sha256(pairs.read_bytes()).hexdigest()
    assert manifest.config["datasets"][0]["split"] == {"train": 0.5, "validation": 0.3}
    assert manifest.tokenizer is not None
    assert manifest.tokenizer.eos_token == "</s>"


def test_bad_rows_over_the_limit_end_the_run_and_are_saved(tmp_path: Path, tokenizer_path: Locate) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join([LINES[0], "{broken", LINES[0], LINES[2], LINES[0]]) + "\n")
    data = paired(path)
    with pytest.raises(DataError) as caught:
        preprocess(tmp_path / "out", data, model_name_or_path=tokenizer_path("bpe"), max_bad_rows=1)
    message = str(caught.value)
    assert message.splitlines()[0] == "2 rows cannot be used, more than max_bad_rows=1:"
    assert f"  {path}:2: broken JSON: " in message
    assert f"  {path}:4: column 'input' is null where text should be" in message
    assert "max_bad_rows=2" in message
    assert_staged_only(tmp_path / "out", "quarantine.jsonl")
    manifest = preprocess(tmp_path / "out", data, model_name_or_path=tokenizer_path("bpe"), max_bad_rows=2)
    assert (manifest.rows_written, manifest.quarantined, manifest.units_found) == (3, 2, manifest.units)


def test_a_source_without_rows_is_an_error(tmp_path: Path, tokenizer_path: Locate) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n\n")
    with pytest.raises(DataError, match=r"in\.jsonl: holds no rows"):
        preprocess(tmp_path / "out", paired(path), model_name_or_path=tokenizer_path("bpe"))
    write_jsonl(path, [{"input": "cat", "output": "dog"}])
    all_large = dataset(path, data_handlers=[handler("skip_large_text", column_name="input", max_length=1), masking()])
    with pytest.raises(DataError, match=r"no rows left of 1 read: 1 dropped \(skip_large_text: input has 1 or more\)"):
        preprocess(tmp_path / "out", all_large, model_name_or_path=tokenizer_path("bpe"))
    assert_staged_only(tmp_path / "out")


def test_a_column_that_no_row_has_is_an_error_before_anything_is_written(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate
) -> None:
    wrong = dataset(
        pairs,
        data_handlers=[handler("tokenize_and_apply_input_masking", input_field_name="in", output_field_name="output")],
    )
    with pytest.raises(DataError, match=r"needs column 'in', which no row has; columns there: id, input, output"):
        preprocess(tmp_path / "out", wrong, model_name_or_path=tokenizer_path("bpe"))
    assert not (tmp_path / "out").exists()


# --- The output directory -----------------------------------------------------------------------------


def test_a_directory_with_another_data_set_is_refused_unless_overwrite_is_set(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate
) -> None:
    out = tmp_path / "out"
    options = {"model_name_or_path": tokenizer_path("bpe")}
    preprocess(out, paired(pairs), num_dataset_shards=3, **options)
    before = shard_bytes(out)
    with pytest.raises(OutputError, match="holds another data set; choose another directory, or set overwrite=true"):
        preprocess(out, paired(pairs), num_dataset_shards=2, **options)
    assert shard_bytes(out) == before
    preprocess(out, paired(pairs), num_dataset_shards=2, overwrite=True, **options)
    assert [path.name for path in sorted(out.iterdir())] == [
        "README.md",
        "manifest.json",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]


def test_a_failed_run_leaves_an_existing_data_set_unchanged(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate
) -> None:
    out = tmp_path / "out"
    options = {"model_name_or_path": tokenizer_path("bpe")}
    preprocess(out, paired(pairs), **options)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError):
        preprocess(out, paired(pairs), num_dataset_shards=99, overwrite=True, **options)
    assert_staged_only(out, *before)
    assert {name: (out / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("name", ["mine.parquet", "README.md"])
def test_a_directory_with_conflicting_files_is_refused(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate, name: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(OutputError, match=f"holds {name}, which sftkit did not write; choose an empty directory"):
        preprocess(out, paired(pairs), model_name_or_path=tokenizer_path("bpe"))
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "mine")]


def test_an_output_dir_that_is_a_file_or_inside_one_is_refused(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate
) -> None:
    with pytest.raises(OutputError, match="is a file, not a directory"):
        preprocess(pairs, paired(pairs), model_name_or_path=tokenizer_path("bpe"))
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        preprocess(pairs / "out", paired(pairs), model_name_or_path=tokenizer_path("bpe"))


def test_a_failed_run_leaves_no_data_set(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(
        PreprocessConfig(
            output_dir=str(tmp_path / "out"), datasets=(paired(pairs),), model_name_or_path=tokenizer_path("bpe")
        )
    )

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sftkit.preprocessing.build.make_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(made, SilentProgress())
    assert_staged_only(tmp_path / "out")


def test_a_finished_plan_is_recognized_and_a_changed_one_is_not(
    tmp_path: Path, pairs: Path, tokenizer_path: Locate
) -> None:
    config = PreprocessConfig(
        output_dir=str(tmp_path / "out"),
        datasets=(paired(pairs),),
        model_name_or_path=tokenizer_path("bpe"),
        num_workers=1,
    )
    assert find_finished(plan(config)) is None
    manifest = run(plan(config), SilentProgress())
    assert find_finished(plan(config)) == manifest
    assert find_finished(plan(replace(config, unit_size=300, num_workers=2))) == manifest
    assert find_finished(plan(replace(config, num_dataset_shards=2))) is None
    assert find_finished(plan(replace(config, model_name_or_path=tokenizer_path("bos")))) is None
    write_jsonl(pairs, PAIRS[:-1])
    assert find_finished(plan(config)) is None


def test_planning_writes_nothing_and_reports_all_config_problems_at_once(tmp_path: Path, pairs: Path) -> None:
    config = PreprocessConfig(
        output_dir=str(tmp_path / "out"),
        datasets=(
            dataset(pairs, name="a", sampling=0.7, data_handlers=[handler("tokenise")]),
            dataset(pairs, name="b", sampling=0.7, data_handlers=[handler("tokenize", wrong=1)]),
        ),
    )
    with pytest.raises(ConfigError) as caught:
        plan(config)
    text = "\n".join(caught.value.problems)
    assert "must sum to 1, not 1.4" in text
    assert "unknown handler 'tokenise'" in text
    assert "unknown key 'datasets[1].data_handlers[0].tokenize.wrong'" in text
    assert not (tmp_path / "out").exists()


def test_a_missing_source_is_an_error_before_anything_is_written(tmp_path: Path, tokenizer_path: Locate) -> None:
    with pytest.raises(SourceError, match=r"nothing\.jsonl: no such file or directory"):
        preprocess(tmp_path / "out", paired(tmp_path / "nothing.jsonl"), model_name_or_path=tokenizer_path("bpe"))
    assert not (tmp_path / "out").exists()


def test_shards_as_a_source_give_the_same_rows(tmp_path: Path, pairs: Path, tokenizer_path: Locate) -> None:
    preprocess(
        tmp_path / "one",
        paired(pairs, split=SplitConfig(train=0.8, validation=0.2)),
        model_name_or_path=tokenizer_path("bpe"),
        num_dataset_shards=3,
    )
    held_out = dataset(tmp_path / "one", name="v", dataset_split_name="validation", split=SplitConfig(validation=1.0))
    preprocess(tmp_path / "two", dataset(tmp_path / "one"), held_out)
    for split in ("train", "validation"):
        assert written(tmp_path / "two", split) == written(tmp_path / "one", split)


def test_ids_outside_the_vocabulary_are_quarantined(tmp_path: Path, tokenizer_path: Locate) -> None:
    rows: list[Row] = [{"input_ids": ids, "labels": ids} for ids in ([1, 2], [1, 999_999], [-3, 2])]
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    preprocess(tmp_path / "out", dataset(path), max_bad_rows=2, model_name_or_path=tokenizer_path("bpe"))
    assert written(tmp_path / "out") == rows[:1]
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [reason.split(" is none of")[0] for reason in reasons] == ["id 999999", "id -3"]
