"""Time of a run that only mixes otherwise: `python -m benchmarks.mixing [TOKENS]`.

Six sources are tokenized once. Then their mix is changed, and all staged units are reused: each line is a whole command
in a process of its own, from its start to the published manifest, with the part that decides the order of the rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

_TOKENS = 24_000_000
_SHARES = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
_WORDS = np.array(
    ["the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not"]
)
_SEED = 7


def main() -> None:
    """Print a line per mix: seconds of the command, the run and the order; tokens; the largest error of a share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokens", nargs="?", type=int, default=_TOKENS)
    tokens = parser.parse_args().tokens
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        names = [_write_source(work, number, int(tokens * share)) for number, share in enumerate(_SHARES)]
        names_and_weights = dict(zip(names, (1, 2, 3, 1, 2, 1), strict=True))
        stages = [{"until": 0.7, "weights": {"source-*": 1}}, {"weights": {"source-[012]": 1, "source-[345]": 3}}]
        mixes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "staging and concatenating": ({}, {}),
            "weights, by tokens": (names_and_weights, {"mix_by": "tokens", "total_tokens": tokens}),
            "weights, by trained tokens": (names_and_weights, {"mix_by": "trained_tokens", "total_tokens": tokens}),
            "two stages, by tokens": ({}, {"mix_by": "tokens", "total_tokens": tokens, "stages": stages}),
        }
        for name, (weights, processor) in mixes.items():
            for packing in ((), ("--packing", "bfd", "--pack_length", "4096")):
                if not weights and not processor and packing:
                    continue
                sys.stdout.write(_run(work, name + (", packed" if packing else ""), names, weights, processor, packing))
                sys.stdout.flush()


def _write_source(work: Path, number: int, tokens: int) -> str:
    """Write pairs of about as many tokens, a word each, with log-normal lengths."""
    name, rng = f"source-{number}", np.random.default_rng([_SEED, number])
    with (work / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
        while tokens > 0:
            words = int(np.clip(rng.lognormal(5.3, 0.8), 8, 3000))
            text = " ".join(_WORDS[rng.integers(0, len(_WORDS), words)])
            stream.write(json.dumps({"input": text[: len(text) // 3], "output": text[len(text) // 3 :]}) + "\n")
            tokens -= words
    return name


def _run(
    work: Path,
    title: str,
    names: list[str],
    weights: dict[str, float],
    processor: dict[str, Any],
    packing: tuple[str, ...],
) -> str:
    arguments = {"fn_kwargs": {"input_field_name": "input", "output_field_name": "output"}}
    handlers = [{"name": "tokenize_and_apply_input_masking", "arguments": arguments}]
    datasets = [
        {
            "name": name,
            "data_paths": [str(work / f"{name}.jsonl")],
            "weight": weights.get(name),
            "data_handlers": handlers,
        }
        for name in names
    ]
    config = work / "config.json"
    config.write_text(json.dumps({"dataprocessor": processor, "datasets": datasets}))
    output = work / "out"
    command = [sys.executable, "-m", "sftkit", "preprocess", "--data_config_path", str(config)]
    command += [
        "--model_name_or_path",
        "sample:model",
        "--output_dir",
        str(output),
        "--staging_dir",
        str(work / "units"),
    ]
    start = time.perf_counter()
    subprocess.run([*command, "--overwrite", "true", *packing], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    manifest = json.loads((output / "manifest.json").read_text())
    mixes = [source["mix"] for source in manifest["sources"] if "mix" in source]
    error = max((abs(mix["wanted_share"] - mix["reached_share"]) for mix in mixes), default=0)
    train, spent = manifest["splits"]["train"], manifest["seconds"]
    return (
        f"{title:36}{seconds:7.1f} s, the run {sum(spent.values()):.1f} s, order {spent['order']:.2f} s, "
        f"{train['tokens']:,} tokens, {manifest['rows_written']:,} rows, largest error of a share {error:.4%}\n"
    )


if __name__ == "__main__":
    main()
