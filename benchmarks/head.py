"""Savings at the output head: `python -m benchmarks.head [--tokens N] [--vocabulary N] [--shares S ...]`.

One flat batch of 4,096 tokens, a share of which carries a loss, through a Llama with four layers of width 256 and a
vocabulary of 49,152, forward and backward, in float32 on the CPU: with the head at all positions, only where there is a
loss, and there in chunks (`loss_chunk_size`). Each variant runs in a separate process, to measure its peak memory.
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
_VARIANTS = ("whole", "trimmed", "chunked")
_ROUNDS = 3
_LENGTH = 256  # of a sequence


def main() -> None:
    """Print seconds per batch and peak memory of every variant, and how they compare with the one before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--chunk", type=int, default=512, help="positions of a chunk")
    parser.add_argument("--shares", type=float, nargs="+", default=_SHARES)
    parser.add_argument("--variants", nargs="+", choices=_VARIANTS, default=_VARIANTS)
    parser.add_argument("--result", type=Path, help="measure one variant, and write the result here")
    options = parser.parse_args()
    if options.result is not None:
        options.result.write_text(json.dumps(_measured(options)), encoding="utf-8")
        return
    given = ("--tokens", options.tokens, "--vocabulary", options.vocabulary, "--chunk", options.chunk)
    for share in options.shares:
        before: dict[str, float] | None = None
        for variant in options.variants:
            found = run_module("head", *given, "--shares", share, "--variants", variant)
            sys.stdout.write(f"{share:4.0%} trained, {variant:8}{_line(found, before)}\n")
            sys.stdout.flush()
            before = found


def _line(found: dict[str, float], before: dict[str, float] | None) -> str:
    line = f"{found['seconds']:7.2f} s ({found['processor']:.2f} s of processors) {found['mebibytes']:8,.0f} MiB"
    if before is None:
        return line
    return (
        f"{line}   {found['seconds'] / before['seconds']:5.0%} of the time, "
        f"{found['processor'] / before['processor']:.0%} of the processors' time, "
        f"{found['mebibytes'] / before['mebibytes']:4.0%} of the memory, "
        f"loss differs by {abs(found['loss'] / before['loss'] - 1):.0e}"
    )


def _measured(options: argparse.Namespace) -> dict[str, float]:
    import torch
    from transformers import LlamaForCausalLM, set_seed

    from sftkit.core.rows import IGNORE_INDEX, Ragged
    from sftkit.training.data.collation import FlatCollator
    from sftkit.training.data.rows.row_groups import TokenSequences
    from sftkit.training.loss.chunked_model import use_chunked_loss

    from .models import small_llama

    set_seed(0)
    [variant], [share] = options.variants, options.shares
    settings = small_llama(options.vocabulary)
    generator = np.random.default_rng(0)
    ids = [generator.integers(0, settings.vocab_size, _LENGTH, np.int32) for _ in range(options.tokens // _LENGTH)]
    labels = [np.where(generator.random(_LENGTH) < share, row, np.int32(IGNORE_INDEX)) for row in ids]
    batch = FlatCollator(variant != "whole")([TokenSequences(Ragged.from_lists(ids), Ragged.from_lists(labels))])
    model = LlamaForCausalLM(settings)
    if variant == "chunked":
        use_chunked_loss(model, options.chunk)
    items = torch.tensor(batch.counts.trained_tokens)
    seconds, processor_seconds = [], []
    for _ in range(_ROUNDS):
        start, processor_start = time.perf_counter(), time.process_time()
        loss = model(**batch, num_items_in_batch=items).loss
        loss.backward()
        model.zero_grad()
        seconds.append(time.perf_counter() - start)
        processor_seconds.append(time.process_time() - processor_start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": min(seconds), "processor": min(processor_seconds), "mebibytes": peak, "loss": loss.item()}


if __name__ == "__main__":
    main()
