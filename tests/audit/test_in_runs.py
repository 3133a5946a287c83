"""The audit at the end of `preprocess` and in `inspect-shards --audit`: findings, output and exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reliability.material import sftkit
from sftkit.audit.checks.collector import AuditCollector
from sftkit.audit.expectations.expected import Expectations
from sftkit.config.commands import InspectConfig
from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Ragged
from sftkit.inspection.report import inspect_shards
from sftkit.shards.manifest import AuditInfo, Manifest, read_manifest
from sftkit.shards.reading import open_shards
from support import dataset, preprocess, without_progress, write_jsonl

from .material import MASKED_CHAT, handler

MODEL = "sample:model"
LLAMA_LIKE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}<|im_end|>\n"
    "{% else %}{{ message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat(number: int, question: str = "", answer: str = "") -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question or f"What is {number}?"},
            {"role": "assistant", "content": answer or f"It is {number}, a number."},
        ]
    }


def mixed_rows() -> list[dict[str, Any]]:
    """120 chats. Lines 5, 70 hold a special token; 33 and 119 repeat 2 and 60; 90 is cut at 40 tokens."""
    rows = [chat(number) for number in range(1, 121)]
    rows[4] = chat(5, "Is <|im_end|> the end?")
    rows[69] = chat(70, answer="Say <|endoftext|> then.")
    rows[32], rows[118] = rows[1], rows[59]
    rows[89] = chat(90, answer="It is " + "and so on " * 30)
    return rows


def found(manifest: Manifest) -> dict[str, tuple[int, list[str]]]:
    assert manifest.audit is not None
    return {each.rule: (each.rows, list(each.examples)) for each in manifest.audit.findings}


@pytest.mark.parametrize(("workers", "unit_size"), [(1, 1 << 20), (1, 2000), (2, 4000)])
def test_preprocess_names_rows_of_the_source(tmp_path: Path, workers: int, unit_size: int) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", mixed_rows())
    made = preprocess(
        tmp_path / "out",
        dataset(source, data_handlers=[MASKED_CHAT]),
        model_name_or_path=MODEL,
        max_seq_length=60,
        num_workers=workers,
        unit_size=unit_size,
    )
    assert found(made) == {
        "answer_cut": (1, [f"{source}:90"]),
        "special_token_in_content": (2, [f"{source}:5", f"{source}:70"]),
        "duplicate_row": (2, [f"{source}:33", f"{source}:119"]),
    }
    assert made.audit is not None
    assert made.audit.rows == 120
    assert read_manifest(tmp_path / "out") == made


def test_a_manifest_from_before_the_audit_is_read(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [chat(1), chat(2)])
    made = preprocess(tmp_path / "out", dataset(source, data_handlers=[MASKED_CHAT]), model_name_or_path=MODEL)
    assert made.audit == AuditInfo(2, ())
    path = tmp_path / "out" / "manifest.json"
    older = json.loads(path.read_text())
    del older["audit"]
    path.write_text(json.dumps(older))
    assert read_manifest(tmp_path / "out") == replace(made, audit=None)


def test_rows_of_text_are_not_audited(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "a"}])
    made = preprocess(tmp_path / "out", dataset(source))
    assert made.audit is None
    report = inspect_shards(InspectConfig(audit=True), open_shards(str(tmp_path / "out")))
    assert report.audit is not None
    assert (report.audit.rows, report.audit.findings) == (0, ())


def test_generation_marks_that_leave_out_the_stop_token_are_found(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [chat(number) for number in range(1, 9)])
    made = preprocess(
        tmp_path / "out",
        dataset(source, data_handlers=[MASKED_CHAT]),
        processor={"chat_template": LLAMA_LIKE},
        model_name_or_path=MODEL,
    )
    assert found(made) == {"stop_token_untrained": (8, [f"{source}:{number}" for number in range(1, 6)])}
    report = inspect_shards(InspectConfig(audit=True), open_shards(str(tmp_path / "out")))
    assert report.audit is not None
    assert [(each.rule, each.level, each.rows) for each in report.audit.findings] == [
        ("stop_token_untrained", "error", 8)
    ]
    assert report.audit.notes == ()
    own = InspectConfig(audit=True, dataprocessor=ProcessorConfig(chat_template="{{ messages[0].content }}"))
    report = inspect_shards(own, open_shards(str(tmp_path / "out")))
    assert report.audit is not None
    assert any("chat template differs" in note for note in report.audit.notes)


def test_rows_noted_while_rendering_are_named_unless_they_were_dropped() -> None:
    ids = Ragged.from_lists([[1, 2, 3], [4, 5], [6, 7], [1, 2, 3]])
    labels = Ragged.from_lists([[-100, 2, 3], [-100, -100], [-100, 7], [-100, 2, 3]])
    rows, log = AuditCollector(Expectations()), RowLog()
    rows.add(ids, labels, Ragged.from_lists([[11, 12, 15, 16]]).values.astype("int64"))
    log.flag("special_token_in_content", 15)
    log.flag("special_token_in_content", 13)  # dropped after all
    log.flag("no_trained_token", 16)
    log.flag("prompt_mismatch", 14)
    assert rows.faulty(log.flagged) == {
        "no_trained_token": (2, (12, 16)),
        "special_token_in_content": (1, (15,)),
    }


def test_rows_repeated_by_a_mix_are_not_duplicates(tmp_path: Path) -> None:
    parts = [
        dataset(
            write_jsonl(tmp_path / f"{name}.jsonl", [chat(start + number) for number in range(count)]),
            name=name,
            sampling=0.5,
            data_handlers=[MASKED_CHAT],
        )
        for name, start, count in (("few", 0, 3), ("many", 100, 40))
    ]
    made = preprocess(tmp_path / "out", *parts, model_name_or_path=MODEL)
    assert made.rows_repeated > 0
    assert found(made) == {}
    report = inspect_shards(InspectConfig(audit=True), open_shards(str(tmp_path / "out")))
    assert report.audit is not None
    assert report.audit.findings == ()
    assert "repeats" in report.audit.notes[0]


# --- shards of whatever origin


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two splits made by other software: wide types, masks instead of labels, no manifest, and a fault in each."""
    source = write_jsonl(tmp_path / "a.jsonl", [chat(number) for number in range(30)])
    preprocess(tmp_path / "out", dataset(source, data_handlers=[MASKED_CHAT]), model_name_or_path=MODEL)
    table = pq.read_table(tmp_path / "out" / "train-00000-of-00001.parquet")
    ids = table.column("input_ids").to_pylist()
    masks = [[int(label != -100) for label in row] for row in table.column("labels").to_pylist()]
    masks[7] = [0] * len(masks[7])
    ids[25] = ids[24]
    masks[25] = masks[24]
    wide = pa.list_(pa.int64())
    folder = tmp_path / "foreign"
    folder.mkdir()
    for split, part in (("train", slice(0, 20)), ("validation", slice(20, 30))):
        columns = {"input_ids": pa.array(ids[part], wide), "completion_mask": pa.array(masks[part], wide)}
        pq.write_table(pa.table(columns), folder / f"{split}.parquet", row_group_size=6)
    return folder


@pytest.mark.parametrize("tokenizer", [None, MODEL])
def test_parquet_files_of_other_tools_are_audited(foreign: Path, tokenizer: str | None) -> None:
    config = InspectConfig(audit=True, tokenizer_name_or_path=tokenizer)
    audit = inspect_shards(config, open_shards(str(foreign))).audit
    assert audit is not None
    assert audit.rows == 30
    assert [(each.rule, each.rows, each.examples) for each in audit.findings] == [
        ("no_trained_token", 1, ("train.parquet:7",)),
        ("duplicate_row", 1, ("validation.parquet:5",)),
    ]
    assert any("without a tokenizer" in note for note in audit.notes) == (tokenizer is None)
    only = inspect_shards(replace(config, split="validation"), open_shards(str(foreign))).audit
    assert only is not None
    assert [each.rule for each in only.findings] == ["duplicate_row"]


def test_fail_on_sets_the_exit_code(foreign: Path) -> None:
    plain = sftkit("inspect-shards", foreign, "--audit")
    assert (plain.code, without_progress(plain.err)) == (0, "")
    assert "audit: 30 rows checked\n" in plain.out
    assert "error: no_trained_token, 1 row: no token carries a loss" in plain.out
    assert "in train.parquet:7\n" in plain.out
    asked = sftkit("inspect-shards", foreign, "--fail_on", "error", "--format", "json")
    assert asked.code == 1
    assert [each["rule"] for each in json.loads(asked.out)["audit"]["findings"]] == [
        "no_trained_token",
        "duplicate_row",
    ]
    validation = ("inspect-shards", foreign, "--split", "validation", "--fail_on")
    assert sftkit(*validation, "error", "--audit").code == 0
    assert sftkit(*validation, "warning").code == 1
    assert sftkit("inspect-shards", foreign, "--fail_on", "never").code == 2


def test_preprocess_prints_findings_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    source = write_jsonl(tmp_path / "a.jsonl", mixed_rows())
    done = sftkit(
        "preprocess", "--training_data_path", source, "--model_name_or_path", MODEL, "--output_dir", tmp_path / "out",
        "--max_seq_length", "60",
    )  # fmt: skip
    assert done.code == 0
    assert "audit: 120 rows checked\n" in done.out
    assert "warning: answer_cut, 1 row: " in done.out
    assert f"in {source}:90\n" in done.out
    assert "raise max_seq_length or set overflow: drop" in done.out


def test_pairs_without_an_eos_are_clean_if_the_handler_adds_none(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"input": f"{n}?", "output": f"yes {n}"} for n in range(9)])
    for add in (True, False):
        masking = handler(
            "tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output", add_eos_token=add
        )
        made = preprocess(tmp_path / str(add), dataset(source, data_handlers=[masking]), model_name_or_path=MODEL)
        assert found(made) == {}
