"""Data sets with hostile text, cut and removed rows, and their pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.api.inspection import run_inspect
from sftkit.config.commands import InspectConfig
from sftkit.inspection.report import Report
from support import dataset, handler, preprocess, write_jsonl

from .browsing import FLAGS, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = (
    "<script>document.title = 'run'</script></script><img src=x onerror=\"document.title='run'\"> "
    "\x1b[31mred \u202eevil {{ 7 * 7 }} <!-- & ]]>"
)


def conversation(question: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="session")
def mixed_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations: ordinary, hostile, cut at 160 tokens, and two that cannot be used."""
    folder = tmp_path_factory.mktemp("mixed")
    rows: list[object] = [conversation(f"Which number follows {n}?", f"The number {n + 1}.") for n in range(30)]
    rows += [conversation("Repeat this.", HOSTILE), conversation(HOSTILE, "No.")]
    rows += [conversation("Tell me more.", "and then " * 200), {"messages": [{"role": "user", "content": "Hm"}]}]
    rows += [{"messages": [{"role": "user", "content": 7}, {"role": "assistant", "content": HOSTILE}]}]
    source = write_jsonl(folder / "rows.jsonl", rows)
    masking = handler("tokenize_and_apply_chat_template_with_masking", conversation_column="messages")
    preprocess(
        folder / "shards",
        dataset(source, name="talk", data_handlers=[masking]),
        model_name_or_path="sample:model",
        max_seq_length=160,
        max_bad_rows=0.5,
        token_kinds=True,
    )
    return folder / "shards"


def write_report(shards: Path, page: Path, **options: object) -> tuple[Report, str]:
    """Inspect shards with a page; return the report and the HTML."""
    report = run_inspect(InspectConfig(directory=str(shards), report=str(page), **options))
    assert isinstance(report, Report)
    return report, page.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def mixed_page(mixed_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    return write_report(mixed_shards, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="session")
def altered_shards(mixed_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards with other labels than those that were written: the headers of the first 18 answers are trained."""
    folder = tmp_path_factory.mktemp("altered") / "shards"
    shutil.copytree(mixed_shards, folder)
    [shard] = folder.glob("train-*.parquet")
    table = pq.read_table(shard)
    labels = table["labels"].to_pylist()
    for row, ids in list(enumerate(table["input_ids"].to_pylist()))[:18]:
        start = len(ids) - 1 - ids[::-1].index(1)  # <|im_start|> of the answer
        labels[row][start : start + 2] = ids[start : start + 2]
    column = table.schema.get_field_index("labels")
    pq.write_table(table.set_column(column, "labels", pa.array(labels, table.schema.field(column).type)), shard)
    return folder


@pytest.fixture(scope="session")
def altered_page(altered_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    """Their page, with some of these rows only."""
    return write_report(altered_shards, tmp_path_factory.mktemp("page") / "report.html", report_rows=14)


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two data sets of 40 and 41 conversations: B has other answers (2), hostile text in another one (1), no loss in an
    answer (1), a row less, and two rows more.
    """
    folder = tmp_path_factory.mktemp("compared")
    before = [conversation(f"What do you know about the number {n}?", f"It comes after {n - 1}.") for n in range(40)]
    after = [dict(row) for row in before]
    after[4] = conversation("What do you know about the number 4?", "It goes after 3.")
    after[5] = conversation("What do you know about the number 5?", "It goes after 4.")
    after[6] = conversation("What do you know about the number 6?", f"It comes after 5. {HOSTILE}")
    question, answer = after[8]["messages"]
    after[8] = {"messages": [question, {**answer, "train": False}, question, answer]}
    before[8] = {"messages": [question, answer, question, answer]}
    del after[20]
    after += [
        conversation("Is it raining in Paris today, my dear friend?", "No, not before the evening, I think."),
        conversation("Is it snowing in Oslo today, my dear friend?", "Not before Monday morning, I am afraid."),
    ]
    masking = handler("tokenize_and_apply_chat_template_with_masking", conversation_column="messages")
    for name, rows, limit in (("a", before, 400), ("b", after, 300)):
        source = write_jsonl(folder / f"{name}.jsonl", rows)
        preprocess(
            folder / name,
            dataset(source, name="talk", data_handlers=[masking]),
            model_name_or_path="sample:model",
            max_seq_length=limit,
        )
    return folder / "a", folder / "b"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra: dev)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        yield opened
        opened.close()
