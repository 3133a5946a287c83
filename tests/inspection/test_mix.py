"""What a mix takes of each source, in the manifest and in tables."""

from __future__ import annotations

import io
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sftkit.cli.console.reports.show_preprocess import print_result
from sftkit.cli.console.reports.show_report import print_report
from sftkit.config.commands import InspectConfig
from sftkit.config.schema.data_config import SplitConfig
from sftkit.errors import SourceError
from sftkit.inspection.report import inspect_shards
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import open_shards
from sftkit.shards.source_info import WrittenRows
from support import dataset, handler, preprocess, write_jsonl, written


def mixed(folder: Path, **options: Any) -> Manifest:
    """Mix two data sets; the second one has two small files, which are one work unit."""
    pairs = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")

    def source(name: str, count: int) -> Path:
        rows = [{"input": f"{name} {number}:", "output": "word " * (number % 7 + 1)} for number in range(count)]
        return write_jsonl(folder / f"{name}.jsonl", rows)

    datasets = [
        dataset(
            source("one", 30), name="first", sampling=0.7, split=SplitConfig(validation=0.2), data_handlers=[pairs]
        ),
        dataset(source("two", 8), source("six", 9), name="second", sampling=0.3, data_handlers=[pairs]),
    ]
    return preprocess(
        folder / "out",
        *datasets,
        processor={"sampling_stopping_strategy": "all_exhausted"},
        model_name_or_path="sample:model",
        max_bad_rows=5,
        **options,
    )


def counted(folder: Path, split: str, first_ids: dict[int, str]) -> dict[str, WrittenRows]:
    """Rows and tokens of each source in the shards of a split, recognized by the first token of a row."""
    rows, tokens = Counter[str](), Counter[str]()
    for row in written(folder, split):
        ends = list(accumulate(row.get("seq_lengths") or [len(row["input_ids"])]))
        for start, stop in zip([0, *ends[:-1]], ends, strict=True):
            name = first_ids[row["input_ids"][start]]
            rows[name] += 1
            tokens[name] += stop - start
    return {name: WrittenRows(rows[name], tokens[name]) for name in first_ids.values()}


@pytest.mark.parametrize(
    "options",
    [{}, {"packing": "bfd", "pack_length": 40}, {"packing": "bfd", "pack_length": 9, "overflow": "truncate"}],
)
def test_rows_and_tokens_by_source_are_those_of_the_shards(tmp_path: Path, options: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    from sftkit import sample_path

    manifest = mixed(tmp_path, **options)
    tokenizer = AutoTokenizer.from_pretrained(str(sample_path("sample:model")))
    first_ids = {tokenizer(name)["input_ids"][0]: name for name in ("one", "two", "six")}
    assert len(first_ids) == 3
    for split in ("train", "validation"):
        by_source = {Path(source.path).stem: source.written[split] for source in manifest.sources}
        assert by_source == counted(tmp_path / "out", split, first_ids)
    assert [source.rows_kept for source in manifest.sources] == [30, 8, 9]
    assert manifest.sources[0].written["train"].rows > 24  # the mix repeats rows


def test_tokens_by_source_add_up_where_rows_are_cut(tmp_path: Path) -> None:
    manifest = mixed(tmp_path, packing="wrapped", pack_length=16)
    for name, split in manifest.splits.items():
        assert sum(source.written[name].tokens for source in manifest.sources) == split.tokens


def test_tables_show_the_mix(tmp_path: Path) -> None:
    manifest = mixed(tmp_path)
    stream = io.StringIO()
    console = Console(file=stream, width=200, color_system=None)
    print_result(manifest, "out", console)
    for by, first in (("source", "one.jsonl"), ("dataset", "first")):
        report = inspect_shards(InspectConfig(rows=0, by=by), open_shards(str(tmp_path / "out")))
        print_report(report, InspectConfig(by=by), console)
        assert first in stream.getvalue()
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    train = [source.written["train"] for source in manifest.sources]
    share = f"{train[0].rows / sum(each.rows for each in train):.1%}"
    start = f"first 0.7 30 {manifest.sources[0].tokens_kept} {train[0].rows} ({share})"
    assert sum(line.startswith(start) for line in lines) == 2
    assert sum(line.startswith("dataset weight rows kept tokens kept train rows") for line in lines) == 2


def test_a_table_by_source_needs_a_manifest_with_counts(tmp_path: Path) -> None:
    mixed(tmp_path)
    (tmp_path / "out" / "manifest.json").rename(tmp_path / "elsewhere.json")
    shard = next((tmp_path / "out").glob("train-*.parquet"))
    with pytest.raises(SourceError, match=r"has no manifest: by source needs a data set of `sftkit preprocess`"):
        inspect_shards(InspectConfig(by="source"), open_shards(str(shard)))
