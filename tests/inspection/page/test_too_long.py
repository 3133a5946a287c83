"""Rows that were removed for their length are in the manifest, and in the picture of lengths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftkit.inspection.page.too_long import TooLongRows, too_long_rows
from sftkit.shards.manifest import length_histogram, read_manifest
from support import dataset, preprocess, write_jsonl

from .conftest import write_report

LENGTHS = (5, 7, 9, 12, 33, 40, 100, 3, 8)
LONG = {"8": 2, "32": 2, "64": 1}
"""Those of more than 8 tokens, as `length_histogram`."""


def source_of(folder: Path) -> Path:
    rows = [{"input_ids": list(range(length)), "labels": list(range(length))} for length in LENGTHS]
    return write_jsonl(folder / "in.jsonl", rows)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_seq_length": 8, "overflow": "drop"}, LONG),
        ({"max_seq_length": 8, "overflow": "error", "max_bad_rows": 0.9}, LONG),
        ({"packing": "bfd", "pack_length": 8, "overflow": "drop"}, LONG),
        ({"packing": "bfd", "pack_length": 8, "overflow": "error", "max_bad_rows": 0.9}, LONG),
        ({"max_seq_length": 8, "overflow": "truncate"}, {}),
        ({}, {}),
    ],
)
def test_the_manifest_has_their_lengths(tmp_path: Path, options: Mapping[str, Any], expected: dict[str, int]) -> None:
    source = source_of(tmp_path)
    common = {"unit_size": 200, "keep_staging": True, **options}
    manifest = preprocess(tmp_path / "out", dataset(source), **common)
    assert manifest.too_long_rows == expected
    assert ("too_long_rows" in json.loads((tmp_path / "out/manifest.json").read_text())) == bool(expected)
    again = preprocess(tmp_path / "out", dataset(source), **common, num_dataset_shards=2, overwrite=True)
    assert again.units_found == again.units  # the staged units have them, too
    assert again.too_long_rows == expected
    found = too_long_rows(manifest)
    assert found == (TooLongRows(5, LONG) if expected else None)


@pytest.fixture
def dropped(tmp_path: Path) -> Path:
    source = source_of(tmp_path)
    preprocess(tmp_path / "out", dataset(source), max_seq_length=8, overflow="drop")
    return tmp_path / "out"


def test_the_picture_of_lengths_has_them(dropped: Path, tmp_path: Path) -> None:
    _, page = write_report(dropped, tmp_path / "report.html")
    picture = page[page.index("Length of rows, doubling bins") :]
    drawn = picture[: picture.index("equal bins")]
    assert drawn.count('class="removed"') == 1 + len(LONG)  # one in the legend
    assert "32 to 63 tokens: 0 rows (0.0%); 2 removed as too long" in drawn
    equal = picture[picture.index("Length of rows, equal bins") :]
    assert "longer than allowed: 0 rows; 5 removed as too long" in equal[: equal.index("</svg>")]
    assert "5 rows of the sources are longer than max_seq_length or a pack and were dropped or quarantined." in page
    assert "are not known" not in page


def test_a_manifest_without_their_lengths_has_their_number(dropped: Path) -> None:
    manifest = read_manifest(dropped)
    assert manifest is not None
    found = too_long_rows(replace(manifest, too_long_rows={}))
    assert found is not None
    assert (found.rows, found.of_unknown_length) == (5, 5)
    assert too_long_rows(None) is None


def test_the_picture_of_shards_without_long_rows_is_as_before(tmp_path: Path) -> None:
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}]
    preprocess(tmp_path / "out", dataset(write_jsonl(tmp_path / "in.jsonl", rows)), max_seq_length=8)
    _, page = write_report(tmp_path / "out", tmp_path / "report.html")
    assert 'class="removed"' not in page
    assert "removed as too long" not in page


def test_the_histogram_is_that_of_the_summary() -> None:
    assert length_histogram(np.array([length for length in LENGTHS if length > 8])) == LONG
