from pathlib import Path

import pytest

from sftkit.config.commands import InspectConfig
from sftkit.errors import SourceError, TokenizerError, UsageError
from sftkit.inspection.report import Report, inspect_shards
from sftkit.shards.reading import open_shards

from .conftest import Writer


def look(shard_dir: Path, **options: object) -> Report:
    return inspect_shards(InspectConfig(**options), open_shards(str(shard_dir)))


def locations(report: Report) -> list[tuple[str, int, str, int]]:
    return [(row.split, row.row, row.shard[:11], row.shard_row) for row in report.rows]


def test_first_rows_continue_in_the_next_shard(shard_dir: Path) -> None:
    assert locations(look(shard_dir, rows=4)) == [
        ("train", 0, "train-00000", 0),
        ("train", 1, "train-00000", 1),
        ("train", 2, "train-00000", 2),
        ("train", 3, "train-00001", 0),
    ]
    assert len(look(shard_dir, rows=99).rows) == 5


def test_single_row_is_selected_by_its_number(shard_dir: Path) -> None:
    assert locations(look(shard_dir, row=4)) == [("train", 4, "train-00001", 1)]
    assert locations(look(shard_dir, row=0, split="validation")) == [("validation", 0, "validation-", 0)]


def test_rows_of_a_selected_shard_count_from_its_first(shard_dir: Path) -> None:
    expected = [("train", 4, "train-00001", 1)]
    assert locations(look(shard_dir, shard="1", row=1)) == expected
    assert locations(look(shard_dir, shard="train-00001-of-00002.parquet", row=1)) == expected
    report = look(shard_dir, shard="validation-00000-of-00001")
    assert [split.name for split in report.summary.splits] == ["validation"]
    assert locations(report) == [("validation", 0, "validation-", 0)]


def test_random_rows_are_the_same_for_a_seed_and_cover_the_split(shard_dir: Path) -> None:
    assert locations(look(shard_dir, seed=3, rows=2)) == locations(look(shard_dir, seed=3, rows=2))
    drawn = {look(shard_dir, seed=seed).rows[0].row for seed in range(60)}
    assert drawn == {0, 1, 2, 3, 4}
    assert [row.row for row in look(shard_dir, seed=1, rows=50).rows] == [0, 1, 2, 3, 4]


def test_search_finds_text_across_token_borders_and_special_tokens(shard_dir: Path, tokenizer_dir: Path) -> None:
    def found(wanted: str, **options: object) -> list[int]:
        name = str(tokenizer_dir)
        return [row.row for row in look(shard_dir, tokenizer_name_or_path=name, search=wanted, **options).rows]

    assert found("yes 3<|end|>") == [3]
    assert found("yes", rows=2) == [0, 1]
    assert found("yes", rows=9, row=3) == [3, 4]
    assert found("yes", rows=9, shard="1") == [3, 4]


def test_a_search_looks_through_all_splits_and_says_so(shard_dir: Path, tokenizer_dir: Path) -> None:
    def searched(wanted: str, **options: object) -> tuple[list[tuple[str, int]], str]:
        report = look(shard_dir, tokenizer_name_or_path=str(tokenizer_dir), search=wanted, **options)
        return [(row.split, row.row) for row in report.rows], report.notes[0]

    assert searched("yes 5", rows=2) == (
        [("validation", 0)], "searched train and validation for 'yes 5': 1 row contains it",
    )  # fmt: skip
    everything = [*(("train", row) for row in range(5)), ("validation", 0)]
    assert searched("yes", rows=9) == (everything, "searched train and validation for 'yes': 6 rows contain it")
    assert searched("yes", rows=2) == (
        [("train", 0), ("train", 1)],
        "searched train up to row 1 for 'yes': 2 rows contain it; raise rows to search on (not searched: validation)",
    )
    assert searched("yes", rows=6) == (
        everything, "searched train and validation up to row 0 for 'yes': 6 rows contain it; raise rows to search on",
    )  # fmt: skip
    assert searched("yes", rows=9, row=3) == (
        [("train", 3), ("train", 4)],
        "searched train from row 3 on for 'yes': 2 rows contain it",
    )
    assert searched("yes", rows=9, split="validation") == (
        [("validation", 0)], "searched validation for 'yes': 1 row contains it",
    )  # fmt: skip


def test_search_without_hits_is_noted(shard_dir: Path, tokenizer_dir: Path) -> None:
    report = look(shard_dir, tokenizer_name_or_path=str(tokenizer_dir), search="nowhere")
    assert report.rows == ()
    assert report.notes == ("searched train and validation for 'nowhere': no row contains it",)


def test_a_search_needs_a_tokenizer_unless_rows_are_text(shard_dir: Path, tmp_path: Path, write: Writer) -> None:
    with pytest.raises(TokenizerError, match="search needs the text of the tokens: no manifest names the tokenizer"):
        look(shard_dir, search="yes")
    texts = write(tmp_path / "text.parquet", text=["a", "bc", "cd"])
    assert [row.text for row in look(texts, search="c", rows=5).rows] == ["bc", "cd"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": 5}, "row=5: train has 5 rows, 0 to 4"),
        ({"row": -1}, "row=-1: train has 5 rows, 0 to 4"),
        ({"row": 2, "shard": "1"}, "row=2: train-00001-of-00002.parquet has 2 rows, 0 to 1"),
        ({"split": "test"}, "DIR: has no split 'test'; splits there: train, validation"),
        (
            {"shard": "2"},
            "DIR: has no shard '2' in train; shards 0 to 1: train-00000-of-00002.parquet, train-00001-of-00002.parquet",
        ),
    ],
)
def test_selecting_what_does_not_exist_is_an_error(shard_dir: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError) as error:
        look(shard_dir, **options)
    assert str(error.value) == message.replace("DIR", str(shard_dir))


@pytest.mark.parametrize("other", [{"row": 1}, {"search": "a"}])
def test_seed_excludes_other_selections(shard_dir: Path, other: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"cannot be given together with {next(iter(other))}"):
        look(shard_dir, seed=1, **other)
