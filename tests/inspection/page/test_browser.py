"""The page in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkit.api.inspection import run_inspect
from sftkit.config.commands import InspectConfig
from sftkit.core.escape import visible_parts
from sftkit.inspection.report import Report
from support import dataset, handler, preprocess, write_jsonl

from .browsing import CONTRASTS, Opened
from .conftest import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_file(mixed_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(mixed_shards, path)
    return path


def test_hostile_text_is_inert(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file) as opened:
        title = opened.page.title()
        for key in "tiws":
            opened.page.keyboard.press(key)
        opened.page.wait_for_timeout(200)
        assert opened.page.title() == title
        assert "run" not in title
        assert opened.page.locator("main img, main script, main iframe, main object").count() == 0
        assert opened.page.locator("text=onerror=").count() > 0
        # Whatever a row could inject would not run: neither inline scripts nor handlers nor requests.
        opened.problems.clear()
        opened.page.evaluate(
            """() => {
              const script = document.createElement("script");
              try { script.text = "document.title = 'run'"; } catch { return; }
              document.body.append(script);
            }"""
        )
        assert opened.page.title() == title
        assert opened.requests == [page_file.as_uri()]


def test_bubbles_show_the_trained_tokens(browser: Browser, page_file: Path, mixed_shards: Path) -> None:
    report = run_inspect(InspectConfig(directory=str(mixed_shards), rows=100))
    assert isinstance(report, Report)
    with Opened(browser, page_file) as opened:
        shown = opened.visible_rows()
        texts = {key: "".join(opened.page.locator(f"#{key} .text .t").all_text_contents()) for key in shown}
        opened.page.keyboard.press("t")
        opened.page.emulate_media(media="print")  # draws all rows, as those far from the view are not drawn before
        opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        tokens = {
            key: opened.page.eval_on_selector_all(
                f"#{key} .tok", "tokens => tokens.map((token) => [token.dataset.tip, token.classList.contains('t')])"
            )
            for key in shown
        }
        assert opened.problems == []
    checked = 0
    for row in report.rows:
        key = f"row-train-{row.row}"
        if key not in texts:
            continue
        trained = "".join(token.text or "" for token in row.tokens if token.trained)
        assert texts[key] == "".join(part.text for part in visible_parts(trained))
        assert tokens[key] == [
            [f"token {place}, id {token.id}", bool(token.trained)] for place, token in enumerate(row.tokens)
        ]
        checked += 1
    assert checked == len(shown) > 20


def test_search_filters_and_keys(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file) as opened:
        page = opened.page
        every = opened.visible_rows()
        page.keyboard.press("/")
        page.keyboard.type("and then")
        page.locator("#matches", has_text=f"1 of {len(every)} rows").wait_for()
        assert len(opened.visible_rows()) == 1
        assert page.evaluate("CSS.highlights.get('found').size") > 10
        page.keyboard.press("Escape")
        assert opened.visible_rows() == every
        page.select_option("#reason", "longest")
        assert 0 < len(opened.visible_rows()) < len(every)
        page.select_option("#reason", "*")
        with_findings = opened.visible_rows()
        page.select_option("#reason", "")
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.keyboard.press("j")
        assert page.evaluate("document.activeElement.id") == every[0]
        page.keyboard.press("j")
        page.keyboard.press("k")
        assert page.evaluate("document.activeElement.id") == every[0]
        page.keyboard.press("n")
        assert page.evaluate("document.activeElement.id") in with_findings
        page.fill("#batch", "10")
        assert page.locator("#steps").text_content() == "4 steps per epoch"
        page.fill("#batch", "1000")
        assert page.locator("#steps").text_content() == "1 step per epoch"
        page.fill("#batch", "0")
        assert page.locator("#steps").text_content() == "enter 1 or more"
        assert opened.problems == []


def test_the_page_scrolls_to_what_is_found_and_n_wraps_around(
    browser: Browser, altered_shards: Path, tmp_path: Path
) -> None:
    write_report(altered_shards, tmp_path / "report.html")
    with Opened(browser, tmp_path / "report.html", reduced_motion="reduce") as opened:
        page = opened.page
        page.fill("#search", "and then")
        page.locator("#matches", has_text="1 of ").wait_for()
        [found] = opened.visible_rows()
        top = f"document.getElementById('{found}').getBoundingClientRect().top"
        page.wait_for_function(f"{top} > 0 && {top} < innerHeight / 2")
        page.fill("#search", "")
        page.evaluate("scrollTo(0, 0)")
        page.select_option("#reason", "answer_cut")
        page.wait_for_function("scrollY > 500")
        assert "shown of" in (page.locator("#matches").text_content() or "")
        page.select_option("#reason", "*")
        with_findings = opened.visible_rows()
        page.select_option("#reason", "")
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        stops = []
        for _ in range(len(with_findings) + 1):
            assert page.locator("#said").text_content() == ""
            page.keyboard.press("n")
            stops.append(page.evaluate("document.activeElement.id"))
        assert stops == [*with_findings, with_findings[0]]
        assert "first row with a finding" in (page.locator("#said").text_content() or "")
        page.keyboard.press("j")
        assert page.locator("#said").text_content() == ""
        assert opened.problems == []


def test_pictures_show_numbers_below_the_pointer(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file) as opened:
        column = opened.page.locator("#picture-train-shares .col").first
        column.scroll_into_view_if_needed()
        column.hover()
        assert opened.page.locator("#tip").text_content() == column.get_attribute("data-tip")
        assert opened.page.locator("svg").count() == opened.page.locator("svg[role=img] > title").count()
        opened.page.locator("#picture-train-lengths label").nth(1).click()
        assert opened.page.locator("#picture-train-lengths .drawing").nth(1).is_visible()
        assert not opened.page.locator("#picture-train-lengths .drawing").nth(0).is_visible()


def test_rows_that_were_removed_as_too_long_are_in_the_picture_of_lengths(browser: Browser, tmp_path: Path) -> None:
    rows = [{"input_ids": [3] * length, "labels": [3] * length} for length in (5, 6, 40, 50, 100)]
    preprocess(tmp_path / "out", dataset(write_jsonl(tmp_path / "in.jsonl", rows)), max_seq_length=8, overflow="drop")
    write_report(tmp_path / "out", tmp_path / "report.html")
    with Opened(browser, tmp_path / "report.html") as opened:
        picture = opened.page.locator("#picture-train-lengths .drawing").first
        longest = picture.locator(".col", has=opened.page.locator(".removed")).last
        longest.scroll_into_view_if_needed()
        longest.hover()
        tip = opened.page.locator("#tip").text_content()
        assert tip == "64 to 127 tokens: 0 rows (0.0%); 1 removed as too long"
        dashes = longest.locator(".removed").evaluate("bar => getComputedStyle(bar).strokeDasharray")
        assert dashes != "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_that_of_wcag_aa_in_both_themes(browser: Browser, page_file: Path, scheme: Any) -> None:
    with Opened(browser, page_file, color_scheme=scheme) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert opened.page.evaluate(CONTRASTS) == []
        opened.page.keyboard.press("i")
        opened.page.wait_for_timeout(300)
        assert opened.page.evaluate(CONTRASTS) == []
        before = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        opened.page.locator("#theme").click()
        assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        assert opened.page.evaluate(CONTRASTS) == []
        opened.page.evaluate("document.querySelector('h1').style.color = '#777'")
        assert len(opened.page.evaluate(CONTRASTS)) == 1, "the check sees what it looks for"


@pytest.mark.parametrize("shards", ["mixed_shards", "altered_shards"])
def test_a_phone_never_scrolls_sideways(
    browser: Browser, shards: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    write_report(request.getfixturevalue(shards), tmp_path / "report.html")
    with Opened(browser, tmp_path / "report.html", width=320) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert not opened.scrolls_sideways()
        for key in "tiw":
            opened.page.keyboard.press(key)
        opened.page.wait_for_timeout(300)
        assert not opened.scrolls_sideways()


def test_without_scripts_all_rows_and_numbers_are_there(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file, java_script_enabled=False) as opened:
        assert opened.page.locator(".row .t").count() > 20
        assert not opened.page.locator("#tools").is_visible()


def test_a_million_rows_make_a_small_page(browser: Browser, mixed_shards: Path, tmp_path: Path) -> None:
    [shard] = mixed_shards.glob("train-*.parquet")
    table = pq.read_table(shard)
    path = tmp_path / "shards" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    times, written = 50_000 // len(table), 0
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        part = pa.concat_tables([table] * times)
        while written < 1_000_000:
            writer.write_table(part)
            written += len(part)
    report_file = tmp_path / "report.html"
    report, page = write_report(path.parent, report_file, tokenizer_name_or_path="sample:model")
    assert report.summary.splits[0].rows == written >= 1_000_000
    assert len(page.encode()) < 5_000_000
    with Opened(browser, report_file) as opened:
        assert len(opened.visible_rows()) > 20
        assert opened.problems == []
        value = opened.page.locator("#numbers-table data").nth(1).get_attribute("value")
        assert json.loads(value or "") == written


def test_a_picture_shows_the_drawing_that_is_chosen(browser: Browser, tmp_path: Path) -> None:
    """The picture of a mix has the most drawings."""
    sources = [write_jsonl(tmp_path / f"{name}.jsonl", [{"input": "a", "output": name}] * 9) for name in ("b", "c")]
    masking = handler("tokenize_and_apply_input_masking", input_field_name="input", output_field_name="output")
    datasets = [dataset(source, name=source.stem, sampling=0.5, data_handlers=[masking]) for source in sources]
    preprocess(tmp_path / "shards", *datasets, model_name_or_path="sample:model")
    write_report(tmp_path / "shards", tmp_path / "report.html")
    with Opened(browser, tmp_path / "report.html") as opened:
        names = opened.page.locator("figure[id$=sources] .choice + label")
        drawings = opened.page.locator("figure[id$=sources] .drawing")
        assert names.all_text_contents() == ["rows", "tokens", "shares"]
        for chosen in range(3):
            names.nth(chosen).click()
            assert [drawings.nth(number).is_visible() for number in range(3)] == [
                number == chosen for number in range(3)
            ]
