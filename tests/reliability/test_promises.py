"""The tests that docs/reliability.md names for its promises exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
NAMED = re.compile(r"`((?:tests/[a-z]+/)?(?:test_\w+|conftest|error_rules)\.py|tests/conftest\.py)(?:::(\w+))?`")


def test_every_test_named_in_the_page_exists() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 40
    missing = []
    for file, name in named:
        path = TESTS.parent / file if file.startswith("tests/") else TESTS / "reliability" / file
        if not path.is_file() or (name and f"def {name}(" not in path.read_text()):
            missing.append(f"{file}::{name}")
    assert not missing
