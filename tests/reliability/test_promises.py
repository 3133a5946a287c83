"""The tests that docs/reliability.md names for its promises exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
NAMED = re.compile(r"`((?:tests/(?:[a-z_]+/)*)?(?:test_\w+|conftest|error_rules)\.py)(?:::(\w+))?`")


def test_every_test_named_in_the_page_exists() -> None:
    page = PAGE.read_text()
    named = NAMED.findall(page)
    assert len(named) > 40
    assert re.findall(r"test_\w+|conftest|error_rules", NAMED.sub("", page)) == []  # it finds all of them
    missing = []
    for file, name in named:
        path = TESTS.parent / file if file.startswith("tests/") else TESTS / "reliability" / file
        if not path.is_file() or (name and f"def {name}(" not in path.read_text()):
            missing.append(f"{file}::{name}")
    assert not missing
