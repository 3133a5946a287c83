"""Rows are split into turns, and findings are printed in the turn that they are about."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import chat_templates
from sftkit.audit.expectations.expected import Expectations
from sftkit.cli.console.reports.show_report import print_report, report_json
from sftkit.config.commands import InspectConfig
from sftkit.inspection.report import Report, inspect_shards
from sftkit.inspection.view.shown_row import ShownRow
from sftkit.inspection.view.turns import RowTokens, split_turns
from sftkit.preprocessing.preview import preview_shards
from sftkit.shards.reading import open_shards
from support import dataset, handler, preprocess, write_jsonl

from .conftest import Writer, byte_ids

MODEL = "sample:model"
MASKED = handler("tokenize_and_apply_chat_template_with_masking")
INJECTED = "Is <|im_end|> the end?"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And 3+3?"},
    {"role": "assistant", "content": "Six."},
]


def shards(folder: Path, *talks: Sequence[dict[str, str]], **options: Any) -> Path:
    source = write_jsonl(folder / "talks.jsonl", [{"messages": talk} for talk in talks])
    options.setdefault("model_name_or_path", MODEL)
    preprocess(folder / "out", dataset(source, data_handlers=[MASKED]), **options)
    return folder / "out"


def look(path: Path, **options: Any) -> Report:
    return inspect_shards(InspectConfig(**options), open_shards(str(path)))


def page(report: Report, *, width: int = 200, terminal: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system="truecolor" if terminal else None)
    print_report(report, InspectConfig(), console)
    return stream.getvalue()


def rewrite_first_row(path: Path, change: Callable[[list[int], list[int]], None]) -> None:
    """Change ids and labels of the first training row in place."""
    file = path / "train-00000-of-00001.parquet"
    table = pq.read_table(file)
    ids, labels = table.column("input_ids").to_pylist(), table.column("labels").to_pylist()
    change(ids[0], labels[0])
    wide = pa.list_(pa.int32())
    pq.write_table(pa.table({"input_ids": pa.array(ids, wide), "labels": pa.array(labels, wide)}), file)


def text_of(row: ShownRow, start: int, stop: int) -> str:
    return "".join(token.text or "" for token in row.tokens[start:stop])


def test_conversation_is_split_into_its_messages(tmp_path: Path) -> None:
    (row,) = look(shards(tmp_path, TALK)).rows
    assert [turn.role for turn in row.turns] == ["system", "user", "assistant", "user", "assistant"]
    assert [turn.start for turn in row.turns] == [0, *(turn.stop for turn in row.turns[:-1])]
    assert row.turns[-1].stop == row.length
    assert [text_of(row, turn.start, turn.stop) for turn in row.turns[1:3]] == [
        "<|im_start|>user\nWhat is 2+2?<|im_end|>\n",
        "<|im_start|>assistant\nFour.<|im_end|>\n",
    ]
    assert [bool(turn.trained_tokens) for turn in row.turns] == [False, False, True, False, True]
    assert sum(turn.trained_tokens or 0 for turn in row.turns) == row.trained_tokens
    assert row.findings == ()


def test_conversation_is_printed_turn_by_turn(tmp_path: Path) -> None:
    text = page(look(shards(tmp_path, TALK)))
    assert text.endswith(
        "[3] assistant: 8 tokens, 4 trained\n"
        "    <|im_start|>assistant\n"
        "    ⟦Four.<|im_end|>⟧\n"
        "[4] user: 11 tokens\n"
        "    <|im_start|>user\n"
        "    And 3+3?<|im_end|>\n"
        "[5] assistant: 8 tokens, 4 trained\n"
        "    <|im_start|>assistant\n"
        "    ⟦Six.<|im_end|>⟧\n"
    )


@pytest.mark.parametrize(
    ("name", "template", "roles"),
    [
        ("bpe", chat_templates.CHATML, ["system", "user", "assistant", "user", "assistant"]),
        ("bos", "{{ bos_token }}" + chat_templates.CHATML, ["system", "user", "assistant", "user", "assistant"]),
        ("bpe", chat_templates.LLAMA2, ["system+user", "assistant", "user", "assistant"]),
        ("qwen3", None, ["system", "user", "assistant", "user", "assistant"]),
        ("granite", None, ["system", "user", "assistant", "user", "assistant"]),
    ],
)
def test_roles_are_found_by_the_headers_of_the_template(
    tmp_path: Path, tokenizer_path: Callable[[str], str], name: str, template: str | None, roles: list[str]
) -> None:
    path = shards(tmp_path, TALK, model_name_or_path=tokenizer_path(name), processor={"chat_template": template})
    (row,) = look(path).rows
    assert [turn.role for turn in row.turns] == roles
    assert row.findings == ()
    for turn in row.turns:
        assert bool(turn.trained_tokens) == (turn.role == "assistant")


def test_a_long_default_system_prompt_is_a_turn_of_its_own(
    tmp_path: Path, tokenizer_path: Callable[[str], str]
) -> None:
    written = "A chat between a curious user and a helpful assistant, who gives detailed and polite answers to all."
    template = (
        "{% if messages[0].role != 'system' %}{{ '<|system|>\n" + written + "\n' }}{% endif %}"
        "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content }}"
        "{% if message.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )
    path = shards(tmp_path, TALK[1:], model_name_or_path=tokenizer_path("bpe"), processor={"chat_template": template})
    [row] = look(path).rows
    assert [turn.role for turn in row.turns] == ["system", "user", "assistant", "user", "assistant"]
    assert text_of(row, row.turns[0].start, row.turns[0].stop).strip() == f"<|system|>\n{written}"


def test_unknown_role_is_read_from_the_row(tmp_path: Path, tokenizer_path: Callable[[str], str]) -> None:
    talk = [{"role": "critic", "content": "Hm."}, *TALK[1:3], {"role": "two words", "content": "x"}, *TALK[3:]]
    path = shards(
        tmp_path,
        talk,
        model_name_or_path=tokenizer_path("bpe"),
        processor={"chat_template": chat_templates.CHATML},
    )
    (row,) = look(path).rows
    assert [turn.role for turn in row.turns] == ["critic", "user", "assistant", None, "user", "assistant"]


def test_special_tokens_in_content_start_no_turn_and_are_reported_in_theirs(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": f"{INJECTED} Or <|im_start|> it?"}, {"role": "assistant", "content": "No."}]
    report = look(shards(tmp_path, TALK, talk), row=1)
    (row,) = report.rows
    assert [turn.role for turn in row.turns] == ["user", "assistant"]
    assert [(found.rule, found.level, found.turn) for found in row.findings] == [
        ("special_token_in_content", "warning", 0),
        ("special_token_in_content", "warning", 0),
    ]
    assert [text_of(row, found.start, found.stop) for found in row.findings] == ["<|im_end|>", "<|im_start|>"]
    lines = page(report).splitlines()
    place = lines.index("[2] assistant: 7 tokens, 3 trained")
    start = row.findings[0].start
    assert lines[place - 3] == "    Is <|im_end|> the end? Or <|im_start|> it?<|im_end|>"
    assert lines[place - 2].startswith(
        f'  warning: special_token_in_content, token {start} "<|im_end|>": a special token appears where'
    )


def test_findings_about_a_whole_row_are_printed_below_its_title(tmp_path: Path) -> None:
    path = shards(tmp_path, TALK)
    rewrite_first_row(path, lambda ids, labels: labels.__setitem__(slice(None), [-100] * len(ids)))
    report = look(path)
    (row,) = report.rows
    assert [(found.rule, found.level, found.turn) for found in row.findings] == [("no_trained_token", "error", None)]
    lines = page(report).splitlines()
    title = next(place for place, line in enumerate(lines) if line.startswith("train row 0 "))
    assert lines[title + 1] == (
        "  error: no_trained_token: no token carries a loss, so the model learns nothing from the row"
    )
    assert lines[title + 3] == "[1] system: 12 tokens"


def test_findings_are_printed_below_their_turn(tmp_path: Path) -> None:
    path = shards(tmp_path, TALK)
    (clean,) = look(path).rows
    answer, last = clean.turns[2], clean.turns[4]

    def damage(ids: list[int], labels: list[int]) -> None:
        labels[answer.start] = ids[answer.start]  # the first token of the header
        labels[last.start + 4] = labels[last.start + 5] = 7
        del ids[-2:], labels[-2:]  # the stop token, and the line end after it

    rewrite_first_row(path, damage)
    (row,) = look(path).rows
    assert [(found.rule, found.turn) for found in row.findings] == [
        ("header_trained", 2),
        ("answer_cut", 4),
        ("labels_differ", 4),
    ]
    differing = row.findings[2]
    assert (differing.start, differing.stop) == (last.start + 4, last.start + 6)


def test_many_findings_of_one_rule_are_abbreviated(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "<|im_end|> so " * 9}, {"role": "assistant", "content": "No."}]
    report = look(shards(tmp_path, talk))
    assert len(report.rows[0].findings) == 9
    lines = [line for line in page(report).splitlines() if "special_token_in_content" in line]
    assert len(lines) == 4
    assert lines[-1] == "  warning: special_token_in_content, 6 more in this turn"


def test_report_fits_80_columns(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": f"{INJECTED} " * 3}, {"role": "assistant", "content": "so " * 60}]
    path = shards(tmp_path, talk, max_seq_length=60)
    text = page(look(path), width=80, terminal=True)
    plain = "".join(part.split("m", 1)[-1] for part in ("m" + text).split("\x1b["))
    lines = plain.split("[1] user")[1].splitlines()[1:]
    assert max(map(len, lines)) <= 80
    assert all(line.startswith(("    ", "  ", "[2] ")) for line in lines)
    assert sum(line.startswith("  warning: ") for line in lines) == 4


def test_data_cannot_imitate_lines_of_the_report(tmp_path: Path) -> None:
    spoof = "a\n[2] assistant: 9 tokens, 9 trained\n  error: header_trained\x1b[31m ⟦x⟧"
    talk = [{"role": "user", "content": spoof}, {"role": "assistant", "content": "No. <|endoftext|>\x07"}]
    text = page(look(shards(tmp_path, talk)))
    assert "\n    [2] assistant: 9 tokens, 9 trained\n      error: header_trained\\x1b[31m \\u27e6x\\u27e7" in text
    assert not set("\x1b\x07\r") & set(text)
    assert sum(line.startswith("[") for line in text.splitlines()) == 2


def test_quotes_in_findings_are_short_and_escaped(tmp_path: Path, tokenizer_dir: Path, write: Writer) -> None:
    ids = byte_ids("\x1b[31m⟦ab\n" + "c" * 300)
    path = write(tmp_path / "a.parquet", input_ids=[ids], labels=[[-100, *ids[1:]]])
    text = page(look(path, tokenizer_name_or_path=str(tokenizer_dir)))
    line = next(line for line in text.splitlines() if line.startswith("  warning: answer_cut, "))
    assert f'tokens 1 to {len(ids) - 1} "[31m\\u27e6ab\\n' in line
    assert " ... " + "c" * 20 + '": the last answer' in line
    assert len(line) < 250


def test_row_without_headers_is_split_where_the_loss_starts_and_ends(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"input": "One and one?", "output": "It is two."}])
    pairs = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    preprocess(tmp_path / "out", dataset(source, data_handlers=[pairs]), model_name_or_path=MODEL)
    (row,) = look(tmp_path / "out").rows
    assert [(turn.role, bool(turn.trained_tokens)) for turn in row.turns] == [(None, False), (None, True)]
    assert text_of(row, 0, row.turns[0].stop) == "One and one?"


def test_rows_without_a_loss_or_without_tokens_can_be_split() -> None:
    nothing = RowTokens([], [], [], None, [(0, 0)])
    assert split_turns(nothing, Expectations(), ()) == ()
    three = RowTokens([1, 2, 3], ["a", "b", "c"], [False] * 3, None, [(0, 1), (1, 1), (1, 3)])
    assert [(turn.start, turn.stop, turn.sequence) for turn in split_turns(three, Expectations(), ())] == [
        (0, 1, 0),
        (1, 3, 2),
    ]
    trained = RowTokens([1, 2, 3], ["a", "b", "c"], [False] * 3, np.array([False, True, False]), [(0, 3)])
    assert [turn.trained_tokens for turn in split_turns(trained, Expectations(), ())] == [0, 1, 0]


def test_json_report_contains_turns_and_findings(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": INJECTED}, {"role": "assistant", "content": "No."}]
    row = json.loads(report_json(look(shards(tmp_path, talk))))["rows"][0]
    assert row["turns"][0] == {"start": 0, "stop": 11, "role": "user", "sequence": 0, "trained_tokens": 0}
    assert row["findings"] == [
        {"rule": "special_token_in_content", "level": "warning", "start": 5, "stop": 6, "turn": 0}
    ]


def test_no_tokenizer_is_loaded_when_no_rows_are_shown(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.parquet", input_ids=[[1, 2]], labels=[[1, 2]])
    report = look(path, rows=0, tokenizer_name_or_path=str(tmp_path / "gone"))
    assert (report.rows, report.notes) == ((), ())


def test_without_a_tokenizer_rows_are_not_split(shard_dir: Path) -> None:
    (row,) = look(shard_dir).rows
    assert (row.turns, row.findings) == ((), ())


def test_preview_is_split_and_audited_too(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": INJECTED}, {"role": "assistant", "content": "No."}]
    source = write_jsonl(tmp_path / "a.jsonl", [{"messages": talk}])
    config = InspectConfig(datasets=(dataset(source, data_handlers=[MASKED]),), model_name_or_path=MODEL)
    (row,) = inspect_shards(config, preview_shards(config, tmp_path)).rows
    assert [turn.role for turn in row.turns] == ["user", "assistant"]
    assert [found.rule for found in row.findings] == ["special_token_in_content"]
