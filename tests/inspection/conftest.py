"""A byte-level tokenizer with 258 tokens, and small Parquet files with known rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sftkit.shards.manifest import Manifest, ShardInfo, SplitInfo, TokenizerInfo
from sftkit.shards.source_info import SourceInfo

ASK, END = 256, 257
"""Ids of the special tokens `<|ask|>` and `<|end|>`; every other id is one byte."""

Writer = Callable[..., Path]


def byte_ids(text: str) -> list[int]:
    """Return the ids of a text: its UTF-8 bytes."""
    return list(text.encode())


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer without merges: id n is byte n, so a character beyond ASCII is several tokens."""
    from sftkit.tokenization.encoding.fast.byte_level import BYTE_OF_CHARACTER

    vocabulary = dict(BYTE_OF_CHARACTER)
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|ask|>", "<|end|>"])
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def write() -> Writer:
    """Return a function that writes a Parquet file of columns; lists become list<int32> unless a type is given."""

    def write_table(path: Path, kind: pa.DataType | None = None, group: int | None = None, **columns: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            name: pa.array(rows, kind or pa.list_(pa.int32())) if rows and isinstance(rows[0], list) else pa.array(rows)
            for name, rows in columns.items()
        }
        pq.write_table(pa.table(arrays), path, row_group_size=group)
        return path

    return write_table


@pytest.fixture
def shard_dir(tmp_path: Path, write: Writer) -> Path:
    """Two training shards with 3 and 2 rows, and a validation shard with 1; row n asks "nn?" and answers "yes n"."""
    rows = [[ASK, *byte_ids(f"{n}{n}?"), *byte_ids(f"yes {n}"), END] for n in range(6)]
    labels = [[-100] * 4 + row[4:] for row in rows]
    folder = tmp_path / "shards"
    write(folder / "train-00000-of-00002.parquet", input_ids=rows[:3], labels=labels[:3], group=2)
    write(folder / "train-00001-of-00002.parquet", input_ids=rows[3:5], labels=labels[3:5])
    write(folder / "validation-00000-of-00001.parquet", input_ids=rows[5:], labels=labels[5:])
    return folder


def manifest_for(
    files: Mapping[str, Sequence[tuple[str, int, int, int]]], tokenizer: str, fingerprint: str
) -> Manifest:
    """Return a manifest whose shards are given as (file, rows, tokens, trained tokens)."""
    splits = {
        split: SplitInfo(
            rows=sum(shard[1] for shard in shards),
            tokens=sum(shard[2] for shard in shards),
            trained_tokens=sum(shard[3] for shard in shards),
            length_min=10,
            length_max=10,
            length_histogram={},
            shards=tuple(ShardInfo(name, rows, tokens, trained, 0, "") for name, rows, tokens, trained in shards),
        )
        for split, shards in files.items()
    }
    return Manifest(
        columns=("input_ids", "labels"),
        text_column=None,
        splits=splits,
        sources=(SourceInfo("a", "/data/a.jsonl", 10, "", 9, 6, {"no trained token": 2}, 1),),
        rows_read=9,
        rows_written=6,
        rows_left_out=0,
        rows_repeated=0,
        dropped={"no trained token": 2},
        quarantined=1,
        tokenizer=TokenizerInfo(tokenizer, 258, "<|end|>", fingerprint, None),
        engine={"encoder": "tokenizers", "renderer": "jinja2"},
        fingerprint="f",
        config={},
        versions={"sftkit": "0"},
    )
