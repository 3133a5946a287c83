"""What `deduplicate` costs, how many planted near duplicates it finds, and datatrove's MinHash on the same texts.

    python -m benchmarks.duplicates --work DIR                              # 88,000 conversations; 20,000 texts
    python -m benchmarks.duplicates --work DIR --datatrove VENV/bin/python  # an environment with datatrove

The cost is the time of the step as a share of the rest of the same process, so that other load on the machine concerns
both; the median of several runs. The texts for
near duplicates are random words; every fifth has a copy in which some words are changed. Both programs get the same
runs of words, bands and bytes (or hashes) of a band, and the same number of processes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from sftkit.deduplication.banding import Banding
from sftkit.deduplication.minhash import MinHasher, jaccard

from .corpora import conversations
from .processes import timed

echo = Console(highlight=False, soft_wrap=True, markup=False).print

NGRAM, BANDING = 5, Banding.for_threshold(0.8)
CHANGES = {
    "exact": {"method": "exact"},
    "exact, answers": {"method": "exact", "compare": "answers"},
    "near": {"method": "near"},
    "near, trained": {"method": "near", "compare": "trained"},
}


def preprocess(work: Path, source: Path, workers: int, deduplicate: dict[str, Any]) -> tuple[float, Path]:
    """Run `sftkit preprocess` on conversations; returns seconds of the process, and the output."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    handlers = [{"name": "tokenize_and_apply_chat_template_with_masking"}]
    data = {"name": "data", "data_paths": [str(source)], "data_handlers": handlers}
    config = {"datasets": [data], "dataprocessor": {"deduplicate": deduplicate}}
    path = work / "data.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "sftkit", "preprocess", "--data_config_path", str(path), "--output_dir", str(out)]
    seconds, _ = timed([*command, "--model_name_or_path", "sample:model", "--num_workers", str(workers)])
    return seconds, out


def costs(work: Path, rows: int, workers: int, repeats: int) -> None:
    """Print the time that each kind of deduplication adds to the rest of a run."""
    source = conversations(work, rows).path
    shares: dict[str, list[float]] = {name: [] for name in CHANGES}
    for _ in range(repeats):
        for name, found in shares.items():
            seconds, out = preprocess(work, source, workers, CHANGES[name])
            manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
            stage = manifest["seconds"]["deduplicate"]
            found.append(stage / (seconds - stage))
            left = manifest["rows_written"]
            echo(f"  {name}: {seconds:.2f} s, of which {stage:.2f} s to deduplicate; {left} rows left")
    for name, found in shares.items():
        echo(f"{name}: {statistics.median(found):+.1%}")


def planted_texts(count: int) -> tuple[list[str], dict[tuple[int, int], float]]:
    """Texts of 60 to 300 random words; and the pairs of a text and its changed copy, with their similarity."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(5, 10))) for _ in range(30_000)]
    texts: list[str] = []
    pairs: dict[tuple[int, int], float] = {}
    while len(texts) < count:
        text = rng.choices(words, k=rng.randrange(60, 300))
        texts.append(" ".join(text))
        if len(texts) % 5 == 0:
            copy = list(text)
            for place in rng.sample(range(len(copy)), rng.randrange(0, len(copy) // 14 + 2)):
                copy[place] = rng.choice(words)
            pairs[len(texts) - 1, len(texts)] = jaccard(texts[-1], " ".join(copy), NGRAM)
            texts.append(" ".join(copy))
    return texts, pairs


def compare(work: Path, count: int, workers: int, python: str | None) -> None:
    """Print which planted pairs are found, by their similarity, and the time."""
    texts, pairs = planted_texts(count)
    source, plain = work / "planted.jsonl", work / "texts.jsonl"
    rows = ({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]} for text in texts)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plain.write_text("".join(json.dumps({"text": text, "id": str(i)}) + "\n" for i, text in enumerate(texts)), "utf-8")
    near = {"method": "near", "compare": "answers", "ngram": NGRAM}
    _, out = preprocess(work, source, workers, near)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    echo(f"sftkit: {manifest['seconds']['deduplicate']:.2f} s for {count} texts")
    lines = [json.loads(line) for line in (out / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {"sftkit": {(int(line["reason"].rsplit(":", 1)[1]) - 1, line["row"] - 1) for line in lines}}
    signatures, _ = MinHasher(BANDING.hashes, NGRAM).signatures(texts)
    agree = [(signatures[i] == signatures[j]).reshape(BANDING.bands, -1).all(axis=1).any() for i, j in pairs]
    found["bands of sftkit"] = {pair for pair, is_found in zip(pairs, agree, strict=True) if is_found}
    if python is not None:
        scratch = work / "datatrove"
        shutil.rmtree(scratch, ignore_errors=True)
        script = str(Path(__file__).with_name("datatrove_minhash.py"))
        options = {"bands": BANDING.bands, "width": BANDING.width, "ngram": NGRAM, "workers": workers}
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        seconds, printed = timed([python, script, str(plain), str(scratch), *flags])
        result = json.loads(_json_line(printed))
        stages = result["signatures"] + result["buckets"]
        echo(f"datatrove: {stages:.2f} s for signatures and buckets, {seconds:.2f} s for the process")
        found["datatrove"] = {tuple(pair) for pair in result["pairs"]}
    report(pairs, found)


def _json_line(printed: str) -> str:
    return next(line for line in reversed(printed.splitlines()) if line.startswith('{"signatures"'))


def report(pairs: dict[tuple[int, int], float], found: dict[str, set[tuple[int, int]]]) -> None:
    """Print, for each range of similarities, the share of the pairs that each program finds, and what is expected."""
    bins = Counter(min(int(similarity * 20), 19) for similarity in pairs.values())
    for number in sorted(bins):
        inside = {pair: each for pair, each in pairs.items() if min(int(each * 20), 19) == number}
        expected = statistics.mean(BANDING.candidate_probability(each) for each in inside.values())
        shares = ", ".join(f"{name} {len(inside.keys() & each) / len(inside):.3f}" for name, each in found.items())
        similarity = f"{number / 20:.2f} to {number / 20 + 0.05:.2f}"
        echo(f"similarity {similarity}, {len(inside)} pairs: {shares}, S-curve {expected:.3f}")
    for name, each in found.items():
        echo(f"{name}: {len(each - pairs.keys())} pairs that were not planted")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="directory for data and outputs")
    parser.add_argument("--rows", type=int, default=88_000)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--datatrove", help="Python of an environment that has datatrove")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.rows:
        costs(options.work, options.rows, options.workers, options.repeats)
    if options.texts:
        compare(options.work, options.texts, options.workers, options.datatrove)


if __name__ == "__main__":
    main()
