"""What `inspect-shards` makes of the columns `source` and `loss_weights`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import chat_templates as templates
import sftkit
from sftkit.core.progress import SilentProgress
from sftkit.core.rows import Ragged
from sftkit.inspection.compare.comparison import Comparison
from sftkit.inspection.page.row_candidates import CandidateCollector, RowPlace
from sftkit.inspection.verify.verify_shards import verify_shards
from sftkit.shards.manifest import Manifest
from support import dataset, handler, preprocess, write_jsonl, written
from template_zoo.conversations import assistant, user

from .test_report import printed

MASKED_CHAT = handler("tokenize_and_apply_chat_template_with_masking")


@pytest.fixture
def make(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> Callable[..., Manifest]:
    """Makes shards of two data sets, `chat` with weights of messages and `code` with a weight of its own."""

    def make_shards(name: str, *, weight: float | None = 0.5, code: float | None = 2, **options: Any) -> Manifest:
        turn = {**assistant("b"), "weight": weight}
        chats = [{"messages": [user(f"a{n}"), turn, user("c"), assistant("d")]} for n in range(4)]
        first = write_jsonl(tmp_path / "chat.jsonl", chats)
        second = write_jsonl(tmp_path / "code.jsonl", [{"messages": [user(f"x{n}"), assistant("y")]} for n in range(3)])
        return preprocess(
            tmp_path / name,
            dataset(first, name="chat", data_handlers=[MASKED_CHAT]),
            dataset(second, name="code", loss_weight=code, data_handlers=[MASKED_CHAT]),
            processor={"chat_template": templates.CHATML}, model_name_or_path=tokenizer_path("bpe"),
            **{"source_column": True, **options},
        )  # fmt: skip

    return make_shards


def compared(folder: Path, a: str, b: str) -> Comparison:
    return sftkit.inspect_shards(folder / a, compare=folder / b)


def shown(folder: Path, **options: Any) -> str:
    """What the command prints, without colours, with the tokenizer of the manifest."""
    return printed(folder, None, **options)


def test_rows_show_their_source_and_the_weights_of_turns(make: Any, tmp_path: Path) -> None:
    make("out")
    printed = shown(tmp_path / "out", rows=5)
    assert "source chat" in printed
    assert "source code" in printed
    assert "[2] assistant: 9 tokens, 2 trained, weight 0.5" in printed
    assert "[4] assistant: 9 tokens, 2 trained\n" in printed
    assert "2 trained, weight 2" in printed
    rows = json.loads(shown(tmp_path / "out", rows=5, format="json"))["rows"]
    assert [row["sources"] for row in rows] == [["chat"]] * 4 + [["code"]]
    assert {token["weight"] for token in rows[0]["tokens"]} == {None, 0.5, 1.0}


def test_sequences_of_packs_show_their_source(make: Any, tmp_path: Path) -> None:
    make("out", packing="bfd", pack_length=500)
    printed = shown(tmp_path / "out", row=0)
    assert printed.count("trained, source chat") == 4
    assert printed.count("trained, source code") == 3


@pytest.mark.parametrize(
    "options", [{}, {"packing": "bfd", "pack_length": 60}, {"packing": "wrapped", "pack_length": 25}], ids=str
)
def test_verification_counts_sources_and_compares_weights(make: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    manifest = make("out", **options)
    assert not verify_shards(tmp_path / "out", manifest, SilentProgress()).differences
    others = replace(manifest, source_names=("code", "chat"))
    found = verify_shards(tmp_path / "out", others, SilentProgress()).differences
    assert [each.what.split(",")[0].rsplit(" ", 1)[0] for each in found] == [
        "tokens of source code",
        "tokens of source chat",
    ]


def test_verification_finds_weights_without_a_loss(make: Any, tmp_path: Path) -> None:
    manifest = make("out")
    (shard,) = (tmp_path / "out").glob("*.parquet")
    table = pq.read_table(shard)
    weights = table.column("loss_weights").to_pylist()
    weights[0][0] = 1.0
    place = table.column_names.index("loss_weights")
    pq.write_table(table.set_column(place, "loss_weights", pa.array(weights, pa.list_(pa.float32()))), shard)
    info = manifest.splits["train"]
    edited = replace(info.shards[0], bytes=shard.stat().st_size, sha256=hashlib.sha256(shard.read_bytes()).hexdigest())
    changed = replace(manifest, splits={"train": replace(info, shards=(edited,))})
    (found,) = verify_shards(tmp_path / "out", changed, SilentProgress()).differences
    assert "1 tokens whose loss weight does not agree with their label" in found.what


def test_open_shards_gives_both_columns(make: Any, tmp_path: Path) -> None:
    make("rows")
    make("packs", packing="bfd", pack_length=500)
    rows = sftkit.open_shards(tmp_path / "rows")["train"]
    assert [row.source.tolist() for row in rows if row.source is not None] == [[0]] * 4 + [[1]] * 3
    assert [max(row.loss_weights) for row in rows if row.loss_weights is not None] == [1] * 4 + [2] * 3
    (pack,) = sftkit.open_shards(tmp_path / "packs")["train"]
    assert pack.source is not None
    assert pack.loss_weights is not None
    assert sorted(pack.source.tolist()) == [0] * 4 + [1] * 3
    assert len(pack.loss_weights) == len(pack.input_ids)
    make("plain", weight=None, code=None, source_column=False)
    assert all(row.source is row.loss_weights is None for row in sftkit.open_shards(tmp_path / "plain")["train"])


def test_weights_that_differ_are_a_difference_of_labels(make: Any, tmp_path: Path) -> None:
    make("half")
    make("same", packing="bfd", pack_length=60)
    make("quarter", weight=0.25)
    make("plain", weight=None, code=None)
    make("ones", weight=1, code=2)
    same = compared(tmp_path, "half", "same")
    assert not same.differs
    assert compared(tmp_path, "half", "quarter").counts.labels_differ == 4
    plain = compared(tmp_path, "half", "plain")
    assert plain.counts.labels_differ == 7
    assert "loss_weights are only in A: other weights than 1 count as labels that differ" in plain.notes
    assert compared(tmp_path, "plain", "ones").counts.labels_differ == 3


def test_drawn_rows_are_of_all_sources() -> None:
    collector = CandidateCollector(1)
    lengths = np.array([10] * 990 + [2000] * 10)
    sources = Ragged.from_lists([[0]] * 995 + [[1]] * 5)
    collector.add(RowPlace("train", 0, Path("a"), 0, 0), lengths, None, sources)
    drawn = [row.shard_row for row in collector.drawn("train")]
    assert [row >= 995 for row in drawn[:10]] == [False, True] * 5
    assert len(set(drawn)) == len(drawn) == 24 + 5 + 5


def test_drawn_packs_are_of_the_sources_of_their_sequences() -> None:
    collector = CandidateCollector(1)
    sources = Ragged.from_lists([[0, 0]] * 50 + [[0, 0, 7]])
    collector.add(RowPlace("train", 0, Path("a"), 0, 0), np.full(51, 10), None, sources)
    drawn = list(collector.drawn("train"))
    assert (drawn[1].shard_row, drawn[1].sequence) == (50, 2)
    plain = CandidateCollector(1)
    plain.add(RowPlace("train", 0, Path("a"), 0, 0), np.full(51, 10), None)
    assert [row.sequence for row in plain.drawn("train")] == [-1] * 24


def test_a_table_counts_the_column_with_the_share_of_the_loss(make: Any, tmp_path: Path) -> None:
    make("rows")
    make("packs", packing="bfd", pack_length=60)
    lengths = [len(row["input_ids"]) for row in written(tmp_path / "rows")]
    # Each chat trains 2 tokens of the weight 0.5 and 2 of 1, each row of code 2 of 2: 12 of 24 are of either.
    expected = [["chat", "4", str(sum(lengths[:4])), "16", "50.0%"], ["code", "3", str(sum(lengths[4:])), "6", "50.0%"]]
    for name in ("rows", "packs"):
        text = shown(tmp_path / name, rows=0, by="dataset")
        lines = [line.split() for line in text.splitlines()]
        start = lines.index(["train", "sequences", "tokens", "trained", "share", "of", "the", "loss"])
        assert lines[start + 1 : start + 3] == expected
        (tmp_path / name / "manifest.json").unlink()
        assert "number 1" in shown(tmp_path / name, rows=0, by="dataset")
    make("plain", source_column=False)
    assert "share of the loss" not in shown(tmp_path / "plain", rows=0, by="dataset")
