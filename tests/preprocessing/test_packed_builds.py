"""`packing` in whole runs: the content of packs, rows that are too long, errors and reports."""

from __future__ import annotations

import io
import json
import logging
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from sftkit.cli.console.reports.show_plan import print_plan
from sftkit.cli.console.reports.show_preprocess import print_result
from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.schema.data_config import SplitConfig
from sftkit.config.validation import validate_config
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.inspection.compare.compare_datasets import compare_datasets
from sftkit.inspection.verify.verify_dataset import verify
from sftkit.preprocessing.planning import plan
from sftkit.preprocessing.preview import preview_shards
from sftkit.preprocessing.training_shards import check_training_data, find_or_build_shards
from sftkit.shards.manifest import Manifest, length_histogram
from sftkit.shards.reading import open_shards
from sftkit.training.data.rows.open_split import open_split
from support import dataset, handler, preprocess, shard_bytes, write_jsonl, written


def tokenized(lengths: list[int], first: int = 1) -> list[Row]:
    """Rows of these lengths. No two rows share an id; every third label has no loss, but the first has."""
    rows = []
    for number, length in enumerate(lengths):
        ids = [(first + number) * 1000 + place for place in range(length)]
        rows.append(
            {"input_ids": ids, "labels": [-100 if place % 3 == 1 else token for place, token in enumerate(ids)]}
        )
    return rows


def some_lengths(count: int, most: int, seed: int = 3) -> list[int]:
    chance = random.Random(seed)
    return [chance.randint(3, most) for _ in range(count)]


def sequences(packs: list[Row]) -> list[Row]:
    """The sequences of packs: ids, labels and all other columns."""
    found = []
    for pack in packs:
        at = 0
        others = [name for name in pack if name not in ("input_ids", "labels", "seq_lengths")]
        assert all(len(pack[name]) == len(pack["seq_lengths"]) for name in others)
        for number, length in enumerate(pack["seq_lengths"]):
            part = slice(at, at + length)
            row = {"input_ids": pack["input_ids"][part], "labels": pack["labels"][part]}
            found.append({**row, **{name: pack[name][number] for name in others}})
            at += length
        assert at == len(pack["input_ids"]) == len(pack["labels"])
    return found


def unpredicted(row: Row) -> Row:
    """A row as it is in a pack, where its first token is not predicted."""
    return {**row, "labels": [-100, *row["labels"][1:]]}


def by_ids(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["input_ids"])


def check_account(manifest: Manifest, packs: dict[str, list[Row]]) -> None:
    """Every count of a manifest, computed from the written rows."""
    assert set(manifest.splits) == set(packs)
    for name, split in manifest.splits.items():
        lengths = [length for pack in packs[name] for length in pack["seq_lengths"]]
        assert (split.rows, split.sequences) == (len(packs[name]), len(lengths))
        assert split.tokens == sum(lengths)
        assert split.trained_tokens == sum(label != -100 for pack in packs[name] for label in pack["labels"])
        assert split.pack_length is not None
        assert split.fill_rate == pytest.approx(sum(lengths) / (len(packs[name]) * split.pack_length), abs=1e-4)
        assert (split.length_min, split.length_max) == (min(lengths), max(lengths))
        assert split.length_histogram == length_histogram(np.array(lengths))
    assert manifest.rows_read == (
        manifest.rows_written
        - manifest.rows_repeated
        + manifest.rows_left_out
        + sum(manifest.dropped.values())
        + manifest.quarantined
    )
    for source in manifest.sources:
        assert source.rows_read == source.rows_kept + sum(source.dropped.values()) + source.quarantined


# --- What packs hold ----------------------------------------------------------------------------------


def test_every_row_is_whole_in_one_pack_with_its_retained_columns(tmp_path: Path) -> None:
    rows = [{**row, "id": i, "tags": [{"a": i}] * (i % 3)} for i, row in enumerate(tokenized(some_lengths(300, 60)))]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    data = dataset(source, retain_columns=("id", "tags"))
    manifest = preprocess(tmp_path / "out", data, packing="bfd", pack_length=64, num_dataset_shards=3)
    packs = written(tmp_path / "out")
    assert by_ids(sequences(packs)) == by_ids([unpredicted(row) for row in rows])
    assert all(len(pack["input_ids"]) <= 64 for pack in packs)
    assert all(pack["id"] == sorted(pack["id"]) for pack in packs), "rows of a pack are in the order of the split"
    assert manifest.columns == ("input_ids", "labels", "seq_lengths", "id", "tags")
    assert manifest.config["packing"] == "bfd"
    tokens = [shard.tokens for shard in manifest.splits["train"].shards]
    assert max(tokens) - min(tokens) <= 2 * 64
    check_account(manifest, {"train": packs})


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(3, 12), min_size=1, max_size=25),
    length=st.integers(2, 15),
    unit_size=st.sampled_from([64, 1 << 20]),
)
def test_wrapped_packs_are_the_concatenated_rows_cut_into_pieces(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, unit_size: int
) -> None:
    folder = tmp_path_factory.mktemp("wrapped")
    rows = tokenized(lengths)
    manifest = preprocess(
        folder / "out",
        dataset(write_jsonl(folder / "in.jsonl", rows), split=SplitConfig(validation=1.0)),
        packing="wrapped",
        max_seq_length=length + 100,
        pack_length=length,
        unit_size=unit_size,
    )
    ids = [token for row in rows for token in row["input_ids"]]
    packs = written(folder / "out", "validation")
    assert [pack["input_ids"] for pack in packs] == [ids[at : at + length] for at in range(0, len(ids), length)]
    label_of = {token: label for row in rows for token, label in zip(row["input_ids"], row["labels"], strict=True)}
    for part in sequences(packs):
        assert len({token // 1000 for token in part["input_ids"]}) == 1
        assert part["labels"] == [-100, *(label_of[token] for token in part["input_ids"][1:])]
    check_account(manifest, {"validation": packs})


def test_packs_to_train_on_are_shuffled_by_the_seed_and_others_are_not(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized(some_lengths(200, 40)))
    orders = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        preprocess(tmp_path / name, dataset(source), processor={"seed": seed}, packing="bfd", pack_length=50)
        orders[name] = [tuple(pack["input_ids"]) for pack in written(tmp_path / name)]
    held_out = dataset(source, split=SplitConfig(validation=1.0))
    preprocess(tmp_path / "v", held_out, packing="bfd", pack_length=50)
    unshuffled = [tuple(pack["input_ids"]) for pack in written(tmp_path / "v", "validation")]
    assert orders["a"] == orders["b"] != orders["c"]
    assert sorted(orders["a"]) == sorted(orders["c"]) == sorted(unshuffled)
    assert unshuffled not in (orders["a"], orders["c"])
    longest = [max(pack_lengths(pack)) for pack in written(tmp_path / "v", "validation")]
    assert longest == sorted(longest, reverse=True), "packs are in the order in which they were opened"


@pytest.mark.parametrize("options", [{"packing": "next_fit"}, {"packing": "bfd", "pack_window": 40}])
def test_packs_that_keep_the_order_of_rows_are_not_shuffled(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = tokenized(some_lengths(200, 40))
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    manifest = preprocess(tmp_path / "out", dataset(source), pack_length=50, **options)
    packs = written(tmp_path / "out")
    assert by_ids(sequences(packs)) == by_ids([unpredicted(row) for row in rows])
    firsts = [pack["input_ids"][0] for pack in packs]
    assert firsts == sorted(firsts)
    check_account(manifest, {"train": packs})
    preprocess(tmp_path / "again", dataset(source), processor={"seed": 7}, pack_length=50, **options)
    assert written(tmp_path / "again") == packs


def test_rows_longer_than_a_pack_are_split_and_nothing_is_lost(tmp_path: Path) -> None:
    rows = [{**row, "id": number} for number, row in enumerate(tokenized(some_lengths(120, 90)))]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    manifest = preprocess(
        tmp_path / "out", dataset(source, retain_columns=("id",)), packing="bfd_split", pack_length=32
    )
    packs = written(tmp_path / "out")
    label_of = {token: label for row in rows for token, label in zip(row["input_ids"], row["labels"], strict=True)}
    found = sorted(sequences(packs), key=lambda part: part["input_ids"])
    assert [token for part in found for token in part["input_ids"]] == [t for row in rows for t in row["input_ids"]]
    for part in found:
        assert {token // 1000 - 1 for token in part["input_ids"]} == {part["id"]}
        assert part["labels"] == [-100, *(label_of[token] for token in part["input_ids"][1:])]
    assert len(found) > len(rows)
    assert manifest.splits["train"].fill_rate > 0.9
    check_account(manifest, {"train": packs})


def pack_lengths(pack: Row) -> list[int]:
    lengths: list[int] = pack["seq_lengths"]
    return lengths


def test_bytes_do_not_depend_on_the_size_of_units_or_the_number_of_workers(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized(some_lengths(400, 50)))
    data = dataset(source, split=SplitConfig(train=0.8, validation=0.1))
    options: dict[str, Any] = {"packing": "bfd", "pack_length": 64, "num_dataset_shards": 3}
    one = preprocess(tmp_path / "one", data, **options)
    two = preprocess(tmp_path / "two", data, num_workers=2, unit_size=4096, **options)
    assert two.units > one.units == 1
    assert one.splits == two.splits
    assert len(shard_bytes(tmp_path / "one")) == 4
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")


def test_rows_that_a_mix_repeats_are_packed_as_often(tmp_path: Path) -> None:
    few, many = tokenized([5] * 4), tokenized([7] * 60, first=100)
    manifest = preprocess(
        tmp_path / "out",
        dataset(write_jsonl(tmp_path / "few.jsonl", few), name="few", sampling=0.5),
        dataset(write_jsonl(tmp_path / "many.jsonl", many), name="many", sampling=0.5),
        packing="bfd",
        pack_length=20,
    )
    packs = written(tmp_path / "out")
    counts = Counter(tuple(row["input_ids"]) for row in sequences(packs))
    assert len(counts) == 64
    assert sum(counts.values()) == manifest.rows_written
    assert manifest.rows_repeated == sum(counts.values()) - 64 > 20
    check_account(manifest, {"train": packs})


def test_an_attention_mask_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("sftkit"), "propagate", True)
    rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in tokenized([4, 5, 6])]
    data = dataset(write_jsonl(tmp_path / "in.jsonl", rows), retain_columns=("input_ids", "labels", "attention_mask"))
    assert preprocess(tmp_path / "rows", data).columns == ("input_ids", "labels", "attention_mask")
    manifest = preprocess(tmp_path / "packs", data, packing="bfd", pack_length=10)
    assert caplog.messages == ["packs have no attention_mask; seq_lengths tells where sequences begin"]
    assert manifest.columns == ("input_ids", "labels", "seq_lengths")


# --- Rows that are too long ---------------------------------------------------------------------------

LONG = [
    *tokenized([10, 12, 9]),
    {"input_ids": list(range(20)), "labels": [0] + [-100] * 9 + list(range(10, 20))},  # trains nothing in its first 10
    *tokenized([11], first=9),
]


@pytest.mark.parametrize("unit_size", [200, 1 << 20])
@pytest.mark.parametrize(
    ("overflow", "kept", "dropped"),
    [
        ("truncate", [0, 1, 2, 4], {"cut at 10 tokens before the first answer": 1}),
        ("drop", [0, 2], {"longer than pack_length=10": 3}),
    ],
)
def test_longer_rows_are_cut_or_dropped_and_counted(
    tmp_path: Path, overflow: str, kept: list[int], dropped: dict[str, int], unit_size: int
) -> None:
    files = [write_jsonl(tmp_path / f"{name}.jsonl", rows) for name, rows in (("a", LONG[:3]), ("b", LONG[3:]))]
    options: dict[str, Any] = {"overflow": overflow, "unit_size": unit_size, "packing": "bfd", "pack_length": 10}
    if overflow == "drop":
        files = [write_jsonl(tmp_path / "all.jsonl", LONG)]  # b alone would have no rows left
    manifest = preprocess(tmp_path / "out", *(dataset(file, name=file.stem) for file in files), **options)
    packs = written(tmp_path / "out")
    expected = [{name: ids[:10] for name, ids in LONG[at].items()} for at in kept]
    assert by_ids(sequences(packs)) == by_ids([unpredicted(row) for row in expected])
    assert manifest.dropped == dropped
    assert manifest.sources[-1].dropped == dropped
    check_account(manifest, {"train": packs})


def test_longer_rows_are_quarantined_with_their_source(tmp_path: Path) -> None:
    pairs = [{"input": "cat " * size, "output": "yes"} for size in (1, 40, 2, 60)]
    source = write_jsonl(tmp_path / "in.jsonl", [*pairs, "no row"])
    data = dataset(
        source,
        data_handlers=[
            handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
        ],
    )
    options: dict[str, Any] = {"packing": "bfd", "pack_length": 30, "overflow": "error", "unit_size": 100}
    options["model_name_or_path"] = "sample:model"
    with pytest.raises(DataError, match=r"(?s)^3 rows cannot be used, more than max_bad_rows=2:.*in\.jsonl:2: "):
        preprocess(tmp_path / "out", data, max_bad_rows=2, **options)
    manifest = preprocess(tmp_path / "out", data, max_bad_rows=3, **options)
    entries = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [(entry["path"], entry["row"]) for entry in entries] == [(str(source), row) for row in (2, 4, 5)]
    assert [json.loads(entry["content"]) for entry in entries[:2]] == [pairs[1], pairs[3]]
    assert all(" tokens, more than pack_length=30" in entry["reason"] for entry in entries[:2])
    assert (manifest.quarantined, manifest.rows_written) == (3, 2)
    check_account(manifest, {"train": written(tmp_path / "out")})


def test_an_error_says_why_no_row_fits(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized([30, 40]))
    with pytest.raises(DataError, match=r"no rows left of 2 read: 2 dropped \(longer than pack_length=10\)"):
        preprocess(tmp_path / "out", dataset(source), packing="bfd", pack_length=10, overflow="drop")


# --- Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"packing": "bfd"}, "packing=bfd needs a length; set pack_length or max_seq_length"),
        ({"packing": "wrapped"}, "packing=wrapped needs a length; set pack_length or max_seq_length"),
        ({"pack_length": 5}, "pack_length is given without packing; set packing=bfd or packing=wrapped"),
        ({"pack_window": 5}, "pack_window is given without packing; set packing=bfd"),
        ({"packing": "bfd", "pack_length": 0}, "pack_length must be 1 or more, not 0"),
        ({"pad_pack_to_multiple_of": 8}, "pad_pack_to_multiple_of is given without packing; set packing=bfd"),
        (
            {"packing": "bfd", "pack_length": 100, "pad_pack_to_multiple_of": 64},
            "a full pack of 100 tokens is no multiple of pad_pack_to_multiple_of=64; set pack_length=128",
        ),
    ],
)
def test_packing_without_a_length_and_a_length_without_packing_are_errors(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(PreprocessConfig(output_dir="o", training_data_path=("nowhere",), **options))
    assert caught.value.problems == (sentence,)


def test_max_seq_length_is_the_default_of_pack_length(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized([6, 6, 12]))
    manifest = preprocess(tmp_path / "out", dataset(source), packing="bfd", max_seq_length=10)
    split = manifest.splits["train"]
    assert (split.rows, split.pack_length, split.sequences, split.tokens, split.fill_rate) == (3, 10, 3, 22, 0.7333)


def test_text_cannot_be_packed(tmp_path: Path) -> None:
    data = dataset(write_jsonl(tmp_path / "in.jsonl", [{"text": "some words"}]))
    with pytest.raises(DataError, match=r"rows are text \('text'\), which cannot be packed; set response_template, or"):
        preprocess(tmp_path / "out", data, packing="wrapped", pack_length=8)


def test_packs_cannot_be_processed_again(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized([5, 6, 7]))
    preprocess(tmp_path / "packs", dataset(source), packing="bfd", pack_length=12)
    for options in ({}, {"packing": "bfd", "pack_length": 20}):
        with pytest.raises(DataError, match=r"its rows are packs \(they have seq_lengths\), which cannot be"):
            preprocess(tmp_path / "out", dataset(tmp_path / "packs"), **options)


def test_fewer_packs_than_shards_is_an_error(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized([5, 6, 7]))
    with pytest.raises(DataError, match="2 packs cannot fill 3 shards; use at most 2"):
        preprocess(tmp_path / "out", dataset(source), packing="bfd", pack_length=12, num_dataset_shards=3)


# --- Reports ------------------------------------------------------------------------------------------


def test_plan_result_and_card_show_packs(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized([5, 6, 7, 9]))
    options: dict[str, Any] = {"packing": "bfd", "pack_length": 12}
    planned = plan(PreprocessConfig(output_dir=str(tmp_path / "out"), datasets=(dataset(source),), **options))
    manifest = preprocess(tmp_path / "out", dataset(source), **options)
    screen = io.StringIO()
    print_plan(planned, Console(file=screen, width=200))
    assert "packing: bfd, at most 12 tokens per pack" in screen.getvalue()
    print_result(manifest, "out", Console(file=screen, width=200))
    assert "train: 3 packs of 12 tokens, 75.0% full, 4 sequences (1.3 per pack)" in screen.getvalue()
    assert "at 8 packs of 12 tokens a step: 1 step an epoch" in screen.getvalue()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| train | 1 | 3 packs of 12, 75.0% full, with 4 sequences | 27 |" in card


def test_packing_changes_the_fingerprint(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized([5, 6, 7]))

    def fingerprint(**options: Any) -> str:
        return plan(PreprocessConfig(output_dir="o", datasets=(dataset(source),), **options)).fingerprint

    plain = fingerprint()
    assert fingerprint(packing="none") == plain
    made = [fingerprint(packing=kind, pack_length=size) for kind in ("bfd", "wrapped") for size in (8, 9)]
    assert len({plain, *made}) == 5


def test_a_preview_shows_rows_before_they_are_packed(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized([5, 6, 7]))
    config = InspectConfig(datasets=(dataset(source),), packing="bfd", pack_length=20)
    (tmp_path / "scratch").mkdir()
    shards = preview_shards(config, tmp_path / "scratch")
    assert "before they are packed" in shards.name
    assert written(tmp_path / "scratch") == tokenized([5, 6, 7])


# --- For `train` --------------------------------------------------------------------------------------


def training(tmp_path: Path, source: Path, **options: Any) -> TrainConfig:
    return TrainConfig(
        output_dir=str(tmp_path / "trained"),
        cache_dir=str(tmp_path / "cache"),
        training_data_path=(str(source),),
        num_workers=1,
        **options,
    )


def test_train_packs_rows_that_are_not_packed_into_its_cache(tmp_path: Path) -> None:
    rows = tokenized(some_lengths(40, 20))
    preprocess(
        tmp_path / "shards",
        dataset(write_jsonl(tmp_path / "in.jsonl", rows), split=SplitConfig(validation=0.2)),
        model_name_or_path="sample:model",
        max_bad_rows=100,
    )
    there = open_shards(str(tmp_path / "shards"))
    assert there.manifest is not None
    plain = find_or_build_shards(training(tmp_path, tmp_path / "shards"), SilentProgress())
    assert plain == there
    packs = find_or_build_shards(
        training(tmp_path, tmp_path / "shards", packing="bfd", pack_length=32), SilentProgress()
    )
    assert packs.root.parent == tmp_path / "cache"
    assert packs.manifest is not None
    assert packs.manifest.tokenizer == there.manifest.tokenizer, "the tokens are still those of their own tokenizer"
    for split in ("train", "validation"):
        made = sequences(written(packs.root, split))
        assert by_ids(made) == by_ids([unpredicted(row) for row in written(tmp_path / "shards", split)])
    again = find_or_build_shards(
        training(tmp_path, tmp_path / "shards", packing="bfd", pack_length=32), SilentProgress()
    )
    assert again.root == packs.root


def test_train_uses_packs_and_refuses_to_pack_them_again(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", tokenized([5, 6, 7]))
    preprocess(tmp_path / "packs", dataset(source), packing="bfd", pack_length=12)
    there = open_shards(str(tmp_path / "packs"))
    for options in ({}, {"max_seq_length": 99}, {"packing": "bfd", "pack_length": 12}):
        assert find_or_build_shards(training(tmp_path, tmp_path / "packs", **options), SilentProgress()) == there
    for kind, size in (("bfd", 13), ("wrapped", 12)):
        config = training(tmp_path, tmp_path / "packs", packing=kind, pack_length=size)
        with pytest.raises(
            ConfigError, match=r"packed already \(packing=bfd, pack_length=12\) and cannot be packed again"
        ):
            find_or_build_shards(config, SilentProgress())


def test_train_concatenates_text_for_continued_pretraining(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": f"number {i} is {i}"} for i in range(30)])
    options: dict[str, Any] = {"packing": "wrapped", "max_seq_length": 64, "model_name_or_path": "sample:model"}
    shards = find_or_build_shards(training(tmp_path, source, **options), SilentProgress())
    assert shards.manifest is not None
    packs = written(shards.root)
    assert sorted(len(pack["input_ids"]) for pack in packs)[1:] == [64] * (len(packs) - 1)
    assert all(part["labels"][1:] == part["input_ids"][1:] for part in sequences(packs))
    check_account(shards.manifest, {"train": packs})


def test_train_reports_packing_without_a_length_before_it_reads_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set pack_length or max_seq_length"):
        check_training_data(training(tmp_path, tmp_path / "nowhere", packing="bfd"))


# --- Packs for several processes ----------------------------------------------------------------------


def test_padding_is_a_last_sequence_without_a_loss_that_readers_leave_out(tmp_path: Path) -> None:
    rows = [{**row, "id": number} for number, row in enumerate(tokenized(some_lengths(90, 40)))]
    data = dataset(write_jsonl(tmp_path / "in.jsonl", rows), retain_columns=("id",))
    options: dict[str, Any] = {"packing": "bfd", "pack_length": 48, "source_column": True}
    plain = preprocess(tmp_path / "plain", data, **options)
    padded = preprocess(tmp_path / "padded", data, pad_pack_to_multiple_of=16, **options)
    preprocess(tmp_path / "more", data, pad_pack_to_multiple_of=16, num_workers=2, unit_size=4096, **options)
    assert shard_bytes(tmp_path / "padded") == shard_bytes(tmp_path / "more")
    total = 0
    for pack, before in zip(written(tmp_path / "padded"), written(tmp_path / "plain"), strict=True):
        padding = pack.pop("padding")
        assert padding == -len(before["input_ids"]) % 16
        total += padding
        if padding:
            assert [pack.pop(name)[-padding:] for name in ("input_ids", "labels")] == [[0] * padding, [-100] * padding]
            assert [pack.pop(name)[-1] for name in ("seq_lengths", "id", "source")] == [padding, None, None]
        assert pack.items() <= before.items()
    assert total > 16
    split = padded.splits["train"]
    assert split.padding_tokens == total
    assert replace(split, padding_tokens=None, shards=()) == replace(plain.splits["train"], shards=())
    assert verify(InspectConfig(directory=str(tmp_path / "padded"))).differences == ()
    compared = compare_datasets(
        InspectConfig(directory=str(tmp_path / "plain"), compare=str(tmp_path / "padded"), compare_by="id")
    )
    assert not compared.differs, compared
    sides = [
        open_split(open_shards(str(tmp_path / name)), "train", 100_000, None, 1 << 20) for name in ("plain", "padded")
    ]
    groups = [side.group(0) for side in sides]
    for column in ("input_ids", "labels"):
        first, second = (getattr(group, column) for group in groups)
        assert np.array_equal(first.values, second.values)
        assert np.array_equal(first.offsets, second.offsets)
    assert sides[1].counts.without_loss == 0


@pytest.mark.parametrize("packing", ["bfd", "next_fit", "wrapped"])
def test_packs_are_divided_until_their_number_is_a_multiple(tmp_path: Path, packing: str) -> None:
    rows = tokenized(some_lengths(60, 30))
    source = dataset(write_jsonl(tmp_path / "in.jsonl", rows), split=SplitConfig(validation=0.2))
    options: dict[str, Any] = {"packing": packing, "pack_length": 64}
    plain = preprocess(tmp_path / "plain", source, **options)
    manifest = preprocess(tmp_path / "out", source, pack_count_multiple_of=9, **options)
    packs = {split: written(tmp_path / "out", split) for split in ("train", "validation")}
    for split, found in packs.items():
        assert len(found) == -(-plain.splits[split].rows // 9) * 9 > plain.splits[split].rows
        assert by_ids(sequences(found)) == by_ids(sequences(written(tmp_path / "plain", split)))
    check_account(manifest, packs)
    with pytest.raises(
        DataError, match=r"pack_count_multiple_of=90: \d+ sequences cannot fill 90 packs; set pack_count"
    ):
        preprocess(tmp_path / "many", source, pack_count_multiple_of=90, **options)
