"""Links, anchors and names of modules in the documentation are correct."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import PAGES, ROOT, anchors_of, links_of

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
PACKAGE = ROOT / "src" / "sftkit"
FILES = [path.as_posix() for top in ("src", "tests", "benchmarks", "scripts") for path in (ROOT / top).rglob("*.py")]


@every_page
def test_links_lead_to_existing_pages_and_headings(page: Path) -> None:
    broken = []
    for path, anchor in links_of(page):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


@every_page
def test_pages_of_the_site_link_only_to_each_other(page: Path) -> None:
    if page.parent.name == "docs":
        assert [path for path, _ in links_of(page) if "/" in path.removeprefix("images/")] == []


@every_page
def test_modules_that_are_named_exist(page: Path) -> None:
    """A name is a path from the repository or from src/sftkit, or the last part of one, as in `labels.py`."""
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"`([\w/]+(?:\.py|/))`", text)) - {"my_rows.py", "merged/", "runs/", "site/"}
    missing = []
    for name in names:
        folder = name.endswith("/")
        exists = (ROOT / name).exists() or (PACKAGE / name).exists()
        if not exists and not any(file.endswith(f"/{name}") or (folder and f"/{name}" in file) for file in FILES):
            missing.append(name)
    assert missing == []


def test_the_site_has_every_page() -> None:
    nav = re.findall(r"^ *- (?:\w+: )?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(nav) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
