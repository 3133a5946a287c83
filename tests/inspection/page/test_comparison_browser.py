"""The page of a comparison in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sftkit.inspection.compare.comparison import Comparison

from .browsing import CONTRASTS, Opened
from .test_comparison_page import write_comparison_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_file(compared: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "diff.html"
    write_comparison_report(compared, path)
    return path


def texts(opened: Opened, row: int, selector: str) -> list[list[str]]:
    """The texts of some elements on each side of a row."""
    found: list[list[str]] = opened.page.evaluate(
        """([row, selector]) => [...document.querySelectorAll(`#difference-${row} .side`)].map(
          (side) => [...side.querySelectorAll(selector)].map((each) => each.textContent))""",
        [row, selector],
    )
    return found


def test_both_sides_show_their_tokens_and_the_first_difference(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file) as opened:
        (first, second) = texts(opened, 1, ".text")
        assert "number 4?" in first[0]
        assert "It comes after 3." in first[0]
        assert "It goes after 3." in second[0]
        marked = texts(opened, 1, ".f")
        assert [len(side) for side in marked] == [1, 1]
        assert marked[0] != marked[1]
        trained = texts(opened, 1, ".t")
        assert "".join(trained[0]).startswith("It comes after 3.")
        assert "number" not in "".join(trained[0])
        assert opened.problems == []


def test_tokens_with_other_labels_are_marked(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file) as opened:
        first, second = texts(opened, 4, ".f")
        assert "".join(first) == "".join(second)
        assert "".join(first).startswith("It comes after 7.")
        opened.page.keyboard.press("i")
        opened.page.locator("#difference-4").scroll_into_view_if_needed()
        opened.page.locator("#difference-4 .tok").first.wait_for()
        first, second = texts(opened, 4, ".tok.f")
        assert len(first) == len(second) > 4
        assert all(
            "t" in style.split()
            for style in opened.page.eval_on_selector_all(
                "#difference-4 .side:first-child .f", "all => all.map((each) => each.className)"
            )
        )
        assert opened.problems == []


def test_tokens_are_those_of_the_comparison(browser: Browser, compared: tuple[Path, Path], tmp_path: Path) -> None:
    found, _ = write_comparison_report(compared, tmp_path / "diff.html", rows=9)
    assert isinstance(found, Comparison)
    examples = [example for example in found.examples if example.kind == "ids_differ"]
    with Opened(browser, tmp_path / "diff.html") as opened:
        opened.page.keyboard.press("i")
        for number, example in enumerate(examples, 1):
            opened.page.locator(f"#difference-{number}").scroll_into_view_if_needed()
            opened.page.locator(f"#difference-{number} .tok").first.wait_for()
            for place, ids in zip((example.a, example.b), texts(opened, number, ".tok.f small"), strict=True):
                assert place is not None
                assert example.position is not None
                assert ids == [str(place.tokens[example.position - place.first].id)]


def test_hostile_text_is_inert(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file) as opened:
        title = opened.page.title()
        for key in "tiws":
            opened.page.keyboard.press(key)
        opened.page.wait_for_timeout(200)
        assert opened.page.title() == title
        assert opened.page.locator("main img, main script, main iframe, main object").count() == 0
        assert opened.page.locator("text=onerror=").count() > 0
        assert opened.problems == []
        assert opened.requests == [page_file.as_uri()]


def test_keys_search_and_filters_find_rows(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file) as opened:
        page = opened.page
        every = opened.visible_rows()
        assert every == [f"difference-{number}" for number in range(1, 8)]
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        assert page.evaluate("document.activeElement.id") == every[0]
        page.keyboard.press("n")
        assert page.evaluate("document.activeElement.id") == every[0]
        page.keyboard.press("/")
        page.keyboard.type("raining")
        page.locator("#matches", has_text="1 of 7 rows").wait_for()
        assert opened.visible_rows() == ["difference-6"]
        page.keyboard.press("Escape")
        page.select_option("#reason", "ids differ")
        assert opened.visible_rows() == every[:3]
        assert page.locator("#matches").text_content() == "3 shown of 3"
        assert opened.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_that_of_wcag_aa_in_both_themes(browser: Browser, page_file: Path, scheme: Any) -> None:
    with Opened(browser, page_file, color_scheme=scheme) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert opened.page.evaluate(CONTRASTS) == []
        opened.page.locator("#theme").click()
        assert opened.page.evaluate(CONTRASTS) == []


def test_a_phone_never_scrolls_sideways(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file, width=320) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert not opened.scrolls_sideways()
        for key in "tiw":
            opened.page.keyboard.press(key)
        opened.page.wait_for_timeout(300)
        assert not opened.scrolls_sideways()


def test_without_scripts_all_rows_and_numbers_are_there(browser: Browser, page_file: Path) -> None:
    with Opened(browser, page_file, java_script_enabled=False) as opened:
        assert opened.page.locator(".side .t").count() > 10
        assert not opened.page.locator("#tools").is_visible()
        opened.page.emulate_media(media="print")
        assert opened.page.locator(".side").first.is_visible()
