"""Training on one GPU: `python -m benchmarks.gpu.run [--device cpu --tiny] [--seconds N] [--write PAGE]`.

First whether it is right, then how fast it is, compared with TRL on the same card in the same run. Every stage runs in
a process of its own for a limited time; one that fails, takes too long or cannot run here is reported as that, and the
others go on. Weights are random, rows come from the generator of the bundled sample, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .checks import CHECKS
from .setups import LARGE, TINY
from .stage import run_stage
from .tables import markdown, write_into

RESULTS = Path(__file__).resolve().parent.parent / "results"
_PACKAGES = (
    "sftkit",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "trl",
    "flash-attn",
    "liger-kernel",
    "bitsandbytes",
)
_CONTESTANTS = ("sftkit", "trl")
_CHECKS_LIMIT, _PREPARE_LIMIT = 200.0, 90.0
_SHORTEST = 15.0  # seconds that a stage needs to be worth its start


@dataclass
class Budget:
    """The time of the whole benchmark."""

    seconds: float
    start: float = field(default_factory=time.perf_counter)

    def for_stage(self, limit: float) -> float:
        """The seconds that a stage may take; 0 if too few are left."""
        left = self.seconds - (time.perf_counter() - self.start)
        return min(limit, left) if left >= _SHORTEST else 0.0


def main() -> None:
    """Run all stages; print, and write, what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to test the benchmark itself")
    parser.add_argument("--seconds", type=float, default=480, help="for everything together")
    parser.add_argument("--only", nargs="+", choices=("checks", "speed"), default=("checks", "speed"))
    parser.add_argument("--output", type=Path, help="file for the results; default: benchmarks/results/gpu-NAME.json")
    parser.add_argument("--write", type=Path, help="page of the documentation whose results are updated")
    options = parser.parse_args()
    if options.device == "cuda" and not _has_gpu():
        sys.exit("there is no GPU that torch can use; --device cpu --tiny tests the benchmark itself")
    budget = Budget(options.seconds)
    results: dict[str, Any] = {"machine": _machine(options.device), "tiny": options.tiny, "checks": {}, "speed": []}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        given = ["--work", work, *(["--tiny"] if options.tiny else [])]
        prepared = _stage(budget, _PREPARE_LIMIT, "prepare", given)
        results["prepared"] = prepared
        say(f"models and shards: {_outcome(prepared)}")
        if "failed" not in prepared and "skipped" not in prepared:
            if "checks" in options.only:
                results["checks"] = _checks(budget, work, options.device)
            if "speed" in options.only:
                results["speed"] = _speed(budget, work, options.device, tiny=options.tiny)
    results["seconds"] = time.perf_counter() - budget.start
    output = options.output or RESULTS / f"gpu-{_file_name(results['machine']['device'], tiny=options.tiny)}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    say(f"\n{markdown(results)}\nwritten to {output}, after {results['seconds']:.0f} s")
    if options.write is not None:
        write_into(options.write, results)


def _checks(budget: Budget, work: Path, device: str) -> dict[str, Any]:
    """Run the checks; a process that dies in one of them is started again for those that remain."""
    found: dict[str, Any] = {}
    while remaining := [name for name in CHECKS if name not in found]:
        given = ["--work", work, "--device", device, "--only", *remaining]
        stage = _stage(budget, _CHECKS_LIMIT, "checks", given)
        if not stage.get("checks"):
            found |= dict.fromkeys(remaining, stage)
        found |= stage.get("checks", {})
    for name, check in found.items():
        say(f"{name}: {_outcome(check)}")
    return found


def _speed(budget: Budget, work: Path, device: str, *, tiny: bool) -> list[dict[str, Any]]:
    found = []
    for setup in TINY if tiny else LARGE:
        for contestant in _CONTESTANTS:
            given = ["--model", setup.name, "--device", device, "--work", work, contestant]
            stage = _stage(budget, setup.limit, "speed", given)
            found.append({"model": setup.name, "contestant": contestant, **stage})
            say(f"{setup.name}, {contestant}: {_outcome(stage)}")
    return found


def _stage(budget: Budget, limit: float, module: str, given: list[object]) -> dict[str, Any]:
    seconds = budget.for_stage(limit)
    return run_stage(module, given, seconds) if seconds else {"skipped": "no time was left", "seconds": 0.0}


def _outcome(stage: dict[str, Any]) -> str:
    for key in ("failed", "skipped"):
        if key in stage:
            return f"{key.upper()}: {stage[key]}"
    return f"{stage.get('seconds', 0):.0f} s {json.dumps(stage['passed']) if 'passed' in stage else ''}".strip()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _machine(device: str) -> dict[str, Any]:
    import torch

    name = platform.processor() or platform.machine()
    memory = None
    if device == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        name, memory = properties.name, properties.total_memory
    return {"device": name if device == "cuda" else "CPU", "memory": memory, "versions": _versions()}


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _file_name(name: str, *, tiny: bool) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in name).lower().split()
    return "-".join([*words, *(["tiny"] if tiny else [])])


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
