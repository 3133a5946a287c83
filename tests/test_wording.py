"""Words that the project avoids do not come back."""

from __future__ import annotations

import re
from pathlib import Path

from plain_words import AVOIDED

ROOT = Path(__file__).parents[1]
FORBIDDEN = re.compile(rf"(?i)(?<![a-z])(?:{AVOIDED})(?![a-z])")
"""Also as parts of names such as `test_words_are_plain`."""


def test_code_and_documentation_use_plain_words() -> None:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    # Not scripts/: one of them writes conversations, in which people use any words.
    files += [path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    files.remove(ROOT / "tests" / "plain_words.py")
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := FORBIDDEN.search(line))
    ]
    assert found == []
