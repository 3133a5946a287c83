"""`sftkit.open_shards`: rows of shards and of any Parquet with `input_ids`, as numpy arrays."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sftkit
from support import written

IDS = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10], [11]]


def write(path: Path, group: int = 2, **columns: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, row_group_size=group)
    return path


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("kind", ["sample_shards", "packed_shards"])
def test_rows_are_those_of_the_files(kind: str, split: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kind)
    rows = sftkit.open_shards(path)[split]
    expected = written(path, split)
    assert len(rows) == len(expected)
    for row, values in zip(rows, expected, strict=True):
        assert row.labels is not None
        assert (row.input_ids.dtype, row.labels.dtype) == (np.int32, np.int32)
        assert (row.input_ids.tolist(), row.labels.tolist()) == (values["input_ids"], values["labels"])
        assert (None if row.seq_lengths is None else row.seq_lengths.tolist()) == values.get("seq_lengths")


def test_shards_are_a_mapping_with_a_manifest(sample_shards: Path) -> None:
    shards = sftkit.open_shards(str(sample_shards))
    assert list(shards) == ["train", "validation"]
    assert "test" not in shards
    assert shards.manifest is not None
    assert shards.manifest.splits["train"].rows == len(shards["train"])
    assert repr(shards) == "Shards(<train: 600 rows>, <validation: 40 rows>)"
    with pytest.raises(KeyError, match="there is no test split; there is: train, validation"):
        shards["test"]


def test_rows_have_indices_slices_and_an_order(tmp_path: Path) -> None:
    rows = sftkit.open_shards(write(tmp_path / "a.parquet", input_ids=IDS))["train"]
    assert [row.input_ids.tolist() for row in rows] == IDS
    assert [row.input_ids.tolist() for row in rows[1:4]] == IDS[1:4]
    assert [row.input_ids.tolist() for row in rows[::-2]] == IDS[::-2]
    assert [row.input_ids.tolist() for row in reversed(rows)] == IDS[::-1]
    assert rows[-1].input_ids.tolist() == rows[np.int64(4)].input_ids.tolist() == IDS[-1]
    for number in (5, -6):
        with pytest.raises(IndexError, match=f"row {number} of 5 rows"):
            rows[number]


def test_several_files_and_row_groups_are_one_split(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"train-{number}.parquet", input_ids=[[10 * number + each] for each in range(5)])
    write(tmp_path / "train-3.parquet", input_ids=pa.array([], pa.list_(pa.int32())))
    rows = sftkit.open_shards(tmp_path)["train"]
    expected = [10 * number + each for number in range(3) for each in range(5)]
    assert [int(rows[place].input_ids[0]) for place in range(len(rows))] == expected


def test_row_groups_are_read_when_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def count(file: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        read.append(group)
        return real(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", count)
    rows = sftkit.open_shards(write(tmp_path / "a.parquet", input_ids=IDS))["train"]
    assert (len(rows), read) == (5, [])
    assert [rows[place].input_ids.tolist() for place in (3, 2, 3)] == [IDS[3], IDS[2], IDS[3]]
    assert read == [1]


def test_only_the_last_row_groups_stay_in_memory(tmp_path: Path) -> None:
    rows = sftkit.open_shards(write(tmp_path / "a.parquet", group=1, input_ids=[[n] for n in range(50)]))["train"]
    assert [int(row.input_ids[0]) for row in rows] == list(range(50))
    assert len(rows._held) == 8


def test_masks_become_labels_and_rows_without_either_have_none(tmp_path: Path) -> None:
    masked = write(tmp_path / "masked.parquet", input_ids=[[1, 2, 3]], completion_mask=[[0, 1, 1]])
    [row] = sftkit.open_shards(masked)["train"]
    assert row.labels is not None
    assert row.labels.tolist() == [-100, 2, 3]
    [row] = sftkit.open_shards(write(tmp_path / "bare.parquet", input_ids=[[1, 2]]))["train"]
    assert (row.labels, row.seq_lengths) == (None, None)


def test_a_split_goes_to_another_process(sample_shards: Path) -> None:
    rows = sftkit.open_shards(sample_shards)["train"]
    first = rows[0].input_ids.tolist()
    copy = pickle.loads(pickle.dumps(rows))
    assert copy._held == {}
    assert copy[0].input_ids.tolist() == first


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, sftkit.SourceError, "no such directory or file of shards"),
        (lambda path: path.mkdir(), sftkit.SourceError, "no files of shards in this directory"),
        (
            lambda path: path.write_bytes(b"PAR1 nothing"),
            sftkit.DataError,
            r"read as Parquet: .*[^.]; copy the files again$",
        ),
        (lambda path: write(path, text=["a"]), sftkit.SourceError, "has no column 'input_ids'; columns there: text"),
        (lambda path: write(path, input_ids=["a"]), sftkit.SourceError, "must hold lists of integers"),
        (
            lambda path: write(path, input_ids=[[1], [2]], labels=[[1], [2, 3]]),
            sftkit.DataError,
            ":2: labels .* differ",
        ),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, make: Any, error: type, message: str) -> None:
    path = tmp_path / "data"
    make(path)
    with pytest.raises(error, match=message):
        list(sftkit.open_shards(path)["train"])


def test_a_row_that_cannot_be_used_is_named_in_any_file_and_row_group(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", input_ids=IDS, labels=IDS)
    bad = write(tmp_path / "train-1.parquet", input_ids=IDS, labels=[*IDS[:3], [7], *IDS[4:]])
    with pytest.raises(sftkit.DataError, match=f"{bad}:4: labels .* differ"):
        sftkit.open_shards(tmp_path)["train"][8]


def test_damaged_shards_are_found_when_they_are_opened(sample_shards: Path, tmp_path: Path) -> None:
    for file in sample_shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / "train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(sftkit.DataError, match=f"{shard}: has .* it was truncated"):
        sftkit.open_shards(tmp_path)
    shard.unlink()
    with pytest.raises(sftkit.DataError, match="is listed in the manifest but missing"):
        sftkit.open_shards(tmp_path)


def test_files_of_text_and_of_tokens_are_named(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", input_ids=[[1]])
    text = write(tmp_path / "train-1.parquet", text=["a"])
    rows = sftkit.open_shards(tmp_path)["train"]
    assert rows[0].input_ids.tolist() == [1]
    with pytest.raises(sftkit.SourceError, match=f"{text}: has no column 'input_ids'"):
        rows[1]


def test_torch_and_transformers_are_not_imported(sample_shards: Path) -> None:
    code = (
        f"import sys, sftkit; sftkit.open_shards({str(sample_shards)!r})['train'][0]; "
        "print([name for name in ('torch', 'transformers', 'datasets', 'omegaconf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
