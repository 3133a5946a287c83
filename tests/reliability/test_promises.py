"""The tests that docs/reliability.md and SECURITY.md name for their promises exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGES = ("docs/reliability.md", "SECURITY.md")
NAMED = re.compile(r"`((?:tests/(?:[a-z_]+/)*)?(?:test_\w+|conftest|error_rules)\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("name", PAGES)
def test_every_test_named_in_the_page_exists(name: str) -> None:
    page = (TESTS.parent / name).read_text()
    named = NAMED.findall(page)
    assert len(named) > 20
    assert re.findall(r"test_\w+|conftest|error_rules", NAMED.sub("", page)) == []  # it finds all of them
    missing = []
    for file, test in named:
        path = TESTS.parent / file if file.startswith("tests/") else TESTS / "reliability" / file
        if not path.is_file() or (test and f"def {test}(" not in path.read_text()):
            missing.append(f"{file}::{test}")
    assert not missing


def test_each_line_of_the_trust_model_names_a_test() -> None:
    page = (TESTS.parent / "SECURITY.md").read_text()
    lines = [line for line in page.split("\n") if line.startswith("| ") and not line.startswith(("| From", "| ---"))]
    assert len(lines) > 10
    assert [line for line in lines if not NAMED.search(line)] == []
