"""Load: very many short rows, very long rows, very many files, very many shards; the memory and open files of each.

For example `python -m benchmarks.load rows --count 20000000`; `--open-files` sets `ulimit -n` for the command.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .processes import SFTKIT
from .watching import Watched, watched

_MB = 1e6
_WORDS = ("alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")
_LONG = 50_000_000
"""Characters of a long row."""


@dataclass(frozen=True)
class Case:
    """One kind of load."""

    count: int
    """Default number of rows, files or shards."""
    make: Callable[[Path, int], list[str]]
    """Writes `count` of them below a directory, and returns the options to preprocess them."""


def main() -> None:
    """Write the input of one case, run the commands on it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--count", type=int, help="number of rows, files or shards")
    parser.add_argument("--tokenizer", default="sample:model")
    parser.add_argument("--open-files", type=int, default=256, help="ulimit -n of the command")
    parser.add_argument("--work", type=Path, help="an existing directory on a disk with enough space")
    parser.add_argument("--inspect", action="store_true", help="also a dry run, inspect-shards and its audit")
    parser.add_argument("options", nargs="*", help="more options of preprocess, after --")
    given = parser.parse_args()
    case = CASES[given.case]
    count = given.count or case.count
    with tempfile.TemporaryDirectory(dir=given.work) as scratch:
        source, output = Path(scratch, "source"), Path(scratch, "shards")
        source.mkdir()
        options = [*case.make(source, count), *given.options, "--tokenizer_name_or_path", given.tokenizer]
        commands = {"preprocess": ["preprocess", *options, "--output_dir", str(output)]}
        if given.inspect:
            commands = {
                "dry run": [*commands["preprocess"], "--dry_run", "true"],
                **commands,
                "done already": commands["preprocess"],
                "inspect": ["inspect-shards", str(output)],
                "audit": ["inspect-shards", str(output), "--audit", "true"],
                "verify": ["inspect-shards", str(output), "--verify", "true"],
            }
        sys.stdout.write(f"{given.case}: {count:,}; tokenizer {given.tokenizer}; ulimit -n {given.open_files}\n\n")
        sys.stdout.write("| command | seconds | main | worker | together | files: main | worker | lines |\n")
        sys.stdout.write("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
        for name, command in commands.items():
            sys.stdout.write(_line(name, watched([*SFTKIT, *command], given.open_files)))
            sys.stdout.flush()
        manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
        sys.stdout.write(f"\nstages: {manifest['seconds']}; rows written: {manifest['rows_written']:,}\n")


def _line(name: str, took: Watched) -> str:
    memory = [f"{size / _MB:,.0f} MB" for size in (took.main, took.worker, took.together)]
    cells = [name, f"{took.seconds:,.1f}", *memory, took.main_files, took.worker_files, took.lines]
    return f"| {' | '.join(map(str, cells))} |\n"


def _pair(number: int) -> str:
    """An input and an output of about forty characters; hardly two are equal."""
    words = [_WORDS[number // len(_WORDS) ** place % len(_WORDS)] for place in range(3)]
    return f'{{"input":"{number}? {words[0]}","output":"{words[1]} {words[2]}."}}\n'


def _lines_into(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(lines)


def _many_rows(directory: Path, count: int) -> list[str]:
    path = directory / "rows.jsonl"
    _lines_into(path, map(_pair, range(count)))
    return ["--training_data_path", str(path), "--num_dataset_shards", "8"]


def _many_mixed(directory: Path, count: int) -> list[str]:
    """The same rows shuffled, split and packed: every shard has rows of every unit."""
    config = {
        "dataprocessor": {"type": "default", "seed": 66},
        "datasets": [
            {
                "name": "rows",
                "data_paths": _many_rows(directory, count)[1:2],
                "shuffle": True,
                "split": {"train": 0.9, "validation": 0.1},
                "data_handlers": [
                    {
                        "name": "tokenize_and_apply_input_masking",
                        "arguments": {
                            "remove_columns": "all",
                            "fn_kwargs": {"input_field_name": "input", "output_field_name": "output"},
                        },
                    }
                ],
            }
        ],
    }
    path = directory / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    options = ["--data_config_path", str(path), "--num_dataset_shards", "8", "--num_eval_dataset_shards", "2"]
    return [*options, "--packing", "bfd", "--max_seq_length", "4096"]


def _many_files(directory: Path, count: int) -> list[str]:
    for number in range(count):
        rows = map(_pair, range(number * 50, number * 50 + 50))
        _lines_into(directory / f"part-{number:06d}.jsonl", rows)
    return ["--training_data_path", str(directory), "--num_dataset_shards", "8"]


def _many_shards(directory: Path, count: int) -> list[str]:
    path = directory / "rows.jsonl"
    _lines_into(path, map(_pair, range(count * 100)))
    return ["--training_data_path", str(path), "--num_dataset_shards", str(count)]


def _long_rows(directory: Path, count: int) -> list[str]:
    """Conversations with one very long message, or very many short ones, in three kinds of files."""
    rows = [_long_message(number) if number % 2 == 0 else _many_messages(number) for number in range(count)]
    _lines_into(directory / "a.jsonl", (json.dumps(row) + "\n" for row in rows))
    (directory / "b.json").write_text(json.dumps(rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), directory / "c.parquet")
    return ["--training_data_path", str(directory), "--dataset_conversation_field", "messages"]


def _long_message(seed: int) -> dict[str, Any]:
    lines = [f"{number} {_WORDS[number * 7 % 12]} {_WORDS[number // 12 % 12]}.\n" for number in range(_LONG // 19)]
    text = f"{seed}\n" + "".join(lines)
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "So it is."}]}


def _many_messages(seed: int) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {
        "messages": [
            {"role": roles[number % 2], "content": f"{seed} {number} {_WORDS[number * 5 % 12]}"}
            for number in range(200_000)
        ]
    }


CASES = {
    "rows": Case(20_000_000, _many_rows),
    "mixed": Case(20_000_000, _many_mixed),
    "files": Case(10_000, _many_files),
    "shards": Case(5_000, _many_shards),
    "long": Case(4, _long_rows),
}


if __name__ == "__main__":
    main()
