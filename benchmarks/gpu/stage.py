"""Run one part of the benchmark in a process of its own, for a limited time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import ENVIRONMENT, ROOT

_MOST_CHARACTERS = 400  # of a reason


def run_stage(module: str, arguments: list[object], limit: float) -> dict[str, Any]:
    """Run a module of this package that writes a JSON object to `--result`.

    Returns:
        What it wrote, also if it failed afterwards, and `seconds`; `failed` says why it failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        result, log = Path(scratch) / "result.json", Path(scratch) / "log"
        command = [sys.executable, "-m", f"benchmarks.gpu.{module}", "--result", str(result), *map(str, arguments)]
        start = time.perf_counter()
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            failure = _wait(process, limit)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
        if failure == "":
            failure = _last_line(log.read_text(encoding="utf-8", errors="replace"))
        if failure is not None:
            found["failed"] = failure
        return found | {"seconds": time.perf_counter() - start}


def _wait(process: subprocess.Popen[bytes], limit: float) -> str | None:
    """Wait for a process; None if it succeeded, why it was ended, or an empty text if it failed itself."""
    try:
        return None if process.wait(limit) == 0 else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the workers that it started
        process.wait()
        return f"took longer than {limit:.0f} s"


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:_MOST_CHARACTERS] if lines else "the process ended without a message"
