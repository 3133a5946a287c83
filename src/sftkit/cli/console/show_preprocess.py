"""What `preprocess` prints: the plan of a dry run, and what a run made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftkit.api.use_cases import PreprocessResult
from sftkit.cli.console.show_findings import print_findings
from sftkit.cli.console.text_lines import print_text
from sftkit.config.fields import to_plain_data
from sftkit.config.schema import SECRET_KEYS
from sftkit.core.escape import escape_to_one_line
from sftkit.core.splits import TRAIN, VALIDATION
from sftkit.ordering.mixing import split_fractions
from sftkit.ordering.packing import pack_length_of
from sftkit.preprocessing.planning import Plan
from sftkit.shards.manifest import Manifest, SourceInfo
from sftkit.shards.writing.shard_writer import shard_name

_MOST_SOURCES = 10
_MOST_REASONS = 10
_STAGE_NAMES = {"stage": "tokenize", "finish": "length limit", "store": "write"}
"""How the stages that a manifest names are shown."""


def print_account(manifest: Manifest, console: Console) -> None:
    """The account of rows: a line for all of them, a table of sources where they differ, and the reasons."""
    print_text(console, Text(", ".join(_in_all(manifest))))
    if len(manifest.sources) > 1 and manifest.rows_read > sum(source.rows_kept for source in manifest.sources):
        console.print(_table(manifest))
        if len(manifest.sources) > _MOST_SOURCES:
            others = len(manifest.sources) - _MOST_SOURCES
            print_text(
                console, Text(f"and {others:,} more sources, which lost fewer rows; the manifest has all"), indent=2
            )
    for line in _reasons(manifest):
        print_text(console, Text(line), indent=2)


def _in_all(manifest: Manifest) -> Iterator[str]:
    yield f"{manifest.rows_read:,} rows read"
    dropped = sum(manifest.dropped.values())
    if dropped:
        yield f"{dropped:,} dropped"
    if manifest.quarantined:
        yield f"{manifest.quarantined:,} quarantined (quarantine.jsonl)"
    if manifest.rows_left_out:
        yield f"{manifest.rows_left_out:,} left out by split or mix"
    if manifest.rows_repeated:
        yield f"{manifest.rows_repeated:,} written more than once by the mix"
    yield f"{manifest.rows_written:,} written"


def _table(manifest: Manifest) -> Table:
    """Sources in their order; where there are many, those that lost most rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("source", "dataset", "read", "kept", "dropped", "quarantined"):
        table.add_column(heading, justify="left" if heading in ("source", "dataset") else "right", overflow="fold")
    chosen = set(map(id, sorted(manifest.sources, key=_lost, reverse=True)[:_MOST_SOURCES]))
    for source in manifest.sources:
        if id(source) in chosen:
            names = Text(escape_to_one_line(source.path)), Text(escape_to_one_line(source.dataset))
            table.add_row(*names, *_counts([source]))
    table.add_row("all", "", *_counts(manifest.sources), style="bold")
    return table


def _counts(sources: Sequence[SourceInfo]) -> list[str]:
    dropped = sum(sum(source.dropped.values()) for source in sources)
    read, kept = sum(source.rows_read for source in sources), sum(source.rows_kept for source in sources)
    return [f"{count:,}" for count in (read, kept, dropped, sum(source.quarantined for source in sources))]


def _lost(source: SourceInfo) -> int:
    return source.rows_read - source.rows_kept


def _reasons(manifest: Manifest) -> Iterator[str]:
    for handler, dropped in manifest.dropped_by_handler.items():
        yield from _most(dropped, f"dropped by {_STAGE_NAMES.get(handler, handler)}")
    yield from _most(manifest.quarantined_by_reason, "quarantined")


def _most(reasons: Mapping[str, int], what: str) -> Iterator[str]:
    ordered = sorted(reasons.items(), key=lambda reason: -reason[1])
    for reason, count in ordered[:_MOST_REASONS]:
        yield escape_to_one_line(f"{count:,} {what}: {reason}")
    if len(ordered) > _MOST_REASONS:
        yield f"{sum(count for _, count in ordered[_MOST_REASONS:]):,} {what}: other reasons"


_MOST_LINES = 50  # of sources, or of files


def print_plan(plan: Plan, console: Console) -> None:
    """The resolved config (YAML) and the plan: sources, units, handlers, splits and the files that would be written."""
    datasets = [_without_secrets(to_plain_data(dataset)) for dataset in plan.recipe.datasets]
    config = {**_without_secrets(to_plain_data(plan.config)), "datasets": datasets}
    console.print(Text("# resolved config", "dim"))
    console.print(Text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100).rstrip()))
    console.print(Text("\n# plan", "dim"))
    console.print(_sources(plan))
    others = plan.files[_MOST_LINES:]
    if others:
        size = sum(file.file.size for file in others)
        console.print(f"and {len(others):,} more sources, {size:,} bytes")
    console.print(_handlers(plan))
    who = f"worker processes: {plan.workers}" if plan.config.executor == "local" else "run by Ray"
    console.print(f"work units: {len(plan.units)}, {who}")
    length = pack_length_of(plan.config)
    if length is not None:
        console.print(f"packing: {plan.config.packing}, at most {length:,} tokens to a pack")
    if plan.tokenizer is not None:
        console.print(Text(f"tokenizer: {plan.tokenizer.name} ({plan.tokenizer.vocabulary_size:,} tokens)"))
    console.print(Text("would write, to " + plan.config.output_dir + ":"))
    for name in _shortened(_expected_files(plan)):
        console.print(Text(f"  {name}"))
    console.print("nothing was written (dry run)")


def print_outcome(result: PreprocessResult, console: Console) -> None:
    """Print what `preprocess` did: the plan of a dry run, what was written, or that nothing was left to do."""
    if result.manifest is None:
        print_plan(result.plan, console)
    elif result.ran:
        print_result(result.manifest, result.output_dir, console)
    else:
        print_text(console, Text(escape_to_one_line(f"{result.output_dir}: complete and unchanged, nothing to do")))


def print_result(manifest: Manifest, output_dir: str, console: Console) -> None:
    """What a run made, in a few lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("split", "shards", "rows", "tokens", "trained", "share"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for name, split in manifest.splits.items():
        share = f"{split.trained_tokens / split.tokens:.1%}" if split.tokens else "-"
        counts = (len(split.shards), split.rows, split.tokens, split.trained_tokens)
        table.add_row(name, *(f"{count:,}" for count in counts), share)
    console.print(table)
    for name, split in manifest.splits.items():
        if split.pack_length is not None and split.sequences is not None and split.fill_rate is not None:
            each = split.sequences / split.rows
            console.print(
                Text(
                    f"{name}: {split.rows:,} packs of {split.pack_length:,} tokens, {split.fill_rate:.1%} full, "
                    f"{split.sequences:,} sequences ({each:.1f} a pack)"
                )
            )
    print_account(manifest, console)
    if manifest.units_found:
        run = manifest.units - manifest.units_found
        console.print(
            Text(f"{run:,} of {manifest.units:,} work units tokenized, {manifest.units_found:,} found staged")
        )
    console.print(Text(f"{output_dir} ({_seconds(manifest.seconds)}; workers: {_seconds(manifest.worker_seconds)})"))
    if manifest.audit is not None:
        print_findings(manifest.audit.rows, manifest.audit.findings, console)
    if manifest.text_column is not None:
        console.print(
            Text(
                f"the shards hold text ({manifest.text_column!r}), no tokens: `train` will have to tokenize them, "
                "given the same options",
                "yellow",
            )
        )


def _seconds(spent: Mapping[str, float]) -> str:
    return ", ".join(f"{_STAGE_NAMES.get(name, name)} {seconds:.1f} s" for name, seconds in spent.items())


def _without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _hidden(value) if key in SECRET_KEYS else value for key, value in config.items()}


def _hidden(value: Any) -> Any:
    """The keys of a value, without what they hold."""
    return {key: _hidden(each) for key, each in value.items()} if isinstance(value, Mapping) else "***"


def _sources(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("dataset", "source", "format", "bytes", "units"):
        table.add_column(heading, justify="right" if heading in ("bytes", "units") else "left", overflow="fold")
    for file in plan.files[:_MOST_LINES]:
        source = file.file
        kind = f"{source.format}+{source.compression}" if source.compression else source.format
        table.add_row(source.dataset, Text(source.path), kind, f"{source.size:,}", f"{len(file.units):,}")
    return table


def _handlers(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("dataset", "handlers", "sampling", "train", "validation"):
        table.add_column(heading, overflow="fold")
    for dataset in plan.recipe.datasets:
        train, validation = split_fractions(dataset.split)
        steps = "\n".join(
            f"{handler.name} {json.dumps(to_plain_data(handler.arguments), ensure_ascii=False)}"
            for handler in dataset.data_handlers
        )
        weight = "-" if dataset.sampling is None else f"{dataset.sampling:g}"
        table.add_row(dataset.name, Text(steps or "(none)"), weight, f"{train:g}", f"{validation:g}")
    return table


def _expected_files(plan: Plan) -> list[str]:
    shares = [split_fractions(dataset.split) for dataset in plan.recipe.datasets]
    names: list[str] = []
    for split, count, wanted in (
        (TRAIN, plan.config.num_dataset_shards, any(train for train, _ in shares)),
        (VALIDATION, plan.config.num_eval_dataset_shards, any(validation for _, validation in shares)),
    ):
        if wanted:
            names += [shard_name(split, number, count) for number in range(count)]
    return [*names, Path("README.md").name, "manifest.json"]


def _shortened(names: list[str]) -> list[str]:
    if len(names) <= _MOST_LINES:
        return names
    half = _MOST_LINES // 2
    return [*names[:half], f"... and {len(names) - 2 * half:,} more ...", *names[-half:]]
