"""Cost of a mask compared with rendering and encoding, on one core: `python -m benchmarks.masking [TOKENIZER ...]`.

Conversations of four to ten exchanges. The same engines render and encode with marks and spans (`find_trained_spans`,
`encode_conversations`) and without (`render`, `encode`), without verification. Batches alternate, and the median of the
ratios of all rounds counts, so that a busy machine slows both equally. The target is at most 15 %.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.corpora import conversations, first_rows
from sftkit.core.startup.transformers_import import import_transformers_without_torch
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "tokenizers" / "qwen3"
_ENGINES = {"auto": frozenset[str](), "reference": frozenset({ENCODER, RENDERER})}
_BATCH = 256  # rows, about as many as a pipeline processes at once
_TARGET = 0.15

Rows = list[dict[str, Any]]
Work = Callable[[Rows], object]


def main() -> None:
    """Print a table: microseconds per row, and the extra cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizers", nargs="*", default=["sample:model", *([str(_SHARED)] * _SHARED.is_dir())])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", type=Path, default=Path("/tmp/sftkit-benchmarks"))
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import_transformers_without_torch()
    rows = first_rows(conversations(options.work, options.rows).path, options.rows)
    _print("tokenizer", "engine", "what", "plain", "masked", "extra", "target")
    for name in options.tokenizers:
        for engine, given_up in _ENGINES.items():
            tokenizer = ChatTokenizer(
                ChatTokenizerSpec(TokenizerSpec(name), "assistant", EnginePolicy(given_up, verify_fraction=0.0))
            )
            for what, (plain, masked) in _works(tokenizer).items():
                rounds = [_both(plain, masked, rows) for _ in range(options.rounds + 1)]
                seconds = rounds[1:]  # the first one warms up
                extra = median(masked / plain for plain, masked in seconds) - 1
                times = [f"{median(each) / len(rows) * 1e6:.0f} us" for each in zip(*seconds, strict=True)]
                verdict = ("met" if extra <= _TARGET else "MISSED") if what == "whole" else ""
                _print(Path(name).name, engine, what, *times, f"{extra:+.1%}", verdict)


def _works(tokenizer: ChatTokenizer) -> dict[str, tuple[Work, Work]]:
    """Each step without and with a mask, by name; `prepared` includes the other work of the handler."""

    def render(rows: Rows) -> list[str]:
        return [tokenizer.conversations.render(row, "messages") for row in rows]

    def find(rows: Rows) -> list[tuple[str, list[tuple[int, int]]]]:
        return [tokenizer.conversations.find_trained_spans(row, "messages") for row in rows]

    def encode_masked(turns: list[tuple[str, list[tuple[int, int]]]]) -> object:
        return tokenizer.encode_conversations([text for text, _ in turns], [spans for _, spans in turns])

    def prepared(rows: Rows) -> object:
        return tokenizer.encode_prepared([tokenizer.conversations.prepare(row, "messages") for row in rows])

    def plain(rows: Rows) -> object:
        return tokenizer.encode(render(rows))

    return {
        "rendering": (render, find),
        "whole": (plain, lambda rows: encode_masked(find(rows))),
        "prepared": (plain, prepared),
    }


def _both(plain: Work, masked: Work, rows: Rows) -> tuple[float, float]:
    """Seconds of each, alternating batch by batch."""
    seconds = [0.0, 0.0]
    gc.collect()
    for place in range(0, len(rows), _BATCH):
        batch = rows[place : place + _BATCH]
        for index, work in enumerate((plain, masked)):
            began = time.perf_counter()
            work(batch)
            seconds[index] += time.perf_counter() - began
    return seconds[0], seconds[1]


def _print(*cells: str) -> None:
    widths = (14, 11, 11, 9, 9, 8, 8)
    sys.stdout.write("".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
