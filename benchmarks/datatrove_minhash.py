"""Runs datatrove's MinHash on texts. It runs in the environment that datatrove is installed in, which has no sftkit.

    PYTHON benchmarks/datatrove_minhash.py TEXTS.jsonl WORK --bands 26 --width 8 --ngram 5 --workers 2

It prints a JSON object: seconds of signatures and of buckets, and the pairs of texts, by number, that share a bucket.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from pathlib import Path


def main() -> None:
    """Run the first two stages, which find the pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("work", type=Path)
    for name in ("bands", "width", "ngram", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.utils.text import TextNormConfig

    as_they_are = TextNormConfig(remove_punctuation=False, norm_unicode_diacritics=False, norm_numbers=False)
    config = MinhashConfig(
        n_grams=options.ngram,
        num_buckets=options.bands,
        hashes_per_bucket=options.width,
        norm_config=as_they_are,
    )
    signatures, buckets = options.work / "signatures", options.work / "buckets"
    parts = options.work / "texts"
    parts.mkdir(parents=True)
    lines = options.texts.read_text(encoding="utf-8").splitlines(keepends=True)
    size = -(-len(lines) // options.workers)
    for part in range(options.workers):
        (parts / f"{part}.jsonl").write_text("".join(lines[part * size : (part + 1) * size]), encoding="utf-8")
    begin = time.perf_counter()
    LocalPipelineExecutor(
        [JsonlReader(str(parts)), MinhashDedupSignature(str(signatures), config)],
        tasks=options.workers, workers=options.workers, logging_dir=str(options.work / "log-1"),
    ).run()  # fmt: skip
    middle = time.perf_counter()
    LocalPipelineExecutor(
        [MinhashDedupBuckets(str(signatures), str(buckets), config=config)],
        tasks=options.bands, workers=options.workers, logging_dir=str(options.work / "log-2"),
    ).run()  # fmt: skip
    end = time.perf_counter()
    pairs = set()
    for path in sorted(buckets.rglob("*.dups")):
        for one_file, one, other_file, other in struct.iter_unpack("<4I", path.read_bytes()):
            pairs.add(tuple(sorted((one_file * size + one, other_file * size + other))))
    result = {"signatures": middle - begin, "buckets": end - middle, "pairs": sorted(pairs)}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
