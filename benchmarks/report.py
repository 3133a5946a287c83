"""The results of a benchmark, on the console, as JSON, and as Markdown."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_PACKAGES = ["sftkit", "transformers", "tokenizers", "datasets", "pyarrow", "trl", "gigatoken", "minijinja"]
_COLUMNS = ["", "rows", "seconds", "rows/s", "tokens/s", "figure", "target", "met", ""]


@dataclass(frozen=True)
class Limit:
    """A target: the figure must be at least, or at most, `value`."""

    value: float
    at_least: bool
    unit: str = "x"

    def met(self, figure: float) -> bool:
        """Whether a figure meets the target."""
        return figure >= self.value if self.at_least else figure <= self.value

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.value:g}{_unit(self.unit)}"


@dataclass(frozen=True)
class Line:
    """One line of the table. figure: the number that a target refers to, a ratio (x) or seconds (s)."""

    section: str
    name: str
    seconds: float | None = None
    rows: int | None = None
    tokens: int | None = None
    figure: float | None = None
    unit: str = "x"
    limit: Limit | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        return None if self.limit is None or self.figure is None else self.limit.met(self.figure)

    def cells(self) -> list[str]:
        """The line as text, by `_COLUMNS`."""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return [
            self.name,
            _count(self.rows),
            "" if self.seconds is None else f"{self.seconds:,.2f}",
            _rate(self.rows, self.seconds),
            _rate(self.tokens, self.seconds),
            "" if self.figure is None else f"{self.figure:.2f}{_unit(self.unit)}",
            "" if self.limit is None else str(self.limit),
            verdict,
            self.note,
        ]


@dataclass
class Report:
    """All results of one run of the benchmark."""

    command: str
    machine: dict[str, str]
    lines: list[Line] = field(default_factory=list)
    stages: list[tuple[str, str, float]] = field(default_factory=list)
    """Module, function and seconds in one worker, the longest first."""

    def show(self, console: Console) -> None:
        """Print it."""
        for key, value in self.machine.items():
            console.print(f"{key}: {value}", highlight=False)
        table = Table(*_COLUMNS, highlight=False)
        for section, lines in groupby(self.lines, key=lambda line: line.section):
            table.add_section()
            table.add_row(f"[bold]{section}")
            for line in lines:
                table.add_row(*line.cells(), style="red" if line.met is False else None)
        console.print(table)
        if self.stages:
            table = Table("where one worker spends its time", "seconds", "share", "mostly in", highlight=False)
            for row in self.stage_rows():
                table.add_row(*row)
            console.print(table)

    def stage_rows(self) -> list[tuple[str, str, str, str]]:
        """Module, seconds, share, and the function that takes most of it; modules below one percent are omitted."""
        total = sum(seconds for _, _, seconds in self.stages)
        modules: dict[str, list[tuple[float, str]]] = {}
        for module, function, seconds in self.stages:
            modules.setdefault(module, []).append((seconds, function))
        sums = sorted(((sum(each for each, _ in parts), module) for module, parts in modules.items()), reverse=True)
        return [
            (module, f"{seconds:.2f}", f"{seconds / total:.0%}", max(modules[module])[1])
            for seconds, module in sums
            if seconds >= total / 100
        ]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        lines = [{**asdict(line), "met": line.met} for line in self.lines]
        content = {"command": self.command, "machine": self.machine, "lines": lines, "stages": self.stages}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def markdown(self) -> str:
        """Format it as Markdown."""
        parts = [f"```console\n# takes several minutes\n{self.command}\n```", *_list(self.machine)]
        for section, lines in groupby(self.lines, key=lambda line: line.section):
            parts += ["", f"### {section}", "", *_markdown_table(_COLUMNS, [line.cells() for line in lines])]
        if self.stages:
            columns = ["module", "seconds", "share", "mostly in"]
            parts += ["", "### Where one worker spends its time", "", *_markdown_table(columns, self.stage_rows())]
        return "\n".join(parts)

    def write_into(self, path: Path) -> None:
        """Replace the text between the two marks of a file with the Markdown.

        Raises:
            ValueError: the file has no such marks.
        """
        before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"{path} has no {BEGIN} ... {END}")
        path.write_text(f"{before}{BEGIN}\n\n{self.markdown()}\n\n{END}{after}", encoding="utf-8")


def machine() -> dict[str, str]:
    """The machine and the versions that the results depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GiB",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "versions": ", ".join([f"Python {platform.python_version()}", *filter(None, map(_version, _PACKAGES))]),
    }


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def _unit(unit: str) -> str:
    return "x" if unit == "x" else f" {unit}"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _rate(number: int | None, seconds: float | None) -> str:
    return f"{number / seconds:,.0f}" if number and seconds else ""


def _list(items: dict[str, str]) -> list[str]:
    return ["", *(f"- {key}: {value}" for key, value in items.items())]


def _markdown_table(columns: list[str], rows: list[Any]) -> list[str]:
    """The table without empty columns."""
    used = [place for place, name in enumerate(columns) if place == 0 or any(row[place] for row in rows)]
    numeric = {"rows", "seconds", "rows/s", "tokens/s", "figure", "share"}
    header = [columns[place] for place in used]
    rule = ["---:" if name in numeric else "---" for name in header]
    return [f"| {' | '.join(cells)} |" for cells in [header, rule, *([row[place] for place in used] for row in rows)]]
