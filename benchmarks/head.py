"""Savings from running the output head only where there is a loss: `python -m benchmarks.head [--tokens N]`.

One flat batch of 4,096 tokens, a share of which carries a loss, through a Llama with four layers of width 256 and a
vocabulary of 49,152, forward and backward, in float32 on the CPU; each variant in a separate process, to measure its
peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from .processes import run_module

_SHARES = (0.25, 0.5, 1.0)
_ROUNDS = 3
_LENGTH = 256  # of a sequence


def main() -> None:
    """Print seconds per batch and peak memory, with the whole head and with the trained positions only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--result", type=Path, help="measure one variant, and write the result here")
    parser.add_argument("variant", nargs="?", choices=("whole", "trimmed"))
    parser.add_argument("share", nargs="?", type=float)
    options = parser.parse_args()
    if options.result is not None:
        options.result.write_text(
            json.dumps(_measured(options.variant, options.share, options.tokens)), encoding="utf-8"
        )
        return
    for share in _SHARES:
        whole, trimmed = (
            run_module("head", "--tokens", options.tokens, variant, share) for variant in ("whole", "trimmed")
        )
        sys.stdout.write(
            f"{share:4.0%} trained: {whole['seconds']:.2f} s -> {trimmed['seconds']:.2f} s "
            f"({whole['seconds'] / trimmed['seconds']:.2f} times), "
            f"{whole['mebibytes']:,.0f} MiB -> {trimmed['mebibytes']:,.0f} MiB, "
            f"loss differs by {abs(whole['loss'] / trimmed['loss'] - 1):.0e}\n"
        )


def _measured(variant: str, share: float, tokens: int) -> dict[str, float]:
    import torch
    from transformers import LlamaForCausalLM, set_seed

    from sftkit.core.rows import IGNORE_INDEX, Ragged
    from sftkit.training.data.collation import FlatCollator
    from sftkit.training.data.row_groups import TokenSequences

    from .models import small_llama

    set_seed(0)
    settings = small_llama()
    generator = np.random.default_rng(0)
    ids = [generator.integers(0, settings.vocab_size, _LENGTH, np.int32) for _ in range(tokens // _LENGTH)]
    labels = [np.where(generator.random(_LENGTH) < share, row, np.int32(IGNORE_INDEX)) for row in ids]
    batch = FlatCollator(variant == "trimmed")([TokenSequences(Ragged.from_lists(ids), Ragged.from_lists(labels))])
    model = LlamaForCausalLM(settings)
    items = torch.tensor(batch.counts.trained_tokens)
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        loss = model(**batch, num_items_in_batch=items).loss
        loss.backward()
        model.zero_grad()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": min(seconds), "mebibytes": peak, "loss": loss.item()}


if __name__ == "__main__":
    main()
