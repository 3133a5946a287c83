"""Ray compared with local worker processes, on one machine: whole commands and their stages, alternating.

`python -m benchmarks.cluster --rows 88000`; every Ray command starts and stops a cluster on this machine. With
`--address`, it uses a running cluster, and `--output` is a directory that all nodes see.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from .corpora import conversations
from .processes import SFTKIT, timed

_STAGES = {"plan": "plan", "stage": "tokenize", "write": "write"}
"""Names of stages in a manifest -> names that are shown."""


def main() -> None:
    """Run both executors alternately and print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=88_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokenizer", default="sample:model")
    parser.add_argument("--address", help="ray_address of a running cluster")
    parser.add_argument("--output", type=Path, help="an existing directory for the output")
    given = parser.parse_args()
    address = [] if given.address is None else [f"--ray_address={given.address}"]
    executors = {"local": [], "ray": ["--executor=ray", *address]}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in executors}
    with tempfile.TemporaryDirectory(dir=given.output) as scratch:
        corpus = conversations(Path(scratch), given.rows)
        for _ in range(given.rounds):
            for name, options in executors.items():
                output = Path(scratch, name)
                shutil.rmtree(output, ignore_errors=True)
                command = [*SFTKIT, "preprocess", *corpus.options, f"--tokenizer_name_or_path={given.tokenizer}"]
                whole, _ = timed([*command, "--num_workers=2", f"--output_dir={output}", *options])
                stages = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["seconds"]
                seconds[name].append({"command": whole, **{stage: stages[stage] for stage in _STAGES}})
        size = corpus.megabytes
        same = all(
            path.read_bytes() == Path(scratch, "ray", path.name).read_bytes()
            for path in Path(scratch, "local").glob("*.parquet")
        )
    sys.stdout.write(f"{given.rows:,} conversations, {size:.0f} MB; byte-identical: {same}\n\n")
    sys.stdout.write("| seconds | local | ray | ratio |\n| --- | ---: | ---: | ---: |\n")
    for what, shown in {"command": "command", **_STAGES}.items():
        local, ray = (statistics.median(took[what] for took in seconds[name]) for name in executors)
        sys.stdout.write(f"| {shown} | {local:.2f} | {ray:.2f} | {ray / max(local, 1e-9):.2f} |\n")


if __name__ == "__main__":
    main()
