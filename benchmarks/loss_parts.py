"""Cost of losses by source and kind: `python -m benchmarks.loss_parts [--tokens N] [--vocabulary N] [--rounds N]`.

Steps of four micro-batches through a Llama with four layers of width 256, forward and backward, in float32 on the CPU,
half of the tokens trained: with data that have sources, kinds and weights, and with the same data without them. Both
take turns within one process, and the processor's time counts, so that other programs disturb both alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

_LENGTH = 128  # tokens of a sequence
_SOURCES = 20
_ACCUMULATED = 4  # micro-batches of a step


def main() -> None:
    """Print the processor time of a step without and with the columns, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024, help="of a micro-batch")
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for name, chunk in (("all logits at once", 0), ("chunks", options.tokens // 8)):
        plain, detailed = _steps(options, chunk)
        times: dict[str, list[float]] = {"without": [], "with": []}
        for round_number in range(options.rounds):
            order = [("without", plain), ("with", detailed)]
            for kind, step in order if round_number % 2 else reversed(order):
                start = time.process_time()
                step()
                times[kind].append(time.process_time() - start)
        ratios = [after / before for before, after in zip(times["without"], times["with"], strict=True)]
        without, found = statistics.median(times["without"]), statistics.median(times["with"])
        sys.stdout.write(
            f"{name}: {without:.3f} s without, {found:.3f} s with; median of the ratios "
            f"{statistics.median(ratios):.4f}, fastest steps {min(times['with']) / min(times['without']):.4f}\n"
        )


def _steps(options: argparse.Namespace, chunk: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step on data without the columns, and one on data with them."""
    import torch
    from transformers import LlamaForCausalLM, set_seed

    from sftkit.training.data.rows.token_details import PartNames
    from sftkit.training.loss.batch_loss import BatchLoss
    from sftkit.training.loss.chunked_model import use_chunked_loss
    from sftkit.training.metrics.loss_parts import PartSums

    from .models import small_llama

    set_seed(0)
    model = LlamaForCausalLM(small_llama(options.vocabulary))
    if chunk:
        use_chunked_loss(model, chunk)
    compute = BatchLoss(sums_loss=True, chunk_size=chunk or None)
    parts = PartSums(PartNames(tuple(map(str, range(_SOURCES))), has_kinds=True), torch.device("cpu"))

    def step(details: bool) -> None:
        batches = [_batch(options, number, details) for number in range(_ACCUMULATED)]
        items = torch.tensor(sum(batch.loss_weight for batch in batches))
        for batch in batches:
            loss = compute(model, model, batch, items)
            if loss.of_tokens is not None:
                parts.add(loss.of_tokens, batch.details, items)
            loss.total.backward()
        model.zero_grad()

    return lambda: step(False), lambda: step(True)


def _batch(options: argparse.Namespace, seed: int, details: bool) -> Any:
    from sftkit.core.rows import IGNORE_INDEX, Ragged
    from sftkit.training.data.collation import FlatCollator
    from sftkit.training.data.rows.row_groups import TokenSequences
    from sftkit.training.data.rows.token_details import TokenDetails

    generator = np.random.default_rng(seed)
    count = options.tokens // _LENGTH
    ids = [generator.integers(0, options.vocabulary, _LENGTH, np.int32) for _ in range(count)]
    labels = [np.where(generator.random(_LENGTH) < 0.5, row, np.int32(IGNORE_INDEX)) for row in ids]
    sequences = TokenSequences(Ragged.from_lists(ids), Ragged.from_lists(labels))
    if details:
        places = count * _LENGTH
        parts = generator.integers(0, 5 * _SOURCES, places).astype(np.int32)
        sequences = replace(sequences, details=TokenDetails(parts, np.ones(places, np.float32)))
    return FlatCollator(trim_head=True)([sequences])


if __name__ == "__main__":
    main()
