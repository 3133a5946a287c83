"""The unavoidable steps of data preparation, each alone and on one core.

    python -m benchmarks.floors --data FILE --tokenizer DIRECTORY --shards DIRECTORY --result FILE

Parsing the JSON lines, rendering the chat template, encoding the text, and writing the token columns as Parquet, each
in the fastest way that gives the same result. Only these calls are timed, with Python's default garbage collection, not
reading the file or building the input of the next step. The corpus is processed in slices, so that memory is bounded;
every step runs three times, and the fastest pass counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .corpora import Row, first_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

PASSES = 3
_SLICE = 20_000
_CHECKED = 100


class Stopwatch:
    """Sums up the seconds of named steps, one sum per pass."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * PASSES)

    def time(self, step: str, call: Callable[[], T]) -> T:
        """Make a call once per pass; return the last result."""
        for number in range(PASSES):
            start = time.perf_counter()
            result = call()
            self._sums[step][number] += time.perf_counter() - start
            if number < PASSES - 1:
                del result  # free it here, not within the next pass
        return result

    def best(self) -> dict[str, float]:
        """Seconds of the fastest pass of each step."""
        return {step: min(sums) for step, sums in self._sums.items()}


def text_floors(data: Path, tokenizer: PreTrainedTokenizerBase, directory: str) -> dict[str, Any]:
    """Parse, render and encode a JSONL file of conversations."""
    sample = first_rows(data, _CHECKED)
    renderer, render = _renderer(tokenizer, sample)
    encoder, encode = _encoder(tokenizer, directory, sample)
    others = {name: _parser(name) for name in ("orjson", "msgspec") if importlib.util.find_spec(name)}
    watch = Stopwatch()
    for lines in _slices(data):
        for name, parse in others.items():
            watch.time(name, partial(_each, parse, lines))
        rows = watch.time("parse", partial(_each, json.loads, lines))
        texts = watch.time("render", partial(_each, render, [row["messages"] for row in rows]))
        watch.time("encode", partial(encode, texts))
    best = watch.best()
    return {
        "steps": {
            "parse": {"seconds": best["parse"], "means": "json"},
            "render": {"seconds": best["render"], "means": renderer},
            "encode": {"seconds": best["encode"], "means": encoder},
        },
        "other_parsers": {name: best[name] for name in others},
    }


def write_floor(shards: Path) -> float:
    """Write the token columns of finished shards again in the same way: zstd, the same row groups."""
    import pyarrow.parquet as pq

    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(shards.glob("train-*.parquet")):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["input_ids", "labels"], use_threads=False)
                write = partial(
                    pq.write_table,
                    table,
                    f"{scratch}/floor.parquet",
                    compression="zstd",
                    use_dictionary=False,
                    write_statistics=False,
                    row_group_size=table.num_rows,
                )
                watch.time("write", write)
    return watch.best()["write"]


def _each(function: Callable[[Any], T], items: list[Any]) -> list[T]:
    return [function(item) for item in items]


def _slices(data: Path) -> Iterator[list[str]]:
    with data.open(encoding="utf-8") as file:
        while lines := list(itertools.islice(file, _SLICE)):
            yield lines


def _parser(name: str) -> Callable[[str], Row]:
    if name == "msgspec":
        import msgspec

        return msgspec.json.Decoder().decode
    import orjson

    return orjson.loads


def _renderer(tokenizer: PreTrainedTokenizerBase, sample: list[Row]) -> tuple[str, Callable[[Any], str]]:
    """minijinja with the unmodified template, if its output equals that of transformers; else transformers."""

    def reference(messages: Any) -> str:
        return tokenizer.apply_chat_template(messages, tokenize=False)

    try:
        import minijinja
    except ImportError:
        return "transformers", reference
    environment = minijinja.Environment(trim_blocks=True, lstrip_blocks=True)
    given = dict(tokenizer.special_tokens_map)

    def render(messages: Any) -> str:
        return environment.render_template("chat", messages=messages, add_generation_prompt=False, **given)

    try:
        environment.add_template("chat", tokenizer.chat_template)
        same = all(render(row["messages"]) == reference(row["messages"]) for row in sample)
    except minijinja.TemplateError:
        same = False
    return ("minijinja", render) if same else ("transformers", reference)


def _encoder(
    tokenizer: PreTrainedTokenizerBase, directory: str, sample: list[Row]
) -> tuple[str, Callable[[list[str]], Any]]:
    """gigatoken on one thread, if it gives the same ids as the tokenizer; else tokenizers on one thread."""
    texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in sample]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    try:
        import gigatoken

        fast = gigatoken.Tokenizer(f"{directory}/tokenizer.json")
        if fast.encode_batch(texts, parallel=False).tolist() == expected:
            return "gigatoken", lambda texts: fast.encode_batch(texts, parallel=False)
    except (ImportError, ValueError):
        pass
    backend = tokenizer.backend_tokenizer
    return "tokenizers", lambda texts: [backend.encode(text, add_special_tokens=False) for text in texts]


def main() -> None:
    """Parse the command line, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="JSONL with a messages column")
    parser.add_argument("--tokenizer", required=True, help="directory")
    parser.add_argument("--shards", type=Path, required=True, help="the shards that sftkit wrote from the data")
    parser.add_argument("--result", type=Path, required=True)
    options = parser.parse_args()

    from transformers import AutoTokenizer

    result = text_floors(options.data, AutoTokenizer.from_pretrained(options.tokenizer), options.tokenizer)
    result["steps"]["write"] = {"seconds": write_floor(options.shards), "means": "pyarrow"}
    options.result.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
