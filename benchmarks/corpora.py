"""The data of the benchmarks: conversations and pairs from the sample's generator, kept between runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
sys.path.insert(0, str(_SCRIPTS))
import make_sample  # noqa: E402 (a script, in no package)

TURNS = (4, 10)
"""Exchanges per conversation: fewest and most."""
_LENGTHS = [1] * 200 + [20] * 10 + [500]
"""The ragged corpus: number of conversations joined to one row, repeatedly."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """A file of rows. kind: `conversations` or `pairs`, which decides the columns."""

    kind: str
    path: Path
    rows: int

    @property
    def megabytes(self) -> float:
        """Size of the file in millions of bytes."""
        return self.path.stat().st_size / 1e6

    @property
    def options(self) -> list[str]:
        """Options for `sftkit preprocess`."""
        columns = ["--input_field_name", "input", "--output_field_name", "output"]
        if self.kind == "conversations":
            columns = ["--dataset_conversation_field", "messages"]
        return ["--training_data_path", str(self.path), *columns]


def conversations(work: Path, count: int) -> Corpus:
    """`count` conversations of four to ten exchanges; about 1.1 kB a row."""
    path = _kept(work, f"conversations-{count}.jsonl", lambda path: _write_jsonl(path, _conversations(count)))
    return Corpus("conversations", path, count)


def pairs(work: Path, count: int) -> Corpus:
    """`count` input/output pairs; about 0.2 kB a row."""
    rows = make_sample.generate_pairs(count, make_sample.SEED)
    return Corpus("pairs", _kept(work, f"pairs-{count}.jsonl", lambda path: _write_jsonl(path, rows)), count)


def one_row_group(work: Path, count: int) -> Corpus:
    """The conversations as a Parquet file with a single row group."""
    path = _kept(work, f"one-row-group-{count}.parquet", lambda path: _write_parquet(path, _conversations(count)))
    return Corpus("conversations", path, count)


def ragged(work: Path, count: int) -> Corpus:
    """`count` conversations joined to fewer rows of very different length: 1 kB, 20 kB and 0.5 MB."""
    path = _kept(work, f"ragged-{count}.jsonl", lambda path: _write_jsonl(path, _joined(_conversations(count))))
    return Corpus("conversations", path, count_lines(path))


def own_file(path: Path) -> Corpus:
    """The user's conversations: a JSONL file with a `messages` column."""
    return Corpus("conversations", path, count_lines(path))


def count_lines(path: Path) -> int:
    """The number of lines of a file."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def first_rows(path: Path, count: int) -> list[Row]:
    """The first rows of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in itertools.islice(file, count)]


def conversations_of(count: int, turns: tuple[int, int]) -> Iterator[Row]:
    """Conversations with `turns` (fewest, most) exchanges."""
    return make_sample.generate_conversations(count, make_sample.SEED, turns)


def _conversations(count: int) -> Iterator[Row]:
    return conversations_of(count, TURNS)


def _joined(rows: Iterator[Row]) -> Iterator[Row]:
    for length in itertools.cycle(_LENGTHS):
        joined = list(itertools.islice(rows, length))
        if not joined:
            return
        rest = (message for row in joined[1:] for message in row["messages"] if message["role"] != "system")
        yield {"messages": [*joined[0]["messages"], *rest]}


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    make_sample.write_jsonl(path, rows)


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([{"messages": row["messages"]} for row in rows])
    pq.write_table(table, path, row_group_size=table.num_rows)


def _kept(work: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The file of that name from this version of the generator and of this module; written if it does not exist."""
    sources = (_SCRIPTS / "make_sample.py").read_bytes() + Path(__file__).read_bytes()
    directory = work / f"corpora-{hashlib.sha256(sources).hexdigest()[:8]}"
    path = directory / name
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{name}")
        write(unfinished)
        unfinished.replace(path)
    return path
