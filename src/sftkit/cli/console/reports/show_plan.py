"""Prints the plan of a dry run of `preprocess`."""

from __future__ import annotations

import json

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftkit.cli.console.reports.show_unused_columns import unused_columns_of_plan
from sftkit.cli.console.text_lines import new_table, print_text
from sftkit.config.fields import to_plain_data, to_public_data
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.mix_choices import amount_of
from sftkit.core.escape import escape_to_one_line
from sftkit.core.splits import TRAIN, VALIDATION
from sftkit.ordering.packing import pack_length_of
from sftkit.ordering.splitting import split_fractions
from sftkit.preprocessing.plan.plan import Plan
from sftkit.redaction import redact_url
from sftkit.shards.formats.output_formats import PARQUET

_MAX_LISTED = 50
"""Sources, or files, that are listed."""


def print_plan(plan: Plan, console: Console) -> None:
    """Print the resolved config (YAML) and the plan: sources, work units, handlers, splits, and files to write."""
    config = {**to_public_data(plan.config), "datasets": to_public_data(plan.recipe.datasets)}
    console.print(Text("# resolved config", "dim"))
    console.print(Text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100).rstrip()))
    console.print(Text("\n# plan", "dim"))
    console.print(_source_table(plan))
    others = plan.files[_MAX_LISTED:]
    if others:
        size = sum(file.file.size for file in others)
        console.print(f"and {len(others):,} more sources, {size:,} bytes")
    console.print(_handler_table(plan))
    where = f"worker processes: {plan.workers}" if plan.config.executor == "local" else "run by Ray"
    console.print(f"work units: {len(plan.units)}, {where}")
    length = pack_length_of(plan.config)
    if length is not None:
        console.print(f"packing: {plan.config.packing}, at most {length:,} tokens per pack")
    if plan.tokenizer is not None:
        console.print(Text(f"tokenizer: {plan.tokenizer.name} ({plan.tokenizer.vocabulary_size:,} tokens)"))
    output = redact_url(plan.config.output_dir)
    console.print(Text(f"files to write to {output}:" if plan.files else f"{output}: has all files, nothing to add"))
    for name in _shortened(_expected_files(plan)) if plan.files else ():
        console.print(Text(f"  {name}"))
    for line in unused_columns_of_plan(plan):
        print_text(console, Text(escape_to_one_line(line), "yellow"))
    console.print("dry run: nothing was written")


def _source_table(plan: Plan) -> Table:
    table = new_table("dataset", "source", "format", right=("bytes", "units"))
    for file in plan.files[:_MAX_LISTED]:
        source = file.file
        kind = f"{source.format}+{source.compression}" if source.compression else source.format
        table.add_row(source.dataset, Text(source.name), kind, f"{source.size:,}", f"{len(file.units):,}")
    return table


def _handler_table(plan: Plan) -> Table:
    table = new_table("dataset", "handlers", "mix", "train", "validation")
    for dataset in plan.recipe.datasets:
        train, validation = _shown_split(dataset)
        steps = "\n".join(
            f"{handler.name} {json.dumps(to_plain_data(handler.arguments), ensure_ascii=False)}"
            for handler in dataset.data_handlers
        )
        table.add_row(dataset.name, Text(steps or "(none)"), _shown_amount(dataset), train, validation)
    return table


def _shown_amount(dataset: DatasetConfig) -> str:
    """The key that says how much of a data set is used."""
    key, value = ("sampling", dataset.sampling) if dataset.sampling is not None else amount_of(dataset) or ("-", None)
    return key if value is None else f"{key} {value:,}"


def _shown_split(dataset: DatasetConfig) -> tuple[str, str]:
    if dataset.validation_rows is not None:
        return "the rest", f"{dataset.validation_rows:,} rows"
    train, validation = split_fractions(dataset.split)
    return f"{train:g}", f"{validation:g}"


def _expected_files(plan: Plan) -> list[str]:
    fractions = [split_fractions(dataset.split) for dataset in plan.recipe.datasets]
    has_rows = {
        TRAIN: any(train for train, _ in fractions),
        VALIDATION: any(validation for _, validation in fractions)
        or any(dataset.validation_rows for dataset in plan.recipe.datasets),
    }
    names = [
        f"{name}.parquet"
        for split in has_rows
        if has_rows[split] and PARQUET in plan.config.output_format
        for name in plan.shard_names(split)
    ]
    folders = [f"{name}/" for name in plan.config.output_format if name != PARQUET]
    return [*names, *folders, "README.md", "manifest.json"]


def _shortened(names: list[str]) -> list[str]:
    if len(names) <= _MAX_LISTED:
        return names
    half = _MAX_LISTED // 2
    return [*names[:half], f"... and {len(names) - 2 * half:,} more ...", *names[-half:]]
