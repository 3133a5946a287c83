"""The column `loss_weights` in whole runs: it goes where labels go."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from itertools import accumulate, chain, groupby, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat_templates as templates
from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.core.progress import SilentProgress
from sftkit.core.row_log import RowError
from sftkit.core.rows import Row
from sftkit.errors import ConfigError, DataError
from sftkit.preprocessing.build import find_finished, run
from sftkit.preprocessing.planning import plan
from sftkit.shards.manifest import read_manifest
from sftkit.shards.staging import unit_record
from sftkit.shards.staging.removed_rows import generic_reason
from sftkit.tokenization import conversation_preparer
from support import dataset, examples, handler, preprocess, shard_bytes, write_jsonl, written
from template_zoo.conversations import assistant, user

MASKED_CHAT = handler("tokenize_and_apply_chat_template_with_masking")
WEIGHTS = (0.0, 0.25, 1.0, 3.0)


def weight_of(token: int) -> float:
    """The weight that the rows of these tests give to an id."""
    return WEIGHTS[token % len(WEIGHTS)]


def tokens(first: int, length: int, *, weighted: bool = True, **columns: Any) -> Row:
    """A row of ids that no other row has, trained from its second token on."""
    ids = list(range(first, first + length))
    weights = {"loss_weights": [weight_of(token) for token in ids]} if weighted else {}
    return {"input_ids": ids, "labels": [-100, *ids[1:]], **weights, **columns}


def sequences(row: Row) -> list[slice]:
    ends = list(accumulate(row.get("seq_lengths", [len(row["input_ids"])]), initial=0))
    return [slice(*ends) for ends in pairwise(ends)]


def check(row: Row, factor: float = 1.0, weighted: frozenset[int] | None = None) -> None:
    """Check the weights of a shard's row; `weighted` are the ids of rows that have weights of their own."""
    assert len(row["loss_weights"]) == len(row["labels"]) == len(row["input_ids"])
    for token, label, weight in zip(row["input_ids"], row["labels"], row["loss_weights"], strict=True):
        own = weight_of(token) if weighted is None or token in weighted else 1.0
        assert weight == (0 if label == -100 else own * factor)
        assert label in (-100, token)
        assert weight > 0 or label == -100


def test_given_weights_are_taken_over(tmp_path: Path) -> None:
    rows = [tokens(10, 6), tokens(30, 4, weighted=False)]
    for path in (write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "in.parquet"):
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        manifest = preprocess(tmp_path / "out", dataset(path), overwrite=True)
        first, second = written(tmp_path / "out")
        assert first["input_ids"] == rows[0]["input_ids"]
        assert first["loss_weights"] == [0, 3, 0, 0.25, 1, 3]
        assert first["labels"] == [-100, 11, -100, 13, 14, 15]
        assert second["loss_weights"] == [0, 1, 1, 1]
        assert manifest.columns == ("input_ids", "labels", "loss_weights")
        assert not manifest.sources[0].columns_not_used
        (file,) = (tmp_path / "out").glob("*.parquet")
        assert pq.read_schema(file).field("loss_weights").type == pa.list_(pa.float32())


def test_padding_has_no_weight(tmp_path: Path) -> None:
    row = {"input_ids": [0, 5, 6], "attention_mask": [0, 1, 1], "completion_mask": [0, 0, 1], "loss_weights": [9, 1, 2]}
    preprocess(tmp_path / "out", dataset(write_jsonl(tmp_path / "in.jsonl", [row])))
    assert [(row["input_ids"], row["loss_weights"]) for row in written(tmp_path / "out")] == [([5, 6], [0, 2])]


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ([0, -1, 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, "1", 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, math.nan, 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, 1e39, 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, True, 1], "column 'loss_weights' must be a list of numbers, each 0 or more"),
        (0.5, "column 'loss_weights' must be a list of numbers, each 0 or more"),
        ([0, 1], "input_ids and loss_weights differ in length (3 and 2)"),
        ([], "input_ids and loss_weights differ in length (3 and 0)"),
    ],
)
def test_wrong_weights_make_a_bad_row(tmp_path: Path, weights: object, reason: str) -> None:
    bad = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "loss_weights": weights}
    source = write_jsonl(tmp_path / "in.jsonl", [bad, tokens(10, 4)])
    preprocess(tmp_path / "out", dataset(source), max_bad_rows=1)
    (listed,) = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert json.loads(listed)["reason"] == reason
    assert [row["input_ids"][0] for row in written(tmp_path / "out")] == [10]


def test_a_row_whose_weights_are_0_has_no_trained_token(tmp_path: Path) -> None:
    untrained = {"input_ids": [5, 6], "labels": [-100, 6], "loss_weights": [1, 0]}
    manifest = preprocess(
        tmp_path / "out", dataset(write_jsonl(tmp_path / "in.jsonl", [untrained, tokens(10, 4)])), packing="none"
    )
    assert manifest.dropped == {"no trained token": 1}


def test_weights_that_change_nothing_are_not_written(tmp_path: Path) -> None:
    plain = {"input_ids": [5, 6], "labels": [-100, 6]}
    for name, row, keys in (
        ("without", plain, {}),
        ("ones", {**plain, "loss_weights": [1, 1]}, {}),
        ("null", {**plain, "loss_weights": None}, {}),
        ("config", plain, {"loss_weight": 1}),
    ):
        source = write_jsonl(tmp_path / f"{name}.jsonl", [row, row])
        preprocess(tmp_path / name, dataset(source, **keys))
        assert shard_bytes(tmp_path / name) == shard_bytes(tmp_path / "without")


def test_the_weight_of_a_data_set_needs_no_new_tokens(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", [tokens(10, 6), tokens(30, 4, weighted=False)])
    b = write_jsonl(tmp_path / "b.jsonl", [tokens(50, 5, weighted=False)])
    staging: dict[str, Any] = {"staging_dir": str(tmp_path / "staging"), "overwrite": True}
    prints = set()
    for index, (first, second) in enumerate(((None, None), (0.5, None), (0.5, 2.0), (1.0, 2.0))):
        sets = dataset(a, name="a", loss_weight=first), dataset(b, name="b", loss_weight=second)
        manifest = preprocess(tmp_path / "out", *sets, **staging)
        assert manifest.units_found == (manifest.units if index else 0)
        prints.add(manifest.fingerprint)
        rows = written(tmp_path / "out")
        own = frozenset(range(10, 16))
        for row in rows:
            check(row, (second if row["input_ids"][0] == 50 else first) or 1, own)
    assert len(prints) == 4


@pytest.mark.parametrize("weight", [0, -0.5, math.nan, math.inf, 1e-50, 1e39])
def test_a_data_set_cannot_have_other_weights(tmp_path: Path, weight: float) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [tokens(10, 4)])
    with pytest.raises(ConfigError, match=r"datasets\[0\].loss_weight must be a number above 0, not .*its entry"):
        preprocess(tmp_path / "out", dataset(source, loss_weight=weight))


def test_text_cannot_have_a_weight(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match=r"rows are text \('text'\), which cannot have a loss_weight"):
        preprocess(tmp_path / "out", dataset(source, loss_weight=0.5), dataset_text_field="text")


def test_rows_without_tokens_keep_a_column_of_this_name(tmp_path: Path) -> None:
    row = {"text": "a", "loss_weights": [0.5]}
    source = write_jsonl(tmp_path / "in.jsonl", [row])
    preprocess(tmp_path / "out", dataset(source, retain_columns=("text", "loss_weights")), dataset_text_field="text")
    assert written(tmp_path / "out") == [row]


def test_retaining_the_column_makes_no_difference(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "in.jsonl", [tokens(10, 6, kept=1), {**tokens(30, 4, kept=2), "loss_weights": None}]
    )
    preprocess(tmp_path / "plain", dataset(source, retain_columns=("kept",)))
    preprocess(tmp_path / "named", dataset(source, retain_columns=("kept", "loss_weights")))
    assert shard_bytes(tmp_path / "plain") == shard_bytes(tmp_path / "named")
    assert list(written(tmp_path / "plain")[0]) == ["input_ids", "labels", "loss_weights", "kept"]


def test_workers_write_the_same_bytes(tmp_path: Path) -> None:
    sources = [write_jsonl(tmp_path / f"{n}.jsonl", [tokens(100 * n + 7 * i, 6) for i in range(12)]) for n in (1, 2)]
    sets = [dataset(path, name=path.stem, loss_weight=0.5 * n) for n, path in enumerate(sources, 1)]
    for workers in (1, 2):
        preprocess(
            tmp_path / str(workers), *sets, num_workers=workers, unit_size=300, packing="bfd", pack_length=20,
            source_column=True, num_dataset_shards=2,
        )  # fmt: skip
    assert shard_bytes(tmp_path / "1") == shard_bytes(tmp_path / "2")


ROWS = st.lists(st.tuples(st.integers(2, 14), st.booleans()), min_size=1, max_size=12)
WAYS = st.sampled_from(
    [
        {},
        {"max_seq_length": 5},
        {"max_seq_length": 5, "overflow": "truncate_left"},
        {"packing": "bfd", "pack_length": 16},
        {"packing": "bfd", "pack_length": 6},
        {"packing": "bfd", "pack_length": 6, "overflow": "truncate_left"},
        {"packing": "wrapped", "pack_length": 9},
        {"packing": "bfd_split", "pack_length": 6},
        {"packing": "next_fit", "pack_length": 16},
    ]
)


@settings(max_examples=examples(60), deadline=None)
@given(ROWS, ROWS, WAYS, st.sampled_from([None, 0.5, 2.0]), st.sampled_from([100, 9999]))
def test_weights_and_sources_stay_with_their_tokens(
    first: list[Any], second: list[Any], way: Row, factor: float | None, unit_size: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made, sets, weighted = [], [], set()
        for number, shapes in enumerate((first, second)):
            made.append([tokens(1000 * number + 20 * i, size, weighted=has) for i, (size, has) in enumerate(shapes)])
            made[-1].append(tokens(1000 * number + 900, 5))  # is never dropped
            weighted |= {t for row in made[-1] if "loss_weights" in row for t in row["input_ids"]}
            path = write_jsonl(Path(folder) / f"{number}.jsonl", made[-1])
            sets.append(dataset(path, name=f"set {number}", loss_weight=factor if number else None))
        preprocess(Path(folder) / "out", *sets, source_column=True, unit_size=unit_size, **way)
        manifest = read_manifest(Path(folder) / "out")
        assert manifest is not None
        assert manifest.source_names == ("set 0", "set 1")
        for row in written(Path(folder) / "out"):
            sources = row["source"] if "packing" in way else [row["source"]]
            for part, source in zip(sequences(row), sources, strict=True):
                ids = row["input_ids"][part]
                assert {token // 1000 for token in ids} == {source}
                piece = {name: row[name][part] for name in ("input_ids", "labels", "loss_weights")}
                check(piece, factor or 1 if source else 1, frozenset(weighted))


# --- Weights of messages ----------------------------------------------------------------------------------------------


def talk(*weights: float | None, name: str = "") -> Row:
    turns: list[Row] = []
    for index, weight in enumerate(weights):
        turns += [user(f"{name}question {index}"), {**assistant(f"answer {index}"), "weight": weight}]
    return {"messages": turns}


@pytest.fixture
def chats(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> Callable[..., list[Row]]:
    """Makes shards of conversations, and returns their rows."""

    def make(rows: list[Row], name: str = "out", handlers: Any = (MASKED_CHAT,), **options: Any) -> list[Row]:
        source = write_jsonl(tmp_path / "in.jsonl", rows)
        preprocess(
            tmp_path / name, dataset(source, data_handlers=handlers), processor={"chat_template": templates.CHATML},
            **{"model_name_or_path": tokenizer_path("bpe"), "overwrite": True, **options},
        )  # fmt: skip
        return written(tmp_path / name)

    return make


TALKS = [
    talk(*weights, name=f"{number} ")
    for number, weights in enumerate(3 * [(0.5, None, 3), (None, None), (0, 0.25, 1, 2), (1,), (2,)])
]


def by_answer(rows: list[Row], tokenizer: Any) -> list[list[tuple[str, float]]]:
    """The trained texts and their weights, for each sequence."""
    found = []
    for row in rows:
        for part in sequences(row):
            check_alignment(row)
            pairs = zip(row["loss_weights"][part], row["input_ids"][part], strict=True)
            runs = [(weight, [token for _, token in run]) for weight, run in groupby(pairs, key=lambda pair: pair[0])]
            found.append([(tokenizer.decode(ids), weight) for weight, ids in runs if weight])
    return found


def check_alignment(row: Row) -> None:
    assert [weight > 0 for weight in row["loss_weights"]] == [label != -100 for label in row["labels"]]
    assert len(row["loss_weights"]) == len(row["input_ids"])


def expected_of(rows: list[Row]) -> list[list[tuple[str, float]]]:
    answers = [
        [turn for turn in row["messages"] if turn["role"] == "assistant" and turn["weight"] != 0] for row in rows
    ]
    return [
        [(turn["content"] + "<|im_end|>", 1.0 if turn["weight"] is None else float(turn["weight"])) for turn in row]
        for row in answers
    ]


def test_weights_of_messages_are_in_shards(chats: Any, reference: Any, tmp_path: Path) -> None:
    assert by_answer(chats(TALKS), reference("bpe")) == expected_of(TALKS)
    whole = shard_bytes(tmp_path / "out")
    chats(TALKS, "units", unit_size=300, num_workers=2)
    assert shard_bytes(tmp_path / "units") == whole
    flags = [{"messages": [{**turn, "weight": turn.get("weight") != 0} for turn in row["messages"]]} for row in TALKS]
    plain = chats(flags, "flags")
    assert plain == [{name: row[name] for name in ("input_ids", "labels")} for row in chats(TALKS)]


@pytest.mark.parametrize(
    "options", [{"packing": "bfd", "pack_length": 200}, {"packing": "wrapped", "pack_length": 4000}]
)
def test_packs_have_weights_of_messages(chats: Any, reference: Any, options: Row) -> None:
    found = by_answer(chats(TALKS, **options), reference("bpe"))
    assert sorted(found) == sorted(expected_of(TALKS))


def test_split_conversations_have_weights_of_messages(chats: Any, reference: Any) -> None:
    found = by_answer(chats(TALKS, overflow="split_turns", max_seq_length=30), reference("bpe"))
    assert list(chain(*found)) == list(chain(*expected_of(TALKS)))
    assert len(found) > len(TALKS)


@pytest.mark.parametrize("length", [20, 33])
def test_truncated_conversations_have_weights_of_messages(chats: Any, reference: Any, length: int) -> None:
    whole = {tuple(row["input_ids"][:length]): row["loss_weights"][:length] for row in chats(TALKS)}
    cut = handler("tokenize_and_apply_chat_template_with_masking", max_seq_length=length)
    for options in ({"max_seq_length": length}, {"handlers": (cut,)}):
        for row in chats(TALKS, **options):
            assert row["loss_weights"] == whole[tuple(row["input_ids"])]


def test_weights_of_messages_and_of_a_data_set_are_multiplied(chats: Any, tmp_path: Path, tokenizer_path: Any) -> None:
    rows = chats(TALKS, staging_dir=str(tmp_path / "staging"))
    manifest = preprocess(
        tmp_path / "out", dataset(tmp_path / "in.jsonl", data_handlers=[MASKED_CHAT], loss_weight=0.5),
        processor={"chat_template": templates.CHATML}, model_name_or_path=tokenizer_path("bpe"), overwrite=True,
        staging_dir=str(tmp_path / "staging"),
    )  # fmt: skip
    assert manifest.units_found == manifest.units
    assert written(tmp_path / "out") == [
        {**row, "loss_weights": [weight / 2 for weight in row["loss_weights"]]} for row in rows
    ]


def test_a_weight_that_is_no_number_makes_a_bad_row(chats: Any, tmp_path: Path) -> None:
    bad = {"messages": [user("a"), {**assistant("b"), "weight": -1}]}
    chats([bad, talk(None)], max_bad_rows=1)
    (listed,) = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert json.loads(listed)["reason"] == "'weight' of message 1 must be a number, 0 or more, not -1"


def test_rows_whose_weights_were_refused_are_made_again(
    tmp_path: Path, tokenizer_path: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions quarantined rows with a weight of 0.5. Their staged units and shards are not used again."""
    source = write_jsonl(tmp_path / "in.jsonl", [talk(0.5), talk(None)])
    config = PreprocessConfig(
        datasets=(dataset(source, data_handlers=[MASKED_CHAT]),), model_name_or_path=tokenizer_path("bpe"),
        dataprocessor=ProcessorConfig(chat_template=templates.CHATML), output_dir=str(tmp_path / "out"), max_bad_rows=1,
        staging_dir=str(tmp_path / "staging"), num_workers=1,
    )  # fmt: skip
    reason = "'weight' of message 1 must be 0 or 1, not 0.5"

    def refuse(messages: Any) -> bool:
        if any(turn.get("weight") == 0.5 for turn in messages):
            raise RowError(reason)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(unit_record, "_REVISION", 0)
        patch.setattr(conversation_preparer, "have_weights", refuse)
        manifest = run(plan(config), SilentProgress())
    assert list(manifest.quarantined_by_reason) == [generic_reason(reason)]
    assert find_finished(plan(config)) is None
    assert run(plan(config), SilentProgress()).quarantined == 0
    assert [max(row["loss_weights"]) for row in written(tmp_path / "out")] == [0.5, 1]
    assert find_finished(plan(config)) is not None


def test_units_without_weights_stay_from_earlier_versions(
    chats: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging: dict[str, Any] = {"staging_dir": str(tmp_path / "staging")}
    with monkeypatch.context() as patch:
        patch.setattr(unit_record, "_REVISION", 0)
        chats([talk(None), talk(1)], **staging)
    (unit,) = (tmp_path / "staging").glob("unit-*[0-9a-f].arrow")
    before = unit.stat().st_mtime_ns
    chats([talk(None), talk(1)], "again", **staging)
    assert unit.stat().st_mtime_ns == before
