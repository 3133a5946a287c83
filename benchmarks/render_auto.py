"""Cost of `render: auto` on one core, compared with `once`: `python -m benchmarks.render_auto [KIND ...] [--rows N]`.

Kinds of conversations: `plain` ones of four to ten exchanges from the sample's generator, `reasoning`, which are the
same with reasoning in each turn, and `tools`, a shared file of tool calls. Each round tokenizes all rows with new
tokenizers, first with whatever is prepared for the first rows of a run, and then again. Batches alternate between the
two, and processor time counts, so that a busy machine slows both equally. Printed are medians of all rounds, the ratio
of the times, and the ratio of the tokens: conversations whose turns the template rewrites become several samples.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.corpora import conversations, first_rows
from sftkit.config.schema.option_values import AUTO, ONCE
from sftkit.core.row_log import RowLog
from sftkit.core.rows import INPUT_IDS, Batch
from sftkit.core.startup.transformers_import import import_transformers_without_torch
from sftkit.handlers.base import Step
from sftkit.handlers.convert_messages import ConvertToMessages
from sftkit.handlers.registry import ConfiguredHandler
from sftkit.handlers.tokens import TokenizeAndApplyChatTemplateWithMasking
from sftkit.preprocessing.pipeline.render_per_turn import bind_per_turn
from sftkit.tokenization.chat_tokenizer import ChatTokenizer
from sftkit.tokenization.chat_tokenizer_spec import ChatTokenizerSpec
from sftkit.tokenization.engines import EnginePolicy
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec

_SHARED = Path(__file__).resolve().parents[2] / "shared"
_BATCH = 256  # rows, about as many as a pipeline processes at once

Rows = list[dict[str, Any]]


class _Pass(NamedTuple):
    """One tokenization of all rows."""

    seconds: float
    tokens: int


def main() -> None:
    """Print a table: microseconds per row with each value of `render`, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=("plain", "tools", "reasoning"), default=("plain", "tools"))
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", default=str(_SHARED / "tokenizers" / "qwen3"))
    parser.add_argument("--tools", type=Path, default=_SHARED / "data" / "glaive_toolcall_en_demo.json")
    parser.add_argument("--work", type=Path, default=Path("/tmp/sftkit-benchmarks"))
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import_transformers_without_torch()
    _print("data", "pass", "rows", "once", "auto", "time", "tokens")
    for kind in options.kinds:
        rows = _rows(kind, options)
        rounds = [_round(options.tokenizer, rows) for _ in range(options.rounds)]
        for name, pairs in zip(("first", "again"), zip(*rounds, strict=True), strict=True):
            times = [median(each.seconds for each in side) / len(rows) * 1e6 for side in zip(*pairs, strict=True)]
            ratio = median(auto.seconds / once.seconds for once, auto in pairs)
            tokens = median(auto.tokens / once.tokens for once, auto in pairs)
            cells = [f"{microseconds:.0f} us" for microseconds in times]
            _print(kind, name, f"{len(rows):,}", *cells, f"{ratio:.2f}", f"{tokens:.2f}")


def _rows(kind: str, options: argparse.Namespace) -> Rows:
    """Return rows with a column `messages`."""
    if kind == "tools":
        given = json.loads(options.tools.read_text(encoding="utf-8"))
        step = ConvertToMessages().bind(_tokenizer(options.tokenizer, ONCE))
        return step(_batch(given[: options.rows]), RowLog()).rows
    rows = first_rows(conversations(options.work, options.rows).path, options.rows)
    if kind == "reasoning":
        for message in (message for row in rows for message in row["messages"] if message["role"] == "assistant"):
            message["reasoning_content"] = f"The answer must be about this: {message['content']}"
    return rows


def _round(name: str, rows: Rows) -> list[tuple[_Pass, _Pass]]:
    """Tokenize all rows twice with `once` and `auto`, which alternate batch by batch."""
    steps = [_step(name, render) for render in (ONCE, AUTO)]
    return [_both(steps, rows) for _ in range(2)]


def _both(steps: Sequence[Step], rows: Rows) -> tuple[_Pass, _Pass]:
    seconds, tokens = [0.0, 0.0], [0, 0]
    gc.collect()
    for place in range(0, len(rows), _BATCH):
        for index in (0, 1) if place // _BATCH % 2 else (1, 0):
            batch = _batch(rows[place : place + _BATCH])
            began = time.process_time()
            done = steps[index](batch, RowLog())
            seconds[index] += time.process_time() - began
            tokens[index] += len(done.tokens[INPUT_IDS].values)
    once, auto = map(_Pass, seconds, tokens)
    return once, auto


def _tokenizer(name: str, render: str) -> ChatTokenizer:
    spec = ChatTokenizerSpec(TokenizerSpec(name), "assistant", EnginePolicy(frozenset(), 0.0), render=render)
    return ChatTokenizer(spec)


def _step(name: str, render: str) -> Step:
    """Bind the handler as the pipeline does, and load its engines."""
    handler = TokenizeAndApplyChatTemplateWithMasking()
    tokenizer = _tokenizer(name, render)
    tokenizer.load()
    if render == ONCE:
        return handler.bind(tokenizer)
    return bind_per_turn(ConfiguredHandler(handler.registered_as, handler, ()), tokenizer, None)


def _batch(rows: Rows) -> Batch:
    return Batch([dict(row) for row in rows], np.arange(1, len(rows) + 1, dtype=np.int64))


def _print(*cells: str) -> None:
    widths = (11, 7, 7, 9, 9, 6, 6)
    sys.stdout.write("".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
