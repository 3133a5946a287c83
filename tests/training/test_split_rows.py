from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.errors import DataError, SftkitError, TrainingError
from sftkit.shards.reading import open_shards
from sftkit.training.data.rows.open_split import open_split
from sftkit.training.data.rows.row_limits import RowLimit
from sftkit.training.data.rows.split_rows import SplitRows

from .material import write_manifest

Writer = Callable[..., None]
Row = tuple[list[list[int]], list[list[int]]]


def opened(place: Path, limit: RowLimit | None = None, split: str = "train", *, cached: int = 1000) -> SplitRows:
    return open_split(open_shards(str(place)), split, 10, limit, cached)


def rows_of(found: SplitRows) -> list[Row]:
    """Ids and labels of every row, sequence by sequence."""
    rows = []
    for number, place in enumerate(found.locations):
        group = found.group(number)
        for row in range(place.rows):
            ids, labels = group.row(row).input_ids, group.row(row).labels
            rows.append(([ids[i].tolist() for i in range(len(ids))], [labels[i].tolist() for i in range(len(labels))]))
    return rows


def write_packs(path: Path, input_ids: list[list[int]], labels: list[list[int]], lengths: list[list[int]]) -> None:
    pq.write_table(pa.table({"input_ids": input_ids, "labels": labels, "seq_lengths": lengths}), path)


def test_rows_of_all_files_are_read_in_order(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "train-00000-of-00002.parquet", [[1, 2, 3], [4, 5]], [[-100, 2, 3], [-100, 5]])
    write_rows(tmp_path / "train-00001-of-00002.parquet", [[6, 7, 8, 9]], [[-100, -100, 8, 9]])
    found = opened(tmp_path)
    assert (len(found), found.packed) == (3, False)
    assert rows_of(found) == [
        ([[1, 2, 3]], [[-100, 2, 3]]),
        ([[4, 5]], [[-100, 5]]),
        ([[6, 7, 8, 9]], [[-100, -100, 8, 9]]),
    ]
    assert found.group(0).input_ids.values.dtype == np.int32
    assert found.sizes(np.array([[1, 0], [0, 1], [0, 0]])).tolist() == [4, 2, 3]


def test_packs_are_divided_into_their_sequences(tmp_path: Path) -> None:
    write_packs(
        tmp_path / "a.parquet",
        [[1, 2, 3, 4, 5], [6, 7]],
        [[-100, 2, -100, 4, 5], [-100, 7]],
        [[2, 3], [2]],
    )
    found = opened(tmp_path)
    assert found.packed
    assert rows_of(found) == [([[1, 2], [3, 4, 5]], [[-100, 2], [-100, 4, 5]]), ([[6, 7]], [[-100, 7]])]
    assert found.group(0).sizes.tolist() == [5, 2]


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.uint16())])
def test_lists_of_any_integer_type_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    labels = pa.array([[-100, 2]], pa.list_(pa.int64()))
    pq.write_table(pa.table({"input_ids": pa.array([[1, 2]], kind), "labels": labels}), tmp_path / "x.parquet")
    assert rows_of(opened(tmp_path / "x.parquet")) == [([[1, 2]], [[-100, 2]])]


def test_row_groups_are_read_when_needed_and_leave_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [[1, 2, 3, 4]] * 20
    table = pa.table({"input_ids": ids, "labels": ids})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    read: list[int] = []
    original = SplitRows._read
    monkeypatch.setattr(SplitRows, "_read", lambda self, number: read.append(number) or original(self, number))
    found = opened(tmp_path, cached=16)  # two groups of eight tokens; four groups stay in any case
    assert (len(found), read) == (20, [])
    for number in (3, 3, 4, 3):
        found.group(number)
    assert read == [3, 4]
    for number in (5, 6, 7, 3, 4):
        found.group(number)
    assert read == [3, 4, 5, 6, 7, 4]


def test_streaming_reads_a_footer_when_its_file_is_reached(tmp_path: Path, write_rows: Writer) -> None:
    for number in range(3):
        write_rows(tmp_path / f"train-0000{number}.parquet", [[1, 2]] * (number + 1), [[1, 2]] * (number + 1))
    write_manifest(tmp_path, 1, 2, 3)
    found = open_split(open_shards(str(tmp_path)), "train", 10, None, 100, streaming=True)
    assert (len(found), found.file_rows(2), found.locations) == (6, 3, [])
    assert found.groups_of(2) == [0]
    assert (len(found), found.file_rows(2), len(found.locations)) == (6, 3, 1)


def test_streaming_without_a_manifest_reads_all_footers(tmp_path: Path, write_rows: Writer) -> None:
    for number in range(3):
        write_rows(tmp_path / f"train-0000{number}.parquet", [[1, 2]] * (number + 1), [[1, 2]] * (number + 1))
    found = open_split(open_shards(str(tmp_path)), "train", 10, None, 100, streaming=True)
    assert (len(found), [found.file_rows(file) for file in range(3)]) == (6, [1, 2, 3])


def test_a_file_with_another_number_of_rows_than_its_manifest_is_an_error(tmp_path: Path, write_rows: Writer) -> None:
    for number in range(2):
        write_rows(tmp_path / f"train-0000{number}.parquet", [[1, 2]] * 2, [[1, 2]] * 2)
    write_manifest(tmp_path, 2, 3)
    found = open_split(open_shards(str(tmp_path)), "train", 10, None, 100, streaming=True)
    with pytest.raises(DataError, match=r"train-00001\.parquet: holds 2 rows, but the manifest records 3"):
        found.groups_of(1)


def test_fetch_copies_rows_and_keeps_only_needed_row_groups(tmp_path: Path) -> None:
    ids = [[1, 2, 3, 4]] * 20
    pq.write_table(pa.table({"input_ids": ids, "labels": ids}), tmp_path / "a.parquet", row_group_size=2)
    found = opened(tmp_path, cached=16)
    refs = np.array([[number, 1] for number in (5, 0, 1, 2, 3, 4, 9)])
    assert found.fetch(refs, {0, 1, 2, 3, 4}).tolist() == [4] * 7
    cached = [found.group(number) for number in range(5)]
    assert all(found.group(number) is cached[number] for number in range(5))  # whatever their size
    row = found.row(9, 1)
    assert row.input_ids.values.tolist() == [1, 2, 3, 4]
    assert row.input_ids.values.base is None  # a copy, which does not keep its row group in memory
    assert found.row(9, 1) is row
    found.fetch(refs[:1], {4})
    assert found.group(4) is cached[4]
    assert found.group(3) is not cached[3]
    assert found.row(9, 1) is not row


def test_rows_without_a_trained_token_are_left_out_and_counted(
    tmp_path: Path, write_rows: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing predicts the token at position 0, so the second row has no trained token either.
    write_rows(tmp_path / "a.parquet", [[1, 2], [3, 4], [5, 6]], [[-100, 2], [3, -100], [-100, -100]])
    found = opened(tmp_path)
    assert rows_of(found) == [([[1, 2]], [[-100, 2]]), ([], []), ([], [])]
    found.warn_of_skipped_rows()
    assert caplog.messages == [f"{tmp_path} (train): 2 of 3 rows carry no loss and are left out"]


def test_unusable_rows_can_be_skipped_once_they_are_known(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "a.parquet", [[1, 2], [3, 4], [5, 6]], [[-100, -100], [3, 4], [5, 6]])
    found = opened(tmp_path)
    assert len(found) == 3
    found.group(0)
    assert len(found) == 3
    found.skip_unusable_rows()
    assert (len(found), found.usable_rows(0).tolist()) == (2, [1, 2])


def test_a_sequence_without_a_trained_token_is_removed_from_its_pack(tmp_path: Path) -> None:
    write_packs(tmp_path / "a.parquet", [[1, 2, 3, 4]], [[-100, -100, -100, 4]], [[2, 2]])
    assert rows_of(opened(tmp_path)) == [([[3, 4]], [[-100, 4]])]


@pytest.mark.parametrize(("overflow", "second"), [("truncate", ([[4, 5, 6]], [[-100, 5, 6]])), ("drop", ([], []))])
def test_longer_rows_are_truncated_or_dropped(
    tmp_path: Path, write_rows: Writer, overflow: str, second: Row, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(tmp_path / "a.parquet", [[1, 2, 3], [4, 5, 6, 7]], [[-100, 2, 3], [-100, 5, 6, 7]])
    found = opened(tmp_path, RowLimit(3, overflow))
    assert rows_of(found) == [([[1, 2, 3]], [[-100, 2, 3]]), second]
    found.warn_of_skipped_rows()
    done = {"truncate": "truncated", "drop": "left out"}[overflow]
    assert caplog.messages == [f"{tmp_path} (train): 1 of 2 rows are longer than max_seq_length=3 and are {done}"]


def test_the_length_limit_applies_to_the_sequences_of_a_pack(tmp_path: Path) -> None:
    write_packs(tmp_path / "a.parquet", [[1, 2, 3, 4, 5]], [[-100, 2, -100, 4, 5]], [[2, 3]])
    assert rows_of(opened(tmp_path, RowLimit(2, "truncate"))) == [([[1, 2], [3, 4]], [[-100, 2], [-100, 4]])]


def test_longer_rows_can_be_an_error(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "a.parquet", [[1, 2], [1, 2, 3]], [[1, 2], [1, 2, 3]])
    with pytest.raises(DataError, match=r"a\.parquet:2: 3 tokens, more than max_seq_length=2"):
        opened(tmp_path, RowLimit(2, "error")).group(0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "no column input_ids and no column labels (columns: text)"),
        ({"input_ids": [[1]]}, "no column labels (columns: input_ids)"),
        ({"input_ids": [[1, 2], None], "labels": [[1, 2], [1]]}, "a.parquet:2: input_ids is null"),
        ({"input_ids": [[1, 2], [3]], "labels": [[1, 2], [3, 4]]},
         "a.parquet:2: 1 input_ids and 2 labels; there must be as many of each"),
        ({"input_ids": [[1, 2], [3, 12]], "labels": [[1, 2], [3, 1]]},
         "a.parquet:2: token id 12 is not one of the model's 10"),
        ({"input_ids": [[1, -1]], "labels": [[1, 2]]}, "a.parquet:1: token id -1"),
        ({"input_ids": [[1, 2]], "labels": [[-100, 11]]}, "a.parquet:1: token id 11"),
        ({"input_ids": [1], "labels": [[1]]}, "column input_ids must hold lists of token ids, not int64"),
        ({"input_ids": [["a"]], "labels": [[1]]}, "column input_ids must hold lists of token ids"),
        ({"input_ids": [[1, None]], "labels": [[1, 2]]}, "input_ids holds a null"),
        ({"input_ids": [[1, 2], [1, 2]], "labels": [[1, 2], [1, 2]], "seq_lengths": [[2], [1]]},
         "a.parquet:2: seq_lengths must be positive and sum to the tokens of the row; they sum to 1, the row has 2"),
        ({"input_ids": [[1, 2]], "labels": [[1, 2]], "seq_lengths": [[2, 0]]}, "a.parquet:1: seq_lengths"),
    ],
)  # fmt: skip
def test_invalid_rows_are_named(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(SftkitError) as raised:
        opened(tmp_path).group(0)
    assert message in str(raised.value)
    assert isinstance(raised.value, DataError | TrainingError)


def test_an_invalid_row_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    ids = [[1, 2], [3, 4], [5, 6], [7, 99]]
    pq.write_table(pa.table({"input_ids": ids, "labels": [[1, 2]] * 4}), tmp_path / "a.parquet", row_group_size=2)
    with pytest.raises(DataError, match=r"a\.parquet:4: token id 99"):
        opened(tmp_path).group(1)


def test_an_empty_or_missing_split_is_refused(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "a.parquet", [], [])
    with pytest.raises(TrainingError, match="the train split has no rows"):
        opened(tmp_path)
    with pytest.raises(TrainingError, match=r"there is no validation split \(existing splits: train\)"):
        opened(tmp_path, split="validation")


def test_a_truncated_file_is_named(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "train-0.parquet", [[1, 2]], [[1, 2]])
    write_rows(tmp_path / "train-1.parquet", [[1, 2]], [[1, 2]])
    whole = (tmp_path / "train-1.parquet").read_bytes()
    (tmp_path / "train-1.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SftkitError, match=r"train-1\.parquet: cannot be read as Parquet"):
        opened(tmp_path)
