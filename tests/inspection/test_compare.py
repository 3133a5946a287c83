"""Comparisons of two data sets, against counts made by brute force over lists and counters."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sftkit.api.inspection import run_inspect
from sftkit.cli.console.reports.show_report import has_failed, print_inspection, report_json
from sftkit.config.commands import InspectConfig
from sftkit.errors import SftkitError
from sftkit.inspection.compare import closer_look, matching
from sftkit.inspection.compare.comparison import Comparison, KindCounts
from sftkit.inspection.compare.pieces import Pieces, match_pieces
from support import dataset, examples, handler, preprocess, write_jsonl

from .conftest import ASK, END, Writer, byte_ids

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids and labels."""


def compare(a: Path, b: Path, **options: Any) -> Comparison:
    found = run_inspect(InspectConfig(directory=str(a), compare=str(b), **options))
    assert isinstance(found, Comparison)
    return found


def page(found: Comparison, **options: Any) -> str:
    stream = io.StringIO()
    print_inspection(found, InspectConfig(**options), Console(file=stream, width=200, color_system=None))
    return stream.getvalue()


def random_rows(count: int, seed: int, length: tuple[int, int] = (30, 60)) -> list[Row]:
    draw = random.Random(seed)
    ids = [tuple(draw.randrange(200) for _ in range(draw.randint(*length))) for _ in range(count)]
    return [(row, (*[-100] * 5, *row[5:])) for row in ids]


def write_rows(write: Writer, path: Path, rows: Sequence[Row], group: int = 7, **columns: Any) -> Path:
    ids, labels = [list(ids) for ids, _ in rows], [list(labels) for _, labels in rows]
    return write(path, input_ids=ids, labels=labels, group=group, **columns)


def write_packs(write: Writer, path: Path, rows: Sequence[Row], per_pack: int = 3, **columns: Any) -> Path:
    """Write rows in packs of a few; `columns` have a value for each row."""
    packs = [rows[at : at + per_pack] for at in range(0, len(rows), per_pack)]
    lists = {name: [v[at : at + per_pack] for at in range(0, len(rows), per_pack)] for name, v in columns.items()}
    joined = [(sum((ids for ids, _ in pack), ()), sum((labels for _, labels in pack), ())) for pack in packs]
    return write_rows(write, path, joined, seq_lengths=[[len(ids) for ids, _ in pack] for pack in packs], **lists)


def with_token(row: Row, at: int, token: int) -> Row:
    ids, labels = (list(part) for part in row)
    ids[at] = token
    labels[at] = token if labels[at] != -100 else -100
    return tuple(ids), tuple(labels)


def without_loss(row: Row, at: int) -> Row:
    return row[0], (*row[1][:at], -100, *row[1][at + 1 :])


def by_brute_force(a: Sequence[Row], b: Sequence[Row]) -> tuple[int, int]:
    """Count identical rows and rows with the same ids, each row at most once; first labels carry no loss."""
    both = [Counter((ids, (-100, *labels[1:]) if labels else ()) for ids, labels in rows) for rows in (a, b)]
    identical = both[0] & both[1]
    rest = [Counter(ids for ids, _ in (counts - identical).elements()) for counts in both]
    return identical.total(), (rest[0] & rest[1]).total()


@pytest.fixture
def plain(tmp_path: Path, write: Writer) -> Path:
    return write_rows(write, tmp_path / "a.parquet", random_rows(40, 1))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shuffled", [False, True])
def test_planted_differences_are_counted(tmp_path: Path, write: Writer, *, packed: bool, shuffled: bool) -> None:
    rows = random_rows(40, 1)
    rows += rows[:3]  # duplicates
    others = list(rows)
    others[10] = with_token(rows[10], 20, 201)
    others[11] = with_token(rows[11], 3, 201)
    others[12] = without_loss(rows[12], 25)
    others[13] = (rows[13][0][:-2], rows[13][1][:-2])
    del others[41], others[20]  # one of two copies, and a row that occurs once
    others += random_rows(2, 2)
    others += [others[5]]
    if shuffled:
        random.Random(3).shuffle(others)
    a = write_rows(write, tmp_path / "a.parquet", rows)
    b = (write_packs if packed else write_rows)(write, tmp_path / "b.parquet", others)
    expected = KindCounts(identical=37, labels_differ=1, ids_differ=3, only_in_a=2, only_in_b=3)
    assert compare(a, b).counts == expected
    back = compare(b, a).counts
    assert back == KindCounts(identical=37, labels_differ=1, ids_differ=3, only_in_a=3, only_in_b=2)


def test_order_and_packing_are_no_difference(tmp_path: Path, write: Writer, plain: Path) -> None:
    rows = random_rows(40, 1)
    random.Random(5).shuffle(rows)
    packed = write_packs(write, tmp_path / "b.parquet", rows)
    found = compare(plain, packed)
    assert (found.differs, found.counts) == (False, KindCounts(identical=40))
    assert not has_failed(found, InspectConfig(fail_on_difference=True))
    assert "no row differs" in page(found)
    shuffled = write_rows(write, tmp_path / "c.parquet", rows)
    assert "identical rows are at other positions" in page(compare(plain, shuffled))


def test_first_token_of_a_row_carries_no_loss(tmp_path: Path, write: Writer) -> None:
    ids = [[1, 2, 3]]
    a = write(tmp_path / "a.parquet", input_ids=ids, labels=ids)
    b = write(tmp_path / "b.parquet", input_ids=ids, labels=[[-100, 2, 3]])
    assert not compare(a, b).differs


def test_masks_compare_as_labels(tmp_path: Path, write: Writer) -> None:
    a = write(tmp_path / "a.parquet", input_ids=[[1, 2, 3], [4, 5]], labels=[[-100, 2, 3], [-100, 5]])
    b = write(tmp_path / "b.parquet", input_ids=[[1, 2, 3], [4, 5]], completion_mask=[[0, 1, 1], [0, 0]])
    assert compare(a, b).counts == KindCounts(identical=1, labels_differ=1)
    without = write(tmp_path / "c.parquet", input_ids=[[1, 2, 3], [4, 5]])
    found = compare(a, without)
    assert found.counts == KindCounts(identical=2)
    assert any("B without labels" in note for note in found.notes)


def test_rows_in_another_split(tmp_path: Path, write: Writer) -> None:
    rows = random_rows(10, 1)
    for name, cut in (("a", 7), ("b", 6)):
        write_rows(write, tmp_path / name / "train.parquet", rows[:cut])
        write_rows(write, tmp_path / name / "validation.parquet", rows[cut:])
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [split.counts for split in found.splits] == [KindCounts(identical=6, moved=1), KindCounts(identical=3)]
    assert [(each.a.split, each.b.split) for each in found.examples if each.a and each.b] == [("train", "validation")]
    assert compare(tmp_path / "a", tmp_path / "b", split="validation").counts == KindCounts(identical=3, only_in_b=1)


@pytest.mark.parametrize("packed", [False, True])
def test_a_column_pairs_rows(tmp_path: Path, write: Writer, *, packed: bool) -> None:
    rows, others = random_rows(9, 1), random_rows(9, 2)
    others[4] = rows[4]
    names: list[Any] = list(range(100, 109)) if packed else [f"row {n}" for n in range(9)]
    another: Any = 999 if packed else "another"
    a = write_rows(write, tmp_path / "a.parquet", rows, id=names)
    kind = write_packs if packed else write_rows
    b = kind(write, tmp_path / "b.parquet", others[::-1], id=[*names[:0:-1], another])
    found = compare(a, b, compare_by="id")
    assert found.counts == KindCounts(identical=1, ids_differ=7, only_in_a=1, only_in_b=1)
    assert found.splits[0].paired_by == {"column": 7}
    assert "7 pairs whose ids differ were paired by id" in page(found, compare_by="id")


def test_position_pairs_rows_that_have_nothing_in_common(tmp_path: Path, write: Writer) -> None:
    a = write_rows(write, tmp_path / "a.parquet", random_rows(9, 1))
    b = write_rows(write, tmp_path / "b.parquet", random_rows(9, 2))
    found = compare(a, b)
    assert (found.counts, found.splits[0].paired_by) == (KindCounts(ids_differ=9), {"position": 9})


def test_texts_are_compared(tmp_path: Path, write: Writer) -> None:
    a = write(tmp_path / "a.parquet", text=["one two", "grüße an alle", "three"])
    b = write(tmp_path / "b.parquet", text=["three", "one two", "grüsse an alle", "four"])
    found = compare(a, b, rows=2)
    assert found.counts == KindCounts(identical=2, ids_differ=1, only_in_b=1)
    example = next(each for each in found.examples if each.kind == "ids_differ")
    assert example.position == 3
    assert example.a is not None
    assert example.a.text == "grüße an alle"
    assert "A  grüße an alle" in page(found)


def test_examples_show_the_first_difference_in_place(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    def talk(answer: str) -> Row:
        begin, end = [ASK, *byte_ids("How do you do today?")], [*byte_ids(answer), END]
        return tuple(begin + end), tuple([-100] * len(begin) + end)

    a = write_packs(write, tmp_path / "a.parquet", [talk("Well, thanks a lot."), talk("No.")])
    b = write_rows(write, tmp_path / "b.parquet", [talk("Well, thank you, a lot."), talk("No.")])
    found = compare(a, b, tokenizer_name_or_path=str(tokenizer_dir))
    (example,) = found.examples
    assert example.a is not None
    assert example.b is not None
    assert (example.kind, example.position, example.a.sequence, example.b.sequence) == ("ids_differ", 32, 0, None)
    at = example.position - example.a.first
    assert (example.a.tokens[at].text, example.b.tokens[at].text, example.a.tokens[at].trained) == ("s", " ", True)
    assert example.a.tokens[:at] == example.b.tokens[:at]
    text = page(found)
    assert "ids differ from token 32 on (paired by position)" in text
    assert any(line.split()[:4] == ["32", "≠", "115", '"s"'] for line in text.splitlines())


def test_empty_and_damaged_rows_are_compared(tmp_path: Path, write: Writer) -> None:
    a = write(tmp_path / "a.parquet", input_ids=[[], [1, 2, 3]], labels=[[], [-100, 2]])
    b = write(tmp_path / "b.parquet", input_ids=[[1, 2, 3]], labels=[[-100, 2, 3]], seq_lengths=[[1, 1]])
    found = compare(a, b)
    assert found.counts == KindCounts(labels_differ=1, only_in_a=1)
    text = page(found)
    assert "in 1 row of A, labels or seq_lengths do not match the ids" in text
    assert "in 1 row of B, labels or seq_lengths do not match the ids" in text
    without_rows = tmp_path / "c.parquet"
    kind = pa.list_(pa.int32())
    pq.write_table(pa.table({"input_ids": pa.array([], kind), "labels": pa.array([], kind)}), without_rows)
    assert compare(a, without_rows).counts == KindCounts(only_in_a=2)
    assert not compare(without_rows, without_rows).differs


def test_json_is_the_same_as_the_result(tmp_path: Path, write: Writer, plain: Path) -> None:
    found = compare(plain, write_rows(write, tmp_path / "b.parquet", random_rows(41, 1)))
    document = json.loads(report_json(found))
    assert document["counts"]["only_in_b"] == 1
    assert document["differs"] is True
    assert set(document) == {"a", "b", "differs", "counts", "settings", "splits", "sources", "examples", "notes"}
    assert has_failed(found, InspectConfig(fail_on_difference=True))
    assert not has_failed(found, InspectConfig())


def test_manifests_tell_settings_and_sources(tmp_path: Path) -> None:
    first = write_jsonl(
        tmp_path / "one.jsonl", [{"input": f"question {n}", "output": f"answer {n}"} for n in range(30)]
    )
    more = write_jsonl(
        tmp_path / "two.jsonl", [{"input": f"what is {n}", "output": "one two three"} for n in range(20)]
    )
    pairs = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")

    def make(name: str, **options: Any) -> Path:
        datasets = [
            dataset(path, name=path.stem, data_handlers=[pairs], shuffle=True, sampling=share)
            for path, share in ((first, 0.6), (more, 0.4))
        ]
        preprocess(tmp_path / name, *datasets, model_name_or_path="sample:model", **options)
        return tmp_path / name

    before = make("before")
    write_jsonl(more, [{"input": f"what is {n}", "output": "one two six"} for n in range(20)])
    after = make("after", max_seq_length=500)
    found = compare(before, after)
    settings_found = {setting.key: (setting.a, setting.b) for setting in found.settings}
    assert settings_found["config.max_seq_length"] == (None, 500)
    assert {"fingerprint", f"sources.{more} (two)"} <= set(settings_found)
    (source,) = found.sources
    assert (source.dataset, source.source, source.counts) == (
        "two",
        str(more),
        KindCounts(ids_differ=found.counts.ids_differ),
    )
    assert found.counts.ids_differ > 5
    assert found.counts.identical > 5
    assert "config.max_seq_length" in page(found)
    assert "same fingerprint" in page(compare(before, before))


@settings(max_examples=examples(200), deadline=None)
@given(data=st.data())
def test_any_data_sets_compare_as_by_brute_force(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    token = st.integers(0, 2)
    ids = st.lists(token, max_size=4)
    rows = st.builds(
        lambda row, mask: (tuple(row), tuple(v if m else -100 for v, m in zip(row, mask, strict=False))),
        ids,
        st.lists(st.booleans(), min_size=4, max_size=4),
    )
    a, b = data.draw(st.lists(rows, min_size=1, max_size=12)), data.draw(st.lists(rows, min_size=1, max_size=12))
    names_a, names_b = (
        data.draw(st.lists(st.integers(0, 5), min_size=len(part), max_size=len(part))) for part in (a, b)
    )
    folder = tmp_path_factory.mktemp("compare")
    write = _write_table
    first = write_rows(write, folder / "a.parquet", a, group=5, name=names_a)
    second = write_rows(write, folder / "b.parquet", b, group=3, name=names_b)
    found = compare(first, second, rows=0, compare_by="name").counts
    identical, labels_differ = by_brute_force(a, b)
    assert (found.identical, found.labels_differ) == (identical, labels_differ)
    assert identical + labels_differ + found.ids_differ + found.only_in_a == len(a)
    assert identical + labels_differ + found.ids_differ + found.only_in_b == len(b)
    other = compare(first, second, rows=1).counts
    assert (other.identical, other.labels_differ) == (identical, labels_differ)


def _write_table(path: Path, group: int, **columns: Any) -> Path:
    kinds = {name: pa.list_(pa.int32()) for name in ("input_ids", "labels")}
    pq.write_table(
        pa.table({name: pa.array(rows, kinds.get(name)) for name, rows in columns.items()}), path, row_group_size=group
    )
    return path


def test_keys_are_matched_in_parts(tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_SORTED_AT_ONCE", 8)
    rows = random_rows(40, 1) + random_rows(20, 1)
    others = rows[::-1][:50]
    others[3:6] = [with_token(row, 25, 201) for row in others[3:6]]
    a, b = write_rows(write, tmp_path / "a.parquet", rows), write_rows(write, tmp_path / "b.parquet", others)
    assert compare(a, b).counts == KindCounts(identical=47, ids_differ=3, only_in_a=10)


def test_short_rows_are_paired_with_their_own_counterpart(tmp_path: Path, write: Writer) -> None:
    rows = random_rows(600, 1, length=(13, 20))
    order = random.Random(2).sample(range(600), 600)
    others = [with_token(rows[n], random.Random(n).randrange(len(rows[n][0])), 201) for n in order]
    a, b = write_rows(write, tmp_path / "a.parquet", rows, 100), write_rows(write, tmp_path / "b.parquet", others, 100)
    found = compare(a, b, rows=600)
    assert found.counts == KindCounts(ids_differ=600)
    pairs = [(example.a.row, example.b.row) for example in found.examples if example.a and example.b]
    assert sorted(pairs) == sorted((n, at) for at, n in enumerate(order))


def test_too_many_pieces_are_not_tried(tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(300, 1, length=(13, 16))
    others = [with_token(row, 7, 201) for row in rows[::-1]] + random_rows(1, 2)
    a, b = write_rows(write, tmp_path / "a.parquet", rows, 100), write_rows(write, tmp_path / "b.parquet", others, 100)
    assert compare(a, b).counts == KindCounts(ids_differ=300, only_in_b=1)
    monkeypatch.setattr(closer_look, "MOST_PIECES", 2)
    fewer = compare(a, b).counts
    assert 0 < fewer.ids_differ < 300
    assert fewer.ids_differ + fewer.only_in_a == 300


def test_both_hashes_identify_a_sequence() -> None:
    first = np.array([5, 5, 5, 9], np.uint64), np.array([1, 2, 1, 1], np.uint64)
    second = np.array([5, 9, 5, 5], np.uint64), np.array([2, 7, 1, 3], np.uint64)
    pairs = matching.join_pairs(matching.match_equal(first, second))
    assert sorted(zip(*(side.tolist() for side in pairs), strict=True)) == [(0, 2), (1, 0)]


def test_a_frequent_phrase_alone_does_not_pair_sequences() -> None:
    one, other = np.arange(0, 40, dtype=np.uint64), np.arange(39, 79, dtype=np.uint64)
    owners = np.zeros(40, np.int64)
    assert len(match_pieces(Pieces(one, owners), Pieces(other, owners))[0]) == 0
    assert len(match_pieces(Pieces(one, owners), Pieces(other - np.uint64(4), owners))[0]) == 1


@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_sequences_that_share_a_piece_of_their_own_are_paired(data: st.DataObject) -> None:
    sides = [data.draw(st.lists(st.sets(st.integers(0, 12), max_size=5), max_size=6)) for _ in range(2)]
    flat = [[(piece, owner) for owner, own in enumerate(side) for piece in sorted(own)] for side in sides]
    a, b = (
        Pieces(np.array([piece for piece, _ in part], np.uint64), np.array([owner for _, owner in part], np.int64))
        for part in flat
    )
    pairs = list(zip(*(side.tolist() for side in match_pieces(a, b)), strict=True))
    assert all(len(set(side)) == len(pairs) for side in zip(*pairs, strict=True))
    assert all(sides[0][one] & sides[1][other] for one, other in pairs)
    rest = [
        [own for owner, own in enumerate(side) if owner not in {pair[at] for pair in pairs}]
        for at, side in enumerate(sides)
    ]
    counts = [Counter(piece for own in part for piece in own) for part in rest]
    assert not [piece for piece in range(13) if counts[0][piece] == counts[1][piece] == 1]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"compare": "nowhere"}, 1, "nowhere: no such directory or file of shards"),
        ({"compare": "broken.parquet"}, 1, "cannot be read as Parquet"),
        ({"compare": "text.parquet"}, 1, "holds tokens and text.parquet holds text"),
        ({"compare": "held_out"}, 1, "compare data sets that have a split in common"),
        ({"compare": "a.parquet", "compare_by": "id"}, 1, "has no column 'id' to pair rows by"),
        ({"compare": "a.parquet", "compare_by": "labels"}, 1, "column 'labels' must hold texts or numbers"),
        ({"compare": "a.parquet", "row": 3}, 2, "leave out row"),
        ({"compare": "a.parquet", "directory": None}, 2, "compare needs two directories"),
        ({"fail_on_difference": True}, 2, "give the other data set with compare"),
        ({"compare_by": "id"}, 2, "give the other data set with compare"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path,
    write: Writer,
    plain: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    write(tmp_path / "text.parquet", text=["a"])
    write_rows(write, tmp_path / "held_out" / "validation.parquet", random_rows(2, 1))
    if options.get("compare_by") == "labels":
        plain = write_rows(write, tmp_path / "c.parquet", random_rows(4, 9))
    with pytest.raises(SftkitError) as error:
        run_inspect(InspectConfig(**{"directory": str(plain), **options}))
    assert error.value.exit_code == code
    assert message in str(error.value)
    assert "\n" not in str(error.value)
