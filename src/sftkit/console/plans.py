"""What `preprocess` prints: the plan of a dry run, and what a run made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftkit.config.fields import plain
from sftkit.config.schema import SECRET_KEYS
from sftkit.console.accounts import print_account
from sftkit.console.findings import print_findings
from sftkit.mixing import fractions
from sftkit.packing import pack_length_of
from sftkit.planning import Plan
from sftkit.shards.manifest import Manifest
from sftkit.shards.writing import shard_name
from sftkit.splits import TRAIN, VALIDATION

_MOST_LINES = 50  # of sources, or of files


def print_plan(plan: Plan, console: Console) -> None:
    """The resolved config (YAML) and the plan: sources, units, handlers, splits and the files that would be written."""
    datasets = [_without_secrets(plain(dataset)) for dataset in plan.recipe.datasets]
    config = {**_without_secrets(plain(plan.config)), "datasets": datasets}
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
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent.items())


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
        train, validation = fractions(dataset.split)
        steps = "\n".join(
            f"{handler.name} {json.dumps(plain(handler.arguments), ensure_ascii=False)}"
            for handler in dataset.data_handlers
        )
        weight = "-" if dataset.sampling is None else f"{dataset.sampling:g}"
        table.add_row(dataset.name, Text(steps or "(none)"), weight, f"{train:g}", f"{validation:g}")
    return table


def _expected_files(plan: Plan) -> list[str]:
    shares = [fractions(dataset.split) for dataset in plan.recipe.datasets]
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
