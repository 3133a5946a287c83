"""Training compared with TRL's SFTTrainer: `python -m benchmarks.training [--conversations N] [--repeats N]`.

One epoch over the same tokenized conversations, about half of whose tokens carry a loss, with the same small Llama
(four layers of width 256, a vocabulary of 49,152) in float32: trained tokens per second, without padding and masked
tokens. Each contestant runs in a separate process, alternately; unpacked rows are in batches of 8.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import corpora
from .processes import run_module
from .trainers import PACK_LENGTH

_TURNS = (1, 12)

_CONTESTANTS = {
    "sftkit, packed": ("sftkit", "packed", ()),
    "sftkit": ("sftkit", "rows", ()),
    "sftkit, padded": ("sftkit", "rows", ("padding_free=false",)),
    "TRL, its best packing": ("trl-packed", "rows", ()),
    "TRL, no gradient checkpointing": ("trl-lean", "rows", ()),
    "TRL, its defaults": ("trl", "rows", ()),
}


def main() -> None:
    """Print trained tokens per second of every contestant, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        model = _model(work)
        shards = {name: _shards(work, name, model, options.conversations) for name in ("rows", "packed")}
        rates: dict[str, list[float]] = {name: [] for name in _CONTESTANTS}
        for _ in range(options.repeats):
            for name, (contestant, kind, keys) in _CONTESTANTS.items():
                result = run_module("trainers", contestant, shards[kind], model, *keys)
                rates[name].append(result["trained_tokens"] / result["seconds"])
                _say(f"{name}: {_summary(result)}")
    _say("")
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in medians.items():
        ratio = medians["sftkit, packed"] / rate
        _say(f"{name:32} {rate:9.1f} trained tokens/s   sftkit packed: {ratio:5.2f} times")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _summary(result: dict[str, Any]) -> str:
    rate = result["trained_tokens"] / result["seconds"]
    return f"{result['trained_tokens']:,} of {result['tokens']:,} tokens in {result['seconds']:.1f} s, {rate:.1f}/s"


def _model(work: Path) -> Path:
    """The model's config, without weights, and the bundled tokenizer."""
    from transformers import AutoTokenizer

    from sftkit.sample import sample_path

    from .models import small_llama

    folder = work / "model"
    small_llama().save_pretrained(folder)
    AutoTokenizer.from_pretrained(sample_path("sample:model")).save_pretrained(folder)
    return folder


def _shards(work: Path, name: str, model: Path, count: int) -> Path:
    from sftkit.config.commands import PreprocessConfig
    from sftkit.core.progress import SilentProgress
    from sftkit.preprocessing.build import run
    from sftkit.preprocessing.planning import plan

    source = work / "conversations.jsonl"
    if not source.exists():
        rows = corpora.conversations_of(count, _TURNS)
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = PreprocessConfig(
        output_dir=str(work / name),
        training_data_path=(str(source),),
        model_name_or_path=str(model),
        packing="bfd" if name == "packed" else "none",
        pack_length=PACK_LENGTH if name == "packed" else None,
    )
    run(plan(config), SilentProgress())
    return work / name


if __name__ == "__main__":
    main()
