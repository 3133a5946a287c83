"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

SKIPPED = frozenset(
    {
        "# needs a GPU",
        "# needs several GPUs",
        "# needs several machines",
        "# needs network access",
        "# needs a Kubernetes cluster",
        "# needs a chat template that can skip reasoning",
        "# takes several minutes",
    }
)
"""First lines of blocks that are not run."""

_FENCE = re.compile(r"^(`{3,})(\w*)$")
_FILE_NAME = re.compile(r"^# ([\w./-]+\.(?:yaml|py|toml))$")


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: str
    line: int
    language: str
    text: str
    is_output: bool
    """Whether it directly follows a console or Python block, and so shows its output."""

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0]

    @property
    def is_skipped(self) -> bool:
        return self.first_line in SKIPPED

    @property
    def file_name(self) -> str | None:
        """The file that the block shows, from a first line such as `# data.yaml`."""
        match = _FILE_NAME.match(self.first_line)
        return match[1] if match else None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each command, with continuation lines joined and comments removed."""
        lines = self.text.replace("\\\n", " ").split("\n")
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: Path) -> Iterator[Block]:
    fence, language, start, lines = "", "", 0, []
    after_run = False
    for number, line in enumerate(page.read_text(encoding="utf-8").split("\n"), start=1):
        match = _FENCE.match(line)
        if not fence and match:
            fence, language, start, lines = match[1], match[2], number, []
        elif fence and line == fence:
            yield Block(page.name, start, language, "\n".join(lines), after_run and language == "text")
            fence, after_run = "", language in ("console", "python")
        elif fence:
            lines.append(line)
        elif line:
            after_run = False


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub and MkDocs give to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links_of(page: Path) -> list[tuple[str, str]]:
    """(path, anchor) of every link that is not to another site; either may be empty."""
    targets = re.findall(r"\]\(([^)\s]+)\)", _without_blocks(page))
    return [tuple(target.partition("#")[::2]) for target in targets if "://" not in target]


def _without_blocks(page: Path) -> str:
    return re.sub(r"^(`{3,})\w*\n.*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
