"""Packs: counted, shown and searched sequence by sequence."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sftkit.cli.console.reports.show_report import print_report, report_json
from sftkit.config.commands import InspectConfig
from sftkit.inspection.report import Report, inspect_shards
from sftkit.inspection.summary.dataset_summary import PackSummary
from sftkit.inspection.summary.summarize import summarize
from sftkit.inspection.view import read_rows
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet, open_shards

from .conftest import ASK, END, Writer, byte_ids, manifest_for


def talk(number: int, question: str = "", answer: str = "") -> tuple[list[int], list[int]]:
    """Return ids and labels of a question and its answer."""
    begin = [ASK, *byte_ids(question or f"{number}{number}?")]
    end = [*byte_ids(answer or f"yes {number}"), END]
    return begin + end, [-100] * len(begin) + end


def packs(write: Writer, path: Path, *rows: list[tuple[list[int], list[int]]], **columns: Any) -> Path:
    """Write a Parquet file of packs, each given as its sequences (ids, labels)."""
    return write(
        path,
        input_ids=[[value for ids, _ in row for value in ids] for row in rows],
        labels=[[label for _, labels in row for label in labels] for row in rows],
        seq_lengths=columns.get("seq_lengths", [[len(ids) for ids, _ in row] for row in rows]),
    )


def look(path: Path, tokenizer: Path | None, **options: Any) -> Report:
    name = None if tokenizer is None else str(tokenizer)
    return inspect_shards(InspectConfig(tokenizer_name_or_path=name, **options), open_shards(str(path)))


def page(report: Report, *, width: int = 200, terminal: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system="truecolor" if terminal else None)
    print_report(report, InspectConfig(), console)
    return stream.getvalue()


def test_packs_are_counted_in_sequences(tmp_path: Path, write: Writer) -> None:
    path = packs(write, tmp_path / "a.parquet", [talk(1), talk(2), talk(3, "long one?")], [talk(4)])
    (train,) = summarize(open_shards(str(path))).splits
    assert (train.rows, train.tokens) == (2, 46)
    assert train.packs == PackSummary(
        sequences=4, sequences_mean=2.0, sequences_max=3, pack_length=36, fill_rate=0.6389, misfit=0
    )
    assert train.lengths is not None
    assert (train.lengths.min, train.lengths.median, train.lengths.mean, train.lengths.max) == (10, 10.0, 11.5, 16)
    assert train.lengths.histogram == {"8": 3, "16": 1}


def test_summary_table_of_packs(tmp_path: Path, write: Writer) -> None:
    path = packs(write, tmp_path / "a.parquet", [talk(1), talk(2), talk(3, "long one?")], [talk(4)])
    text = page(look(path, None, rows=0), width=80)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[2:14] == [
        "shards 1",
        "packs 2",
        "pack length 36",
        "fill rate 63.9%",
        "sequences 4",
        "sequences per pack 2.0 (max 3)",
        "tokens 46",
        "trained tokens 24 (52.2%)",
        "sequence length min 10",
        "sequence length median 10",
        "sequence length mean 11.5",
        "sequence length p95 16",
    ]
    assert "train: tokens sequences" in lines
    assert max(map(len, text.splitlines())) <= 80


def with_manifest(path: Path, sequences: int, pack_length: int) -> ShardSet:
    """Return a file of 2 packs with a manifest that records these numbers."""
    made: Manifest = manifest_for({"train": [(path.name, 2, 40, 24)]}, "x", "y")
    split = replace(made.splits["train"], sequences=sequences, pack_length=pack_length, fill_rate=0.5)
    return ShardSet(path, {"train": (path,)}, replace(made, splits={"train": split}))


def test_pack_length_comes_from_the_manifest_and_sequences_are_compared_with_it(tmp_path: Path, write: Writer) -> None:
    path = packs(write, tmp_path / "a.parquet", [talk(1), talk(2), talk(3)], [talk(4)])
    summary = summarize(with_manifest(path, 4, 64))
    assert summary.splits[0].packs == PackSummary(4, 2.0, 3, 64, 0.3125, 0)
    assert summary.notes == ()
    assert summarize(with_manifest(path, 5, 64)).notes == (
        "train does not match the manifest: 4 sequences, the manifest says 5 sequences",
    )
    plain = write(tmp_path / "b.parquet", input_ids=[talk(1)[0] * 3, talk(4)[0]], labels=[talk(1)[1] * 3, talk(4)[1]])
    assert summarize(with_manifest(plain, 4, 64)).notes == (
        "train does not match the manifest: rows that are not packed, the manifest says 4 sequences",
    )


def test_invalid_seq_lengths_are_counted_and_reported(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    rows = [[talk(1), talk(2)], [talk(3)], [talk(4), talk(5)]]
    path = packs(write, tmp_path / "a.parquet", *rows, seq_lengths=[[10, 9], [10], [23, -3]])
    report = look(path, tokenizer_dir, rows=3)
    (train,) = report.summary.splits
    assert train.packs == PackSummary(3, 1.0, 1, 20, 0.8333, 2)
    assert report.summary.notes == ("train: in 2 packs seq_lengths do not match the tokens",)
    assert [row.seq_lengths for row in report.rows] == [(), (10,), ()]
    assert report.rows[0].notes == ("seq_lengths sum to 19, the row has 20 tokens",)
    assert report.rows[2].notes == ("seq_lengths sum to 20, the row has 20 tokens; one of them is -3",)
    assert [[(found.rule, found.turn) for found in row.findings] for row in report.rows] == [
        [("seq_lengths_misfit", None)],
        [],
        [("seq_lengths_misfit", None)],
    ]
    assert "error: seq_lengths_misfit: seq_lengths do not sum" in page(report)


def test_a_pack_is_shown_sequence_by_sequence(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    path = packs(write, tmp_path / "a.parquet", [talk(1), talk(2)])
    text = page(look(path, tokenizer_dir))
    assert text.endswith(
        "train row 0 (a.parquet row 0): 20 tokens, 12 trained (60.0%), 2 sequences\n"
        "\n"
        "--- sequence 1 of 2: 10 tokens, 6 trained\n"
        "[1] 4 tokens\n"
        "    <|ask|>11?\n"
        "[2] 6 tokens, 6 trained\n"
        "    ⟦yes 1<|end|>⟧\n"
        "\n"
        "--- sequence 2 of 2: 10 tokens, 6 trained\n"
        "[1] 4 tokens\n"
        "    <|ask|>22?\n"
        "[2] 6 tokens, 6 trained\n"
        "    ⟦yes 2<|end|>⟧\n"
    )
    assert page(look(path, None)).endswith(
        "--- sequence 1 of 2: 10 tokens, 6 trained\n"
        "256 49 49 63⟦ 121 101 115 32 49 257⟧\n"
        "\n"
        "--- sequence 2 of 2: 10 tokens, 6 trained\n"
        "256 50 50 63⟦ 121 101 115 32 50 257⟧\n"
    )


def test_findings_of_a_pack_are_printed_in_their_sequence(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    ids, labels = talk(2)
    cut = (ids[:-1], labels[:-1])
    first = (talk(3)[0], [ASK, *talk(3)[1][1:]])
    path = packs(write, tmp_path / "a.parquet", [talk(1), cut, (ids, [-100] * 10), first])
    (row,) = look(path, tokenizer_dir).rows
    assert [(found.rule, found.start, found.stop, row.turns[found.turn or 0].sequence) for found in row.findings] == [
        ("answer_cut", 14, 19, 1),
        ("no_trained_token", 19, 29, 2),
        ("first_token_trained", 29, 30, 3),
    ]
    text = page(look(path, tokenizer_dir))
    assert (
        text.index("--- sequence 3 of 4") < text.index("error: no_trained_token:") < text.index("--- sequence 4 of 4")
    )


def test_untrained_first_token_of_a_sequence_starts_no_turn(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    text = [*byte_ids("all"), END]
    path = packs(write, tmp_path / "a.parquet", [(text, [-100, *text[1:]])] * 2)
    (row,) = look(path, tokenizer_dir).rows
    assert [(turn.start, turn.stop, turn.sequence, turn.trained_tokens) for turn in row.turns] == [
        (0, 4, 0, 3),
        (4, 8, 1, 3),
    ]
    assert "    a⟦ll<|end|>⟧\n" in page(look(path, tokenizer_dir))


def test_characters_are_not_joined_across_sequences(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    halves = [byte_ids("é")[:1], byte_ids("é")[1:]]
    path = packs(write, tmp_path / "a.parquet", [(half, [-100]) for half in halves])
    (row,) = look(path, tokenizer_dir).rows
    assert [token.text for token in row.tokens] == ["\ufffd", "\ufffd"]


def long_pack(count: int = 12) -> list[tuple[list[int], list[int]]]:
    """Return sequences of 10 tokens; numbers 8 to 11 lack the last token."""
    talks = [talk(number % 10) for number in range(count)]
    return [(ids[:-1], labels[:-1]) if 7 <= n <= 10 else (ids, labels) for n, (ids, labels) in enumerate(talks)]


def sequence_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("---", "..."))]


def test_first_sequences_of_a_long_pack_and_those_with_findings_are_shown(
    tmp_path: Path, write: Writer, tokenizer_dir: Path
) -> None:
    path = packs(write, tmp_path / "a.parquet", long_pack(), long_pack(4))
    first, second = look(path, tokenizer_dir, rows=2).rows
    assert (first.on_page, second.on_page) == ((0, 1, 2, 7, 8, 9), (0, 1, 2, 3))
    assert sequence_lines(page(look(path, tokenizer_dir))) == [
        "--- sequence 1 of 12: 10 tokens, 6 trained",
        "--- sequence 2 of 12: 10 tokens, 6 trained",
        "--- sequence 3 of 12: 10 tokens, 6 trained",
        "... sequences 4 to 7: 40 tokens",
        "--- sequence 8 of 12: 9 tokens, 5 trained",
        "--- sequence 9 of 12: 9 tokens, 5 trained",
        "--- sequence 10 of 12: 9 tokens, 5 trained",
        "... sequences 11 to 12: 19 tokens, 1 with findings; use --row to show the whole pack",
    ]
    assert len(first.tokens) == 116
    document = json.loads(report_json(look(path, tokenizer_dir)))["rows"][0]
    assert (len(document["tokens"]), document["on_page"]) == (116, [0, 1, 2, 7, 8, 9])


def test_requested_pack_is_shown_completely(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    path = packs(write, tmp_path / "a.parquet", [talk(1)], long_pack())
    text = page(look(path, tokenizer_dir, row=1))
    assert sequence_lines(text) == [
        f"--- sequence {n} of 12: {9 if n in (8, 9, 10, 11) else 10} tokens, {5 if n in (8, 9, 10, 11) else 6} trained"
        for n in range(1, 13)
    ]
    assert text.count("warning: answer_cut") == 4


def test_search_looks_within_sequences_and_shows_those_that_match(
    tmp_path: Path, write: Writer, tokenizer_dir: Path
) -> None:
    path = packs(write, tmp_path / "a.parquet", [talk(1), talk(2)], [talk(n) for n in (3, 2, 4, 5, 2, 6)], [talk(7)])

    def found(wanted: str, **options: Any) -> list[tuple[int, tuple[int, ...]]]:
        return [(row.row, row.on_page) for row in look(path, tokenizer_dir, search=wanted, **options).rows]

    assert found("yes 2", rows=9) == [(0, (1,)), (1, (1, 4))]
    assert found("yes 2", rows=9, row=1) == [(1, (1, 4))]
    assert found("1<|end|><|ask|>2", rows=9) == []
    assert sequence_lines(page(look(path, tokenizer_dir, search="yes 2", row=1))) == [
        "... sequence 1: 10 tokens",
        "--- sequence 2 of 6: 10 tokens, 6 trained",
        "... sequences 3 to 4: 20 tokens",
        "--- sequence 5 of 6: 10 tokens, 6 trained",
        "... sequence 6: 10 tokens; use --row to show the whole pack",
    ]


def test_data_cannot_imitate_the_line_of_a_sequence(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    spoof = "a\n--- sequence 2 of 2: 9 tokens\x1b[31m\n... sequences 3 to 9"
    path = packs(write, tmp_path / "a.parquet", [talk(1, spoof), talk(2)])
    text = page(look(path, tokenizer_dir))
    assert "\n    --- sequence 2 of 2: 9 tokens\\x1b[31m\n    ... sequences 3 to 9\n[2] 6 tokens" in text
    assert sequence_lines(text) == [
        f"--- sequence {n} of 2: {size} tokens, 6 trained" for n, size in ((1, len(talk(1, spoof)[0])), (2, 10))
    ]
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_pages_of_packs_fit_a_terminal(tmp_path: Path, write: Writer, tokenizer_dir: Path, width: int) -> None:
    path = packs(write, tmp_path / "a.parquet", [talk(n, "why " * 60) for n in range(9)])
    text = page(look(path, tokenizer_dir), width=width, terminal=True)
    plain = "".join(part.split("m", 1)[-1] for part in ("m" + text).split("\x1b["))
    assert max(map(len, plain.splitlines())) <= width
    assert plain.count("--- sequence ") == 3


def test_empty_packs_and_packs_of_one_sequence(tmp_path: Path, write: Writer, tokenizer_dir: Path) -> None:
    path = packs(write, tmp_path / "a.parquet", [talk(1)], [])
    one, nothing = look(path, tokenizer_dir, rows=2).rows
    assert (one.seq_lengths, one.on_page, nothing.length) == ((10,), (0,), 0)
    assert nothing.notes == ("this row has no tokens",)
    assert [(found.rule, found.turn) for found in nothing.findings] == [("no_trained_token", None)]
    assert ", 1 sequence\n" in page(look(path, tokenizer_dir))


def test_first_tokens_of_a_very_long_row_are_shown_and_all_are_counted(
    tmp_path: Path, write: Writer, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_rows, "MAX_TOKENS", 7)
    (ids, labels), length = talk(0), len(talk(0)[0])
    [row] = look(write(tmp_path / "a.parquet", input_ids=[ids], labels=[labels]), tokenizer_dir).rows
    assert (row.length, len(row.tokens), row.trained_tokens) == (length, 7, sum(label >= 0 for label in labels))
    assert row.notes[0] == "only the first 7 of its tokens are shown"
    assert row.findings == ()
    short = packs(write, tmp_path / "b.parquet", [(ids[:4], labels[:4]), talk(1), talk(2)])
    assert look(short, tokenizer_dir).rows[0].seq_lengths == (4, 3)
