"""The column `token_kinds` in whole runs: it goes where labels go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import chat_templates as templates
from sftkit.config.commands import InspectConfig
from sftkit.config.schema.data_config import SplitConfig
from sftkit.core.rows import Row
from sftkit.core.token_kinds import KIND_NUMBERS
from sftkit.errors import DataError
from sftkit.preprocessing.preview import preview_shards
from sftkit.shards.manifest import Manifest, read_manifest
from sftkit.shards.reading import open_shards
from support import dataset, handler, preprocess, shard_bytes, write_jsonl, written
from template_zoo.conversations import assistant, user

Locate = Callable[[str], str]

MASKED_CHAT = handler("tokenize_and_apply_chat_template_with_masking")
PAIRS = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
NAMES = {number: name for name, number in KIND_NUMBERS.items()}

CALL: Row = {"type": "function", "function": {"name": "add", "arguments": {}}}


def chat(n: int) -> list[Row]:
    thought = assistant(f"<think>{'hm ' * n}</think>a{n}")
    return [user(f"q{n}"), thought, user("b"), assistant("c", tool_calls=[CALL])]


CHATS: list[Row] = [{"messages": chat(n)} for n in range(12)]


@pytest.fixture
def make(tmp_path: Path, tokenizer_path: Locate) -> Callable[..., Manifest]:
    """Runs some rows with `token_kinds`; the shards are in `out`."""

    def make_shards(rows: list[Row], *handlers: Any, template: str | None = None, **options: Any) -> Manifest:
        keys = options.pop("keys", {})
        source = write_jsonl(tmp_path / "in.jsonl", rows)
        processor = {} if template is None else {"chat_template": template}
        return preprocess(
            tmp_path / options.pop("out", "out"), dataset(source, data_handlers=handlers, **keys), processor=processor,
            **{"model_name_or_path": tokenizer_path("bpe"), "token_kinds": True, "overwrite": True, **options},
        )  # fmt: skip

    return make_shards


def runs(row: Row, tokenizer: Any) -> list[tuple[str, str]]:
    """The text and the kind of each run of trained tokens of one kind."""
    assert len(row["token_kinds"]) == len(row["input_ids"])
    assert [kind == 0 for kind in row["token_kinds"]] == [label == -100 for label in row["labels"]]
    pairs = zip(row["token_kinds"], row["input_ids"], strict=True)
    grouped = groupby(pairs, key=lambda pair: pair[0])
    return [(tokenizer.decode([token for _, token in group]), NAMES[kind]) for kind, group in grouped if kind]


def expected(n: int) -> list[tuple[str, str]]:
    return [
        (f"<think>{'hm ' * n}</think>", "reasoning"),
        (f"a{n}", "content"),
        ("<|im_end|>", "stop"),
        ("c", "content"),
        ('<tool_call>{"type": "function", "function": {"name": "add", "arguments": {}}}</tool_call>', "tool_call"),
        ("<|im_end|>", "stop"),
    ]


def test_conversations_have_kinds_that_shards_and_manifest_name(
    tmp_path: Path, make: Any, reference: Callable[[str], Any]
) -> None:
    chats = [{**row, "id": [number]} for number, row in enumerate(CHATS)]
    keep = handler("duplicate_columns", old_column="id", new_column="kept")
    manifest = make(chats, MASKED_CHAT, keep, template=templates.TOOLS, keys={"retain_columns": ("kept",)})
    rows = written(tmp_path / "out")
    assert [runs(row, reference("bpe")) for row in rows] == [expected(*row["kept"]) for row in rows]
    assert manifest.columns == ("input_ids", "labels", "token_kinds", "kept")
    numbers = {"untrained": 0, "content": 1, "reasoning": 2, "tool_call": 3, "stop": 4}
    stored = read_manifest(tmp_path / "out")
    assert stored is not None
    assert stored.token_kinds == manifest.token_kinds == numbers
    (file,) = (tmp_path / "out").glob("*.parquet")
    schema = pq.read_schema(file)
    assert schema.field("token_kinds").type == pa.list_(pa.int8())
    assert json.loads(schema.metadata[b"sftkit.token_kinds"]) == numbers


def test_without_the_key_nothing_changes(tmp_path: Path, make: Any) -> None:
    with_kinds = make(CHATS, MASKED_CHAT, template=templates.TOOLS)
    without = make(CHATS, MASKED_CHAT, template=templates.TOOLS, token_kinds=False, out="plain")
    assert "token_kinds" not in json.loads(without.to_json())
    assert without.fingerprint != with_kinds.fingerprint
    assert without.columns == ("input_ids", "labels")
    plain = [{name: row[name] for name in ("input_ids", "labels")} for row in written(tmp_path / "out")]
    assert written(tmp_path / "plain") == plain


def sequences(packs: list[Row]) -> Iterator[tuple[list[int], list[int]]]:
    """The ids and the kinds of each sequence of some packs."""
    for pack in packs:
        ends = list(accumulate(pack["seq_lengths"], initial=0))
        assert [kind == 0 for kind in pack["token_kinds"]] == [label == -100 for label in pack["labels"]]
        yield from ((pack["input_ids"][a:b], pack["token_kinds"][a:b]) for a, b in pairwise(ends))


@pytest.mark.parametrize(("packing", "length"), [("bfd", 120), ("bfd", 40), ("wrapped", 50)])
def test_packs_have_the_kinds_of_their_sequences(tmp_path: Path, make: Any, packing: str, length: int) -> None:
    make(CHATS, MASKED_CHAT, template=templates.TOOLS, out="rows")
    make(CHATS, MASKED_CHAT, template=templates.TOOLS, packing=packing, pack_length=length)
    rows = [(row["input_ids"], row["token_kinds"]) for row in written(tmp_path / "rows")]
    for ids, kinds in sequences(written(tmp_path / "out")):
        places = [(row, at) for row, (whole, _) in enumerate(rows) for at in range(len(whole))]
        matching = [(row, at) for row, at in places if rows[row][0][at : at + len(ids)] == ids]
        assert [0, *kinds[1:]] == kinds
        assert kinds[1:] in [rows[row][1][at + 1 : at + len(ids)] for row, at in matching]


def test_kinds_are_truncated_with_their_rows(tmp_path: Path, make: Any, reference: Callable[[str], Any]) -> None:
    make(CHATS, MASKED_CHAT, template=templates.TOOLS, out="rows")
    cut = handler("tokenize_and_apply_chat_template_with_masking", max_seq_length=22)
    for handlers, options in (((MASKED_CHAT,), {"max_seq_length": 22}), ((cut,), {})):
        make(CHATS, *handlers, template=templates.TOOLS, **options)
        whole = {tuple(row["input_ids"][:22]): row["token_kinds"][:22] for row in written(tmp_path / "rows")}
        assert {tuple(row["input_ids"]): row["token_kinds"] for row in written(tmp_path / "out")} == whole


def test_splits_and_validation_files_have_kinds(tmp_path: Path, make: Any) -> None:
    make(CHATS, MASKED_CHAT, template=templates.TOOLS, keys={"split": SplitConfig(train=0.5, validation=0.5)})
    for split in ("train", "validation"):
        rows = written(tmp_path / "out", split)
        assert len(rows) == 6
        assert all({1, 2, 3, 4} < set(row["token_kinds"]) for row in rows)


def test_staged_units_are_used_again(tmp_path: Path, make: Any) -> None:
    staging: dict[str, Any] = {"staging_dir": str(tmp_path / "staging"), "template": templates.TOOLS, "unit_size": 500}
    first = make(CHATS, MASKED_CHAT, **staging)
    again = make(CHATS, MASKED_CHAT, **staging, out="again")
    assert (first.units_found, again.units_found) == (0, first.units)
    assert first.units > 1
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "again")
    assert make(CHATS, MASKED_CHAT, **staging, token_kinds=False, out="plain").units_found == 0


@pytest.mark.parametrize("compat", ["none", "fms"])
def test_pairs_have_content_and_stop(tmp_path: Path, make: Any, reference: Callable[[str], Any], compat: str) -> None:
    make([{"input": "Label: ", "output": "positive"}, {"input": "x", "output": "y z"}], PAIRS, compat=compat)
    found = [runs(row, reference("bpe")) for row in written(tmp_path / "out")]
    assert [[kind for _, kind in row] for row in found] == [["content", "stop"]] * 2
    assert [row[-1][0] for row in found] == [reference("bpe").eos_token] * 2
    make([{"input": "x", "output": "y z"}], handler("tokenize_and_apply_input_masking", input_field_name="input",
         output_field_name="output", add_eos_token=False))  # fmt: skip
    assert [runs(row, reference("bpe")) for row in written(tmp_path / "out")] == [[(" y z", "content")]]


@pytest.mark.parametrize(
    ("options", "trained"), [({"train_on": "all"}, "Q: a A: b"), ({"response_template": "A:"}, " b")]
)
def test_texts_have_content_and_stop(
    tmp_path: Path, make: Any, reference: Callable[[str], Any], options: Row, trained: str
) -> None:
    eos = reference("bpe").eos_token
    make([{"text": f"Q: a A: b{eos}"}], dataset_text_field="text", **options)
    assert [runs(row, reference("bpe")) for row in written(tmp_path / "out")] == [[(trained, "content"), (eos, "stop")]]


def tokenized(**columns: list[int]) -> Row:
    return {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, 8], **columns}


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        (tokenized(), [0, 1, 1, 1]),
        (tokenized(token_kinds=[0, 2, 3, 4]), [0, 2, 3, 4]),
        (tokenized(token_kinds=[2, 2, 0, 4]), [0, 2, 1, 4]),  # labels decide what is trained
        (tokenized(token_kinds=[0, 2, 3]), [0, 1, 1, 1]),
        (tokenized(token_kinds=[0, 2, 3, 5]), [0, 1, 1, 1]),
        ({"input_ids": [5, 6], "completion_mask": [0, 1]}, [0, 1]),
    ],
)
def test_rows_with_tokens_bring_their_kinds(tmp_path: Path, format_: str, row: Row, kinds: list[int]) -> None:
    source = tmp_path / f"in.{format_}"
    if format_ == "jsonl":
        write_jsonl(source, [row])
    else:
        pq.write_table(pa.Table.from_pylist([row]), source)
    for keys in ({}, {"retain_columns": ("input_ids",)}):
        preprocess(tmp_path / "out", dataset(source, **keys), token_kinds=True, overwrite=True)
        assert [written_row["token_kinds"] for written_row in written(tmp_path / "out")] == [kinds]


def test_stop_tokens_of_rows_with_tokens_are_known_by_id(tmp_path: Path, make: Any, reference: Any) -> None:
    eos = reference("bpe").eos_token_id
    make([{"input_ids": [5, 6, eos, 5, 7], "labels": [-100, 6, eos, -100, 7]}])
    assert written(tmp_path / "out")[0]["token_kinds"] == [0, 1, 4, 0, 1]


def test_kinds_stay_with_labels_in_later_handlers(tmp_path: Path, make: Any) -> None:
    kept = handler("retain_columns", columns=["input_ids", "labels"])
    make(CHATS, MASKED_CHAT, kept, template=templates.TOOLS)
    assert all({0, 1, 2, 3, 4} == set(row["token_kinds"]) for row in written(tmp_path / "out"))


def test_a_retained_column_of_this_name_is_refused(make: Any) -> None:
    with pytest.raises(DataError, match=r"column 'token_kinds' cannot be in the shards.*the kinds of the tokens"):
        make([tokenized(token_kinds=[0, 1, 1, 1])], keys={"retain_columns": ("token_kinds",)})


def test_without_the_key_a_column_of_this_name_is_any_column(tmp_path: Path, make: Any) -> None:
    rows = [tokenized(token_kinds=[9, 9])]
    make(rows, keys={"retain_columns": ("token_kinds",)}, token_kinds=False)
    assert written(tmp_path / "out") == rows


def test_rows_that_stay_text_have_no_kinds(tmp_path: Path, make: Any) -> None:
    make([{"text": "a"}], dataset_text_field="text")
    assert written(tmp_path / "out") == [{"text": "a"}]


def test_a_preview_has_kinds(tmp_path: Path, tokenizer_path: Locate) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"input": "a", "output": "b"}])
    config = InspectConfig(
        datasets=(dataset(source, data_handlers=[PAIRS]),), model_name_or_path=tokenizer_path("bpe"), token_kinds=True
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    preview_shards(config, scratch)
    assert set(written(scratch)[0]["token_kinds"]) == {0, 1, 4}
    assert open_shards(str(scratch)).column_names("train") == ["input_ids", "labels", "token_kinds"]
