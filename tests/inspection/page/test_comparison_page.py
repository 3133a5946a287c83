"""The page of a comparison: its numbers, its examples, and options that it refuses."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from sftkit.api.inspection import run_inspect
from sftkit.cli.app import app
from sftkit.cli.console.reports.show_report import has_failed, print_inspection, report_json
from sftkit.config.commands import InspectConfig
from sftkit.errors import OutputError, UsageError
from sftkit.inspection.compare.comparison import Comparison, KindCounts
from sftkit.inspection.page import page_file
from sftkit.inspection.page.comparison import write_comparison

from .conftest import write_report


def write_comparison_report(sides: tuple[Path, Path], page: Path, **options: Any) -> tuple[Comparison, str]:
    """Compare two data sets with a page; return the comparison and the HTML."""
    config = InspectConfig(directory=str(sides[0]), compare=str(sides[1]), report=str(page), **options)
    found = run_inspect(config)
    assert isinstance(found, Comparison)
    return found, page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(compared: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, str]:
    return write_comparison_report(compared, tmp_path_factory.mktemp("page") / "diff.html")


def numbers_in(html: str) -> list[float]:
    return [float(value) for value in re.findall(r'<data value="([^"]+)">', html)]


def part(html: str, start: str, end: str) -> str:
    return html[html.index(start) : html.index(end, html.index(start))]


def test_numbers_are_those_of_the_json(written: tuple[Comparison, str]) -> None:
    found, html = written
    document = json.loads(report_json(found))
    kinds = ("identical", "moved", "labels_differ", "ids_differ", "only_in_a", "only_in_b")
    assert numbers_in(part(html, 'id="key"', "</dl>")) == [document["counts"][kind] for kind in kinds]
    lines = [split["counts"] for split in document["splits"]]
    assert numbers_in(part(html, 'id="splits"', "</table>")) == [counts[kind] for counts in lines for kind in kinds]
    sources = [source["counts"] for source in document["sources"]]
    assert numbers_in(part(html, 'id="sources"', "</table>")) == [counts[kind] for counts in sources for kind in kinds]
    facts = part(html, "What both data sets hold</caption>", "</table>")
    rows = [document[side]["splits"]["train"] for side in "ab"]
    tokens = [[document[side][name] for side in "ab"] for name in ("tokens", "trained_tokens")]
    assert numbers_in(facts) == [*rows, *tokens[0], *tokens[1]]
    table = part(html, 'id="picture-kinds"', "</table>")
    assert numbers_in(table) == [document["counts"][kind] for kind in kinds[1:]]


def test_differences_are_those_that_were_made(written: tuple[Comparison, str]) -> None:
    found, html = written
    assert found.counts == KindCounts(identical=35, labels_differ=1, ids_differ=3, only_in_a=1, only_in_b=2)
    titles = re.findall(r"<h3><a href=\"#difference-\d+\">([^<]+)</a>", html)
    assert [title.split(" from")[0] for title in titles] == [
        *["ids differ"] * 3,
        "labels differ",
        "only in A",
        *["only in B"] * 2,
    ]
    settings = part(html, 'class="settings"', "</table>")
    for setting in found.settings:
        assert f">{setting.key}</th>" in settings
    assert '>config.max_seq_length</th><td class="path">400</td><td class="path">300</td>' in settings


def test_trained_tokens_are_those_of_the_summary(written: tuple[Comparison, str], compared: tuple[Path, Path]) -> None:
    for side, folder in zip((written[0].a, written[0].b), compared, strict=True):
        summary = run_inspect(InspectConfig(directory=str(folder), rows=0)).summary  # type: ignore[union-attr]
        assert side.trained_tokens == sum(split.trained_tokens or 0 for split in summary.splits)
        assert side.tokens == sum(split.tokens or 0 for split in summary.splits)


def test_a_page_has_at_most_the_rows_that_were_asked_for(compared: tuple[Path, Path], tmp_path: Path) -> None:
    _, few = write_comparison_report(compared, tmp_path / "few.html", report_rows=4)
    titles = re.findall(r"<h3><a href=\"#difference-\d+\">([^<]+)</a>", few)
    assert [title.split(" from")[0] for title in titles] == ["ids differ", "labels differ", "only in A", "only in B"]
    _, none = write_comparison_report(compared, tmp_path / "none.html", report_rows=0)
    assert "raining" not in none
    assert "evil" not in none
    assert "made without rows" in none


def test_a_large_page_leaves_out_rows(
    compared: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, every = write_comparison_report(compared, tmp_path / "every.html")
    monkeypatch.setattr(write_comparison, "MAX_BYTES", len(every.encode()) - 1)
    _, fewer = write_comparison_report(compared, tmp_path / "fewer.html")
    assert 0 < fewer.count("<article") < every.count("<article")
    left_out = every.count("<article") - fewer.count("<article")
    assert f'<data value="{left_out}">{left_out}</data> examples that would be shown are left out' in fewer
    assert "left out" not in every
    monkeypatch.setattr(write_comparison, "MAX_BYTES", 1)
    _, none = write_comparison_report(compared, tmp_path / "none.html")
    assert "<article" not in none
    assert f"{every.count('<article')}</data> examples that would be shown are left out" in none


@pytest.mark.parametrize("options", [("--compare={other}",), ()])
def test_what_was_found_is_printed_if_the_page_cannot_be_written(
    options: tuple[str, ...], compared: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(page_file, "write_text", fail)
    line = [str(compared[0]), *(option.format(other=compared[1]) for option in options)]
    done = CliRunner().invoke(app, ["inspect-shards", *line, f"--report={tmp_path / 'diff.html'}"])
    assert done.exit_code == 1
    assert "diff.html: cannot be written: No space left on device" in done.output
    assert ("7 rows differ" if options else "nothing found") in done.output
    assert "report written" not in done.output


def test_text_and_equal_data_sets_have_pages(compared: tuple[Path, Path], tmp_path: Path) -> None:
    _, same = write_comparison_report((compared[0], compared[0]), tmp_path / "same.html")
    assert "No row differs" in same
    assert "Same fingerprint" in same
    assert "<article" not in same
    texts = [tmp_path / name for name in ("a.parquet", "b.parquet")]
    for path, end in zip(texts, ("one & two", "one < two"), strict=True):
        pq.write_table(pa.table({"text": ["same", f"They said {end}"]}), path)
    found, page = write_comparison_report((texts[0], texts[1]), tmp_path / "text.html")
    assert found.counts == KindCounts(identical=1, ids_differ=1)
    assert '<span class="n">They said one </span><span class="n f">&lt;</span><span class="n"> two</span>' in page


def test_columns_that_pair_rows_are_named(tmp_path: Path) -> None:
    for name, token in (("a", 5), ("b", 6)):
        table = pa.table({"input_ids": [[1, 2, token]], "labels": [[-100, 2, token]], "id": ["<b>x</b>"]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    sides = tmp_path / "a.parquet", tmp_path / "b.parquet"
    _, page = write_comparison_report(sides, tmp_path / "diff.html", compare_by="id")
    assert "ids differ from token 2 on, paired by id" in page


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"report": "diff.parquet"}, UsageError, "must be the name of an HTML file"),
        ({"report": "missing/diff.html"}, OutputError, "there is no directory"),
        ({"report": "diff.html", "report_rows": 501}, UsageError, "report_rows must be between 0 and 500"),
        ({"report": "diff.html", "verify": True}, UsageError, "leave out verify"),
        ({"report": "diff.html", "audit": True}, UsageError, "leave out audit"),
    ],
)
def test_options_that_make_no_page_are_refused_at_once(
    options: dict[str, Any], error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        run_inspect(InspectConfig(directory="a", compare="b", **options))
    assert not list(tmp_path.iterdir())


def test_a_folder_without_permission_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="no permission to write to"):
        run_inspect(InspectConfig(directory="a", compare="b", report=str(tmp_path / "diff.html")))


def test_the_command_says_where_the_page_is_and_fails_on_differences(written: tuple[Comparison, str]) -> None:
    stream = io.StringIO()
    print_inspection(written[0], InspectConfig(report="diff.html"), Console(file=stream, width=200))
    assert "report written to diff.html" in stream.getvalue()
    assert has_failed(written[0], InspectConfig(fail_on_difference=True))


def test_pages_share_one_style_sheet_and_script(
    written: tuple[Comparison, str], mixed_shards: Path, tmp_path: Path
) -> None:
    _, report = write_report(mixed_shards, tmp_path / "report.html", report_rows=1)
    for tag in ("style", "script"):
        pattern = rf"<{tag}>(.*?)</{tag}>"
        assert re.findall(pattern, report, re.DOTALL) == re.findall(pattern, written[1], re.DOTALL)
