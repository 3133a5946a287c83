"""Packed shards: faults of packs themselves and of their sequences, named by shard, row and sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftkit.audit.checks.packs import Packing, pack_boundaries
from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.config.commands import InspectConfig
from sftkit.core.row_kinds import RowKind
from sftkit.core.rows import Ragged
from sftkit.inspection.audit.audit_shards import ShardAudit
from sftkit.inspection.report import inspect_shards
from sftkit.shards.reading import open_shards
from support import dataset, handler, preprocess, write_jsonl

from .material import IGNORED, MASKED_CHAT, row_of
from .packed import Pack, pack_of, repack, sequences_named, wrapped, write_packs

MODEL = "sample:model"
SHARD = "train-00000-of-00001.parquet"
CAPACITY = 120
"""Tokens; the rows of `chats` have 26 each."""


def chats(count: int = 24) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"What is {number}?"},
                {"role": "assistant", "content": f"It is {number}, a number."},
            ]
        }
        for number in range(10, 10 + count)
    ]


def built(folder: Path, how: str, capacity: int = CAPACITY, **options: Any) -> tuple[Path, list[Pack]]:
    source = write_jsonl(folder / "a.jsonl", chats())
    preprocess(folder / "out", dataset(source, data_handlers=[MASKED_CHAT]), model_name_or_path=MODEL, **options)
    return folder / "out", repack(folder / "out", how, capacity)


def audit(path: Path, **options: Any) -> ShardAudit:
    made = inspect_shards(InspectConfig(audit=True, **options), open_shards(str(path))).audit
    assert made is not None
    return made


def named(path: Path, **options: Any) -> dict[str, tuple[int, list[str]]]:
    return {each.rule: (each.rows, list(each.examples)) for each in audit(path, **options).findings}


# --- where sequences begin


@given(st.lists(st.lists(st.integers(1, 5), max_size=4), max_size=6))
def test_sequences_of_packs_follow_their_lengths(lengths: list[list[int]]) -> None:
    ids = Ragged.from_lists([list(range(sum(row))) for row in lengths])
    packs = pack_boundaries(ids, Ragged.from_lists(lengths), Packing(7, may_cut_rows=True))
    expected, position = [], 0
    for row, sizes in enumerate(lengths):
        for number, size in enumerate(sizes or [0]):
            expected.append((position, row, number, number == 0, number == max(0, len(sizes) - 1)))
            position += size
    columns = (packs.offsets[:-1], packs.rows, packs.numbers, packs.cut_start, packs.cut_end)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    assert packs.offsets[-1] == position
    assert not packs.mismatched.any()
    assert packs.too_long.tolist() == [sum(row) > 7 for row in lengths]


@given(st.data())
def test_a_pack_with_wrong_lengths_is_one_sequence_and_others_are_unaffected(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.lists(st.integers(-2, 4), max_size=4), min_size=1, max_size=6))
    tokens = [max(0, sum(row) + data.draw(st.integers(-1, 1))) for row in lengths]
    ids = Ragged.from_lists([[0] * count for count in tokens])
    packs = pack_boundaries(ids, Ragged.from_lists(lengths), Packing())
    fits = [sum(row) == count and min(row, default=1) > 0 for row, count in zip(lengths, tokens, strict=True)]
    assert (~packs.mismatched).tolist() == fits
    sizes = [row if fit and row else [count] for row, count, fit in zip(lengths, tokens, fits, strict=True)]
    assert np.diff(packs.offsets).tolist() == [size for row in sizes for size in row]
    assert not (packs.cut_start | packs.cut_end | packs.too_long[packs.rows]).any()


# --- whole packed shards


@pytest.mark.parametrize("how", ["bfd", "wrapped"])
def test_clean_packs_give_no_finding(tmp_path: Path, how: str) -> None:
    path, packs = built(tmp_path, how)
    made = audit(path)
    assert made.findings == ()
    assert (made.rows, made.sequences) == (len(packs), sum(len(pack.lengths) for pack in packs))
    assert any("may be cut" in note for note in made.notes) == (how == "wrapped")


def test_pieces_of_long_rows_inside_packs_are_not_findings(tmp_path: Path) -> None:
    long = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one two three four " * 20}]
    source = write_jsonl(tmp_path / "a.jsonl", [*chats(), *({"messages": long[:1] * n + long} for n in (1, 2, 3))])
    preprocess(
        tmp_path / "out",
        dataset(source, data_handlers=[MASKED_CHAT]),
        model_name_or_path=MODEL,
        packing="bfd_split",
        pack_length=CAPACITY,
    )
    made = audit(tmp_path / "out")
    assert made.sequences > 27
    assert made.findings == ()
    assert "rows longer than a pack are cut: cuts there are not reported, nor are duplicates" in made.notes


def test_rows_that_are_not_packed_have_no_sequences(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", chats(3))
    preprocess(tmp_path / "out", dataset(source, data_handlers=[MASKED_CHAT]), model_name_or_path=MODEL)
    assert (audit(tmp_path / "out").rows, audit(tmp_path / "out").sequences) == (3, None)


def short_sum(pack: Pack) -> Pack:
    return replace(pack, lengths=(*pack.lengths[:-1], pack.lengths[-1] - 1))


def zero_length(pack: Pack) -> Pack:
    return replace(pack, lengths=(*pack.lengths, 0))


def negative_length(pack: Pack) -> Pack:
    return replace(pack, lengths=(*pack.lengths[:-1], pack.lengths[-1] + 3, -3))


def no_lengths(pack: Pack) -> Pack:
    return replace(pack, lengths=())


def two_packs_in_one(pack: Pack) -> Pack:
    return Pack(pack.ids[-50:] + pack.ids, (IGNORED, *pack.labels[-49:], *pack.labels), (50, *pack.lengths))


def first_token_trained(pack: Pack) -> Pack:
    return pack.with_label(pack.starts()[1], pack.ids[pack.starts()[1]])


def without_loss(pack: Pack) -> Pack:
    start, size = pack.starts()[2], pack.lengths[2]
    return replace(pack, labels=pack.labels[:start] + (IGNORED,) * size + pack.labels[start + size :])


def other_label(pack: Pack) -> Pack:
    return pack.with_label(pack.starts()[3] - 3, 7)


def labels_too_short(pack: Pack) -> Pack:
    return replace(pack, labels=pack.labels[:-1])


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("break_pack", "rule", "sequence"),
    [
        (short_sum, "seq_lengths_misfit", ""),
        (zero_length, "seq_lengths_misfit", ""),
        (negative_length, "seq_lengths_misfit", ""),
        (no_lengths, "seq_lengths_misfit", ""),
        (first_token_trained, "first_token_trained", " (sequence 2)"),
        (without_loss, "no_trained_token", " (sequence 3)"),
        (other_label, "labels_differ", " (sequence 3)"),
        (labels_too_short, "columns_misfit", ""),
    ],
)
@pytest.mark.parametrize("how", ["bfd", "wrapped"])
def test_each_broken_pack_is_named_under_its_rule_only(
    tmp_path: Path, how: str, break_pack: Callable[[Pack], Pack], rule: str, sequence: str
) -> None:
    path, packs = built(tmp_path, how)
    assert min(len(pack.lengths) for pack in packs[:5]) >= 4
    broken = [break_pack(pack) if place in (0, 3, 4) else pack for place, pack in enumerate(packs)]
    write_packs(path / SHARD, broken)
    assert named(path) == {rule: (3, [f"{SHARD}:{row}{sequence}" for row in (0, 3, 4)])}


def test_packs_longer_than_the_manifest_allows_are_named(tmp_path: Path) -> None:
    path, packs = built(tmp_path, "bfd", 104)
    longer = Pack(packs[1].ids + packs[2].ids, packs[1].labels + packs[2].labels, packs[1].lengths + packs[2].lengths)
    write_packs(path / SHARD, [packs[0], longer, *packs[3:]])
    assert named(path) == {"pack_too_long": (1, [f"{SHARD}:1"])}
    (path / "manifest.json").unlink()
    assert named(path, tokenizer_name_or_path=MODEL) == {}


def test_a_trained_first_token_of_the_first_sequence_is_not_a_finding(tmp_path: Path) -> None:
    path, packs = built(tmp_path, "bfd")
    write_packs(path / SHARD, [packs[0].with_label(0, packs[0].ids[0]), *packs[1:]])
    assert named(path) == {}


def test_tokens_are_checked_even_if_sequences_are_unknown(tmp_path: Path) -> None:
    path, packs = built(tmp_path, "bfd")
    ids = list(packs[2].ids)
    ids[packs[2].starts()[1]] = 99_999
    write_packs(path / SHARD, [*packs[:2], replace(no_lengths(packs[2]), ids=tuple(ids)), *packs[3:]])
    assert named(path) == {
        "seq_lengths_misfit": (1, [f"{SHARD}:2"]),
        "ids_outside_vocabulary": (1, [f"{SHARD}:2"]),
    }


def test_duplicates_are_found_between_sequences(tmp_path: Path) -> None:
    path, packs = built(tmp_path, "bfd")
    once = Pack(packs[1].ids[: packs[1].lengths[0]], packs[1].labels[: packs[1].lengths[0]], packs[1].lengths[:1])
    write_packs(path / SHARD, [*packs, replace(once), packs[4]])
    last = len(packs)
    names = [f"{SHARD}:{last} (sequence 1)", *(f"{SHARD}:{last + 1} (sequence {n})" for n in (1, 2, 3, 4))]
    assert named(path) == {"duplicate_row": (5, names)}


def test_packs_with_unknown_sequences_have_no_duplicates(tmp_path: Path) -> None:
    path, packs = built(tmp_path, "bfd")
    write_packs(path / SHARD, [no_lengths(packs[0]), no_lengths(packs[0]), *packs[1:]])
    assert named(path) == {"seq_lengths_misfit": (2, [f"{SHARD}:0", f"{SHARD}:1"])}


def test_equal_pieces_at_the_edges_of_wrapped_packs_are_not_duplicates(tmp_path: Path) -> None:
    path, packs = built(tmp_path, "wrapped")
    write_packs(path / SHARD, [*packs, packs[1]])
    inner = [f"{SHARD}:{len(packs)} (sequence {n})" for n in range(2, len(packs[1].lengths))]
    assert named(path) == {"duplicate_row": (len(inner), inner)}


def test_wrapped_packs_without_a_manifest_are_checked_as_complete_rows(tmp_path: Path) -> None:
    path, _ = built(tmp_path, "wrapped")
    (path / "manifest.json").unlink()
    found = named(path, tokenizer_name_or_path=MODEL)
    assert set(found) >= {"answer_cut", "no_trained_token"}


def test_a_piece_without_a_header_may_end_like_a_conversation() -> None:
    """For a template that writes nothing after answers, a piece without its opener (7) is no text without an end."""
    expectations = Expectations(vocabulary_size=10, stops=(9,), openers=(7,), chats_end=False, special=(7, 9))
    rows = [row_of((7, 1, 2, 3, 4), (IGNORED, IGNORED, 2, 3, 4))] * 4
    assert sequences_named([pack_of(rows)], expectations) == {}
    for capacity in (2, 3, 4, 7, 9):
        assert sequences_named(wrapped(rows, capacity).packs, expectations, Packing(capacity, may_cut_rows=True)) == {}
    text = [row_of((1, 2, 3), (IGNORED, 2, 3))] * 3
    assert sequences_named([pack_of(text)], expectations) == {"answer_cut": [0, 1, 2]}
    assert sequences_named([pack_of(text)], expectations, Packing(9, may_cut_rows=True)) == {"answer_cut": [1]}


def test_an_answer_cut_within_the_words_of_a_header_is_not_a_header() -> None:
    expectations = Expectations(
        RowOrigin(RowKind.CONVERSATIONS, trains_all=False),
        vocabulary_size=10,
        stops=(9,),
        prompts=((7, 1),),
        headers=((3, 4),),
        roles=("user",),
        openers=(7,),
        chats_end=True,
        special=(7, 9),
    )
    rows = [row_of((3, 4, 5, 7, 1, 3, 4, 5, 9), (IGNORED,) * 5 + (3, 4, 5, 9))] * 5
    for capacity in (1, 2, 3, 4, 5, 6, 7, 11, 13):
        assert sequences_named(wrapped(rows, capacity).packs, expectations, Packing(capacity, may_cut_rows=True)) == {}
    broken = [row_of(row.ids, (IGNORED, 4, *row.labels[2:])) for row in rows]
    assert sequences_named([pack_of(broken)], expectations, Packing()) == {"header_trained": [0, 1, 2, 3, 4]}


def test_a_prompt_cut_at_its_stop_token_is_not_a_mismatch() -> None:
    origin = RowOrigin(RowKind.CONVERSATIONS, trains_all=False)
    expectations = Expectations(
        origin, vocabulary_size=10, stops=(9,), prompts=((1, 9, 2),), chats_end=True, special=(9,)
    )
    rows = [row_of((5, 1, 9, 2, 6, 7, 9), (IGNORED,) * 4 + (6, 7, 9))] * 5
    for capacity in range(1, 16):
        assert sequences_named(wrapped(rows, capacity).packs, expectations, Packing(capacity, may_cut_rows=True)) == {}
    assert sequences_named([pack_of([row_of(row.ids[2:], row.labels[2:]) for row in rows])], expectations) == {
        "prompt_mismatch": [0, 1, 2, 3, 4]
    }


def test_two_bos_tokens_at_a_cut_inside_a_text_are_not_a_doubled_bos() -> None:
    expectations = Expectations(vocabulary_size=10, bos=5, stops=(9,))
    rows = [row_of((1, 2, 5, 5, 3, 9), (IGNORED, 2, 5, 5, 3, 9))] * 5
    for capacity in range(1, 14):
        assert sequences_named(wrapped(rows, capacity).packs, expectations, Packing(capacity, may_cut_rows=True)) == {}


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 8, 13, 40])
def test_wrapped_pairs_and_texts_are_clean(tmp_path: Path, capacity: int) -> None:
    rows = [
        {"input": f"<|im_start|>user\n{n}?<|im_end|>\n<|im_start|>assistant\n", "output": f"{n}."} for n in range(9)
    ]
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    source = write_jsonl(
        tmp_path / "a.jsonl", [*rows, *({"input": f"{n}?", "output": f" It is {n}."} for n in range(9))]
    )
    options = {"model_name_or_path": MODEL, "special_tokens_in_content": "keep"}
    preprocess(tmp_path / "out", dataset(source, data_handlers=[masking]), **options)
    assert named(tmp_path / "out") == {}
    repack(tmp_path / "out", "wrapped", capacity)
    assert named(tmp_path / "out") == {}


def test_packs_with_masks_are_checked(tmp_path: Path) -> None:
    _, packs = built(tmp_path, "bfd")
    masks = [[int(label != IGNORED) for label in pack.labels] for pack in packs]
    masks[1][packs[1].starts()[1]] = 1
    wide = pa.list_(pa.int64())
    columns = {"input_ids": [pack.ids for pack in packs], "completion_mask": masks}
    columns["seq_lengths"] = [pack.lengths for pack in packs]
    table = pa.table({name: pa.array(rows, wide) for name, rows in columns.items()})
    pq.write_table(table, tmp_path / "others.parquet")
    found = named(tmp_path / "others.parquet", tokenizer_name_or_path=MODEL)
    assert found == {"first_token_trained": (1, ["others.parquet:1 (sequence 2)"])}
