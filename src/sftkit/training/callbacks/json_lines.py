"""Files of one JSON object a line, which a run that resumes goes on writing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftkit.errors import OutputError


class JsonLines:
    """A file of one JSON object a line, each with the `step` at which it was written.

    A run that starts anew replaces the file. A run that resumes from a checkpoint keeps the lines up to its step
    and goes on from there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, step: int) -> None:
        """Keep what is before the first step of a run that begins after `step` steps.

        Raises:
            OutputError: the file cannot be written.
        """
        kept = [line for line in self._lines() if _step_of(line) <= step] if step else []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one line; it is on its way to the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")

    def _lines(self) -> list[str]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return text.split("\n")  # splitlines() would also split at characters that JSON leaves in its texts


def _step_of(line: str) -> float:
    """The step of a written event; a line that was cut short by a kill comes after all."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
