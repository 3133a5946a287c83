"""Compare sftkit with its peers, its floors and its targets, and show a table.

    python -m benchmarks.run --rows 88000 --tokenizer DIRECTORY --write docs/performance.md

docs/performance.md explains what is measured, and how.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from sftkit.sample import sample_path

from . import corpora
from .memory import Peaks, watch
from .processes import SFTKIT, ContestantError, Sftkit, SftkitRun, run_module
from .report import Limit, Line, Report, machine
from .startup import config_error_seconds, help_seconds, ten_rows_seconds

GROUPS = ["conversations", "pairs", "floors", "stages", "startup", "memory"]
WIDTH = 200  # of the table when it is printed to a file
WORK = Path(__file__).resolve().parent / ".work"

TRL_LIMIT = Limit(20, at_least=True)
TRL_PAIRS_LIMIT = Limit(40, at_least=True)
TURN_BY_TURN_LIMIT = Limit(100, at_least=True)
FLOORS_LIMIT = Limit(1.6, at_least=False)
WORKERS_LIMIT = Limit(1.7, at_least=True)
MEMORY_LIMIT = Limit(1.15, at_least=False)
START_LIMIT = Limit(0.4, at_least=False, unit="s")
TEN_ROWS_LIMIT = Limit(1.0, at_least=False, unit="s")


class Benchmark:
    """The groups of measurements, each a method that yields lines of the table."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work
        self.tokenizer = str(Path(sample_path(options.tokenizer)).resolve())
        self.sftkit = Sftkit(self.tokenizer, self.work, options.repeats)
        self.stage_times: list[tuple[str, str, float]] = []

    def conversations(self) -> Iterator[Line]:
        """Multi-turn conversations: sftkit with several workers and with one, TRL, turn by turn."""
        corpus = self._chats()
        section = f"Conversations: {corpus.rows:,} rows, {corpus.megabytes:.0f} MB"
        ours, alone = (self.sftkit.run(corpus, workers) for workers in (self.options.workers, 1))
        yield _own_line(section, f"sftkit, {self.options.workers} workers", ours)
        gain = alone.seconds / ours.seconds
        limit = WORKERS_LIMIT if self.options.workers == 2 else None
        yield _own_line(section, "sftkit, 1 worker", alone, gain, limit)
        if self.sftkit.has_engines():
            reference = self.sftkit.run(corpus, self.options.workers, "reference")
            name = f"sftkit, {self.options.workers} workers, --engine reference"
            yield _own_line(section, name, reference, reference.seconds / ours.seconds)
        yield self._peer(section, "TRL's preparation", corpus, ours, TRL_LIMIT)
        yield self._peer(
            section, f"TRL's, dataset_num_proc={self.options.workers}", corpus, ours, None, self.options.workers
        )
        yield self._peer(section, "transformers, turn by turn", corpus, ours, TURN_BY_TURN_LIMIT)

    def pairs(self) -> Iterator[Line]:
        """Input/output rows: sftkit and TRL."""
        corpus = corpora.pairs(self.work, self.options.pair_rows)
        section = f"Input/output pairs: {corpus.rows:,} rows, {corpus.megabytes:.0f} MB"
        ours = self.sftkit.run(corpus, self.options.workers)
        yield _own_line(section, f"sftkit, {self.options.workers} workers", ours)
        yield self._peer(section, "TRL's preparation", corpus, ours, TRL_PAIRS_LIMIT)

    def floors(self) -> Iterator[Line]:
        """The time of each step alone, and sftkit compared with the sum."""
        corpus, workers = self._chats(), self.options.workers
        ours = self.sftkit.run(corpus, workers)
        section = "Floors for conversations: each step alone, on one core"
        result = run_module("floors", "--data", corpus.path, "--tokenizer", self.tokenizer, "--shards", ours.output)
        for name, step in result["steps"].items():
            yield Line(section, name, step["seconds"], ours.rows, ours.tokens, note=step["means"])
        total = sum(step["seconds"] for step in result["steps"].values())
        yield Line(section, "sum", total, ours.rows, ours.tokens)
        ratio = ours.seconds / (total / workers)
        name = f"sftkit, {workers} workers, compared with sum / {workers}"
        yield _own_line(section, name, ours, ratio, FLOORS_LIMIT)
        for name, seconds in result["other_parsers"].items():
            yield Line(section, f"parse with {name} (not in the sum)", seconds, ours.rows, ours.tokens)

    def stages(self) -> Iterator[Line]:
        """Where one worker spends its time; the result is a separate table."""
        command = self.sftkit.arguments(self._chats(), 1, self.work / "shards-stages")
        self.stage_times = [tuple(place) for place in run_module("stages", *command)["places"]]
        yield from ()

    def startup(self) -> Iterator[Line]:
        """Help, an error in the config, ten rows."""
        section = "Small runs: median of 5"
        for name, seconds, limit in [
            ("sftkit --help", help_seconds(), START_LIMIT),
            ("an error in the data config", config_error_seconds(self.work), START_LIMIT),
            ("preprocess, ten rows", ten_rows_seconds(self.sftkit, self.work), TEN_ROWS_LIMIT),
        ]:
            yield Line(section, name, figure=seconds, unit="s", limit=limit)

    def memory(self) -> Iterator[Line]:
        """Peak resident memory of the main process and of the largest worker, for ten times the data."""
        section = f"Peak memory with {self.options.workers} workers: ten times the data compared with once"
        few = self.options.memory_rows
        for name, build in [
            ("JSONL", corpora.conversations),
            ("Parquet, one row group", corpora.one_row_group),
            ("JSONL, rows of 1 kB to 0.5 MB", corpora.ragged),
        ]:
            small, large = build(self.work, few), build(self.work, few * 10)
            before, after = self._peaks(small), self._peaks(large)
            for who, low, high in [("main", before.main, after.main), ("worker", before.worker, after.worker)]:
                sizes = f"{low / 1e6:.0f} MB -> {high / 1e6:.0f} MB"
                files = f"file of {small.megabytes:.0f} MB -> {large.megabytes:.0f} MB"
                figure = high / low if low else None  # data that is one work unit needs no worker
                yield Line(
                    section,
                    f"{name}: {who}",
                    rows=large.rows,
                    figure=figure,
                    limit=MEMORY_LIMIT,
                    note=f"{sizes}; {files}" if high else f"no worker; {files}",
                )

    def _chats(self) -> corpora.Corpus:
        if self.options.file is not None:
            return corpora.own_file(self.options.file.resolve())
        return corpora.conversations(self.work, self.options.rows)

    def _peaks(self, corpus: corpora.Corpus) -> Peaks:
        return watch([*SFTKIT, *self.sftkit.arguments(corpus, self.options.workers, self.work / "shards-memory")])

    def _peer(
        self,
        section: str,
        name: str,
        corpus: corpora.Corpus,
        ours: SftkitRun,
        limit: Limit | None,
        processes: int = 1,
    ) -> Line:
        """Run a peer, possibly on fewer rows; rows per second are compared."""
        contestant = "trl" if name.startswith("TRL") else "turn-by-turn"
        most = self.options.trl_rows if contestant == "trl" else self.options.turn_by_turn_rows
        rows = min(most or corpus.rows, corpus.rows)
        arguments = ["--data", corpus.path, "--kind", corpus.kind, "--rows", rows, "--tokenizer", self.tokenizer]
        if self.options.trl_template is not None:
            arguments += ["--trl-template", self.options.trl_template.resolve()]
        result = run_module("peers", contestant, *arguments, "--processes", processes)
        ratio = (ours.rows / ours.seconds) / (result["rows"] / result["seconds"])
        whole = f"whole process: {result['process_seconds']:,.0f} s"
        note = "; ".join(part for part in (result["note"], whole) if part)
        return Line(section, name, result["seconds"], result["rows"], result["tokens"], ratio, limit=limit, note=note)


def _own_line(section: str, name: str, run: SftkitRun, figure: float | None = None, limit: Limit | None = None) -> Line:
    return Line(section, name, run.seconds, run.rows, run.tokens, figure, limit=limit, note=run.engine)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=88_000, help="number of conversations to generate (88,000: 100 MB)")
    parser.add_argument("--file", type=Path, help="a JSONL file with a messages column, instead of generated ones")
    parser.add_argument("--tokenizer", default="sample:model", help="a directory (default: the bundled tokenizer)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--pair-rows", type=int, help="number of pairs to generate (default: five times --rows)")
    parser.add_argument("--trl-rows", type=int, help="number of rows for TRL (default: all)")
    parser.add_argument("--trl-template", type=Path, help="a chat template with {%% generation %%}, for TRL")
    parser.add_argument("--turn-by-turn-rows", type=int, default=1000, help="number of rows for turn by turn")
    parser.add_argument(
        "--memory-rows", type=int, help="number of rows of the smaller size (default: 18,500, or --rows)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of sftkit; the median counts")
    parser.add_argument("--work", type=Path, default=WORK, help="directory for corpora and shards")
    parser.add_argument("--write", type=Path, help="a Markdown file with marks; the results are written between them")
    options = parser.parse_args()
    if not Path(sample_path(options.tokenizer)).is_dir():
        parser.error(f"--tokenizer {options.tokenizer}: no such directory")
    options.pair_rows = options.pair_rows or 5 * options.rows
    options.memory_rows = options.memory_rows or min(18_500, options.rows)
    options.work = options.work.resolve()
    return options


def _command() -> str:
    """The command line, with only the last part of absolute paths."""
    return shlex.join(["python", "-m", "benchmarks.run", *(_last_part(word) for word in sys.argv[1:])])


def _last_part(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word


def main() -> None:
    """Measure, show and save the requested groups. If one group fails, the others still run."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    report = Report(_command(), machine())
    benchmark = Benchmark(options)
    progress = Console(stderr=True, highlight=False)
    failed = False
    for group in GROUPS:
        if group not in options.only:
            continue
        progress.print(f"[dim]{group} ...")
        try:
            for line in getattr(benchmark, group)():
                progress.print(f"[dim]  {'  '.join(filter(None, line.cells()))}", soft_wrap=True)
                report.lines.append(line)
        except ContestantError as error:
            failed = True
            progress.print(f"{group} failed: {error}", markup=False, soft_wrap=True)
    report.stages = benchmark.stage_times
    report.save(options.work / "results.json")
    report.show(Console(width=None if sys.stdout.isatty() else WIDTH))
    if options.write is not None:
        report.write_into(options.write)
    sys.exit(failed)


if __name__ == "__main__":
    main()
