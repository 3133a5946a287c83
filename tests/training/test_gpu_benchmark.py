"""The benchmark on a GPU goes on when a stage fails, takes too long or cannot run, and reports why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu import run, stage, tables

ROOT = Path(__file__).parent.parent.parent


def test_a_stage_that_fails_says_its_last_line() -> None:
    found = stage.run_stage("speed", ["--model", "unknown", "sftkit"], limit=60)
    assert "invalid choice: 'unknown'" in found["failed"]


def test_a_stage_that_takes_too_long_is_ended() -> None:
    assert stage.run_stage("prepare", ["--work", "/nonexistent"], limit=0.05)["failed"] == "took longer than 0 s"


def test_stages_without_time_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_stage", lambda *_arguments: pytest.fail("started"))
    checks = run._checks(run.Budget(seconds=1), Path("work"), "cpu")
    assert {check["skipped"] for check in checks.values()} == {"no time was left"}


def test_the_checks_go_on_after_one_that_ended_their_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_stage(module: str, arguments: list[Any], limit: float) -> dict[str, Any]:
        first, *others = arguments[arguments.index("--only") + 1 :]
        if first == "resume":
            return {"checks": {"resume": {"failed": "died", "seconds": 1}}, "failed": "killed"}
        if "resume" in others:
            return {"checks": {first: {"passed": {}, "seconds": 1}}, "failed": "killed"}
        return {"checks": {name: {"passed": {}, "seconds": 1} for name in (first, *others)}}

    monkeypatch.setattr(run, "run_stage", run_stage)
    checks = run._checks(run.Budget(seconds=100), Path("work"), "cpu")
    assert [name for name, check in checks.items() if "failed" in check] == ["resume"]
    assert set(checks) == set(run.CHECKS)


def test_results_are_written_into_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    measured = {"pack": 4096, "tokens_per_second": 1234.5, "trained_tokens_per_second": 600.0, "mfu": 0.4}
    results = {
        "machine": {"device": "card", "memory": 2**30, "versions": {"torch": "2"}},
        "checks": {"attention": {"passed": {"flat": 0.00123}}, "Liger": {"skipped": "not | here"}},
        "speed": [
            {"model": "0.6B", "contestant": "sftkit", "measured": [measured | {"peak_bytes": 2**31}]},
            {"model": "0.6B", "contestant": "trl", "failed": "out of memory"},
        ],
    }
    tables.write_into(page, results)
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before")
    assert '| attention | passed | "flat": 0.0012 |' in text
    assert "| Liger | skipped: not / here |  |" in text
    assert "| 0.6B | 4,096 | sftkit | 1,234 | 600 | 40% | 2.0 GiB |" in text
    assert "| 0.6B | | trl | failed: out of memory | | | |" in text


@pytest.mark.slow
def test_the_whole_benchmark_runs_on_tiny_models(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.gpu.run", "--device", "cpu", "--tiny", "--output", str(output)]
    subprocess.run([*command, "--seconds", "900"], cwd=ROOT, check=True, capture_output=True)
    results = json.loads(output.read_text())
    for name in ("attention", "loss in chunks", "gradient checkpointing", "resume", "LoRA"):
        assert "passed" in results["checks"][name], results["checks"][name]
    ours = [entry for entry in results["speed"] if entry["contestant"] == "sftkit"]
    assert all(found["tokens_per_second"] > 0 for entry in ours for found in entry["measured"])
    assert [len(entry["measured"]) for entry in ours] == [2, 1]
