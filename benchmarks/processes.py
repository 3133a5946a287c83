"""Run and time programs, each in a separate process."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .corpora import Corpus

ROOT = Path(__file__).resolve().parent.parent
SFTKIT = [str(Path(sys.executable).with_name("sftkit"))]
# An installed package has its bytecode, which Python would otherwise compile in every process.
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""}


class ContestantError(Exception):
    """A process failed."""


def timed(command: list[str], exit_code: int = 0) -> tuple[float, str]:
    """Wall-clock seconds of a whole process, and its output.

    Raises:
        ContestantError: it exited with another code.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode != exit_code:
        raise ContestantError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-4000:]}")
    return seconds, done.stdout


def run_module(module: str, *arguments: object) -> dict[str, Any]:
    """Run a module of this package; returns the JSON object that it writes to `--result`, with `process_seconds`."""
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        command = [sys.executable, "-m", f"benchmarks.{module}", "--result", result, *arguments]
        seconds, _ = timed([str(part) for part in command])
        return {**json.loads(result.read_text(encoding="utf-8")), "process_seconds": seconds}


@dataclass(frozen=True)
class SftkitRun:
    """A run of `sftkit preprocess`. seconds: median of the whole process; engine: as in the manifest."""

    seconds: float
    rows: int
    tokens: int
    engine: str
    output: Path


class Sftkit:
    """Runs `sftkit preprocess`, several times each, and caches the results."""

    def __init__(self, tokenizer: str, work: Path, repeats: int) -> None:
        self.tokenizer = tokenizer
        self._work = work
        self._repeats = repeats
        self._runs: dict[tuple[Path, int, str], SftkitRun] = {}

    def has_engines(self) -> bool:
        """Whether this version of sftkit has the option `--engine`."""
        return "--engine" in timed([*SFTKIT, "preprocess", "--help"])[1]

    def arguments(self, corpus: Corpus, workers: int | None, output: Path) -> list[str]:
        """The command line without the program; an existing output directory is deleted.

        `workers=None` leaves the number of workers to sftkit.
        """
        shutil.rmtree(output, ignore_errors=True)
        places = ["--tokenizer_name_or_path", self.tokenizer, "--output_dir", str(output)]
        chosen = [] if workers is None else ["--num_workers", str(workers)]
        return ["preprocess", *corpus.options, *places, *chosen]

    def run(self, corpus: Corpus, workers: int, engine: str = "") -> SftkitRun:
        """The median of several runs on a corpus; without `engine`, sftkit chooses."""
        key = (corpus.path, workers, engine)
        if key not in self._runs:
            output = self._work / f"shards-{corpus.kind}-{workers}{engine}"
            chosen = ["--engine", engine] if engine else []
            seconds = [
                timed([*SFTKIT, *self.arguments(corpus, workers, output), *chosen])[0] for _ in range(self._repeats)
            ]
            manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
            self._runs[key] = SftkitRun(
                seconds=statistics.median(seconds),
                rows=manifest["rows_read"],
                tokens=manifest["splits"]["train"]["tokens"],
                engine=" and ".join(f"{value}" for value in manifest["engine"].values()),
                output=output,
            )
        return self._runs[key]
