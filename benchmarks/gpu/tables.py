"""The results of the benchmark on a GPU as Markdown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu results: begin -->", "<!-- gpu results: end -->"


def markdown(results: dict[str, Any]) -> str:
    """The machine, the checks, and the speed of every contestant."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    memory = f", {machine['memory'] / 2**30:.0f} GiB" if machine["memory"] else ""
    lines = [
        f"{machine['device']}{memory}; {versions}.",
        "",
        "| check | result | largest difference |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {_state(check)} | {_differences(check)} |" for name, check in results["checks"].items()]
    lines += [
        "",
        "| model | pack | contestant | tokens/s | trained tokens/s | MFU | peak memory |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for entry in results["speed"]:
        start = f"| {entry['model']}"
        for found in entry.get("measured", ()):
            rates = f"{found['tokens_per_second']:,.0f} | {found['trained_tokens_per_second']:,.0f}"
            rest = f"{_share(found['mfu'])} | {_memory(found['peak_bytes'])}"
            lines.append(f"{start} | {found['pack']:,} | {entry['contestant']} | {rates} | {rest} |")
        if _state(entry) != "passed":
            lines.append(f"{start} | | {entry['contestant']} | {_state(entry)} | | | |")
    return "\n".join(lines) + "\n"


def write_into(page: Path, results: dict[str, Any]) -> None:
    """Replace the results between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{markdown(results)}\n{END}", text, count=1), encoding="utf-8")


def _state(stage: dict[str, Any]) -> str:
    for key in ("failed", "skipped"):
        if key in stage:
            return f"{key}: {' '.join(str(stage[key]).replace('|', '/').split())}"
    return "passed"


def _differences(check: dict[str, Any]) -> str:
    values = check.get("passed")
    return json.dumps({name: float(f"{value:.1e}") for name, value in values.items()}).strip("{}") if values else ""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _memory(value: int | None) -> str:
    return "" if value is None else f"{value / 2**30:.1f} GiB"
