"""Decides which files of a plan are new to a data set, and whether they can be added to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sftkit.config.commands import PreprocessConfig
from sftkit.config.fields import to_public_data
from sftkit.config.reading.interpolated import interpolated_values, replace_values
from sftkit.config.schema.mix_choices import is_mixed_by_amounts
from sftkit.config.schema.order_choice import AS_IS, SHUFFLED, read_row_order
from sftkit.errors import ConfigError, OutputError
from sftkit.preprocessing.plan.plan import Plan, make_plan
from sftkit.preprocessing.plan.plan_identity import plan_fingerprint
from sftkit.redaction import redact_url
from sftkit.shards.formats.output_formats import PARQUET
from sftkit.shards.manifest import FORMAT_VERSION, Increment, Manifest
from sftkit.shards.output.base_output import Output
from sftkit.shards.staging.unit_record import are_unchanged
from sftkit.sources.work_units import ScannedFile

_SHARD_KEYS = ("num_dataset_shards", "num_eval_dataset_shards")
_MAY_DIFFER = (
    *("training_data_path", "validation_data_path", "datasets", "output_dir", "staging_dir", "keep_staging"),
    *("max_bad_rows", "max_dropped_rows", "engine", "engine_verify", "num_workers", "unit_size", "log_level", "config"),
    *("executor", "ray_address", "storage_options", "ignore_columns", *_SHARD_KEYS),
    *("append", "overwrite", "dry_run"),
)
"""Keys of a config that do not decide what becomes of a row."""


@dataclass(frozen=True)
class Addition:
    """New files for a data set."""

    base: Manifest
    """The manifest of the data set."""
    plan: Plan
    """The plan of the new files alone; without files if there are none."""
    increments: tuple[Increment, ...]
    """How the data set was made, with this addition."""

    @property
    def fingerprint(self) -> str:
        """Identifies the data set with the new files: what was made of which files, in which order."""
        content = json.dumps([each.fingerprint for each in self.increments])
        return hashlib.sha256(content.encode()).hexdigest()


def plan_addition(plan: Plan, output: Output[Any]) -> Addition | None:
    """Find the files of a plan that the data set in the output directory does not have yet.

    Args:
        plan: the plan of a config that lists all files, those of the data set and new ones.
        output: the output directory.

    Returns:
        None if there is no data set yet.

    Raises:
        ConfigError: the config makes other rows than those of the data set, or has keys that are about all rows.
        OutputError: a file of the data set is not among the files of the plan, or shards are missing.
    """
    base = output.manifest()
    if base is None:
        return None
    problems = list(_problems(plan, base))
    if problems:
        raise ConfigError(problems)
    if not output.has_shards(base):
        raise OutputError(
            f"output_dir {output.path}: shards of its data set are missing, so nothing can be added; set "
            "overwrite=true instead of append=true to make it again"
        )
    day = base.config.get("template_date")
    if plan.has_default_date and isinstance(day, str):
        plan = plan.on_day(day)
    old, new = _split_files(plan, base)
    before = base.increments or (_increment(plan, base.fingerprint, len(base.sources), _counts_of(base)),)
    if not _is_same_recipe(plan, old, before):
        raise ConfigError(_difference(plan, base, str(output.path)))
    added = replace(
        make_plan(plan.config, plan.recipe, plan.pipeline, new, plan.left_out, plan.samples),
        seconds=plan.seconds,
        shards_before={split: len(info.shards) for split, info in base.splits.items()},
    )
    if not new:
        return Addition(base, added, before)
    config = plan.config
    counts = (config.num_dataset_shards, config.num_eval_dataset_shards)
    return Addition(base, added, (*before, _increment(plan, added.fingerprint, len(new), counts)))


def _problems(plan: Plan, base: Manifest) -> Iterator[str]:
    """Yield a sentence for each key that is about all rows together."""
    config, datasets = plan.config, plan.recipe.datasets
    if base.format_version != FORMAT_VERSION:
        yield (
            f"append: the data set has format_version {base.format_version}, and this sftkit writes {FORMAT_VERSION}; "
            "set overwrite=true instead to make it again"
        )
    if tuple(config.output_format) != (PARQUET,):
        others = ", ".join(name for name in config.output_format if name != PARQUET)
        yield f"append works with output_format=parquet only; leave out {others}, or set overwrite=true instead"
    order = read_row_order(config.dataprocessor.order)
    about_all = {
        "dataprocessor.deduplicate, which compares all rows": config.dataprocessor.deduplicate is not None,
        f"dataprocessor.order={order}, which sorts all rows": order is not None and order.kind not in (AS_IS, SHUFFLED),
        "weights, amounts or stages, which are shares of all rows": is_mixed_by_amounts(datasets, config.dataprocessor),
        "sampling, which is a share of all rows": any(each.sampling is not None for each in datasets),
        "max_samples, which counts all rows": any(each.max_samples is not None for each in datasets),
        "val_size or validation_rows, which count all rows": any(each.validation_rows is not None for each in datasets),
    }
    for what in (what for what, is_set in about_all.items() if is_set):
        yield f"append does not work with {what}; set overwrite=true instead to make the data set again"
    if base.config.get("keep_dropped", config.keep_dropped) != config.keep_dropped:
        yield f"append: keep_dropped must be {base.config['keep_dropped']}, as in the data set"
    if not are_unchanged(base.function_inputs):
        yield "append: a file that a user function reads has changed; set overwrite=true instead"


def _split_files(plan: Plan, base: Manifest) -> tuple[tuple[ScannedFile, ...], tuple[ScannedFile, ...]]:
    """Return the files of the data set in the order of its manifest, and the others."""
    values = interpolated_values(plan.config)
    known: dict[tuple[str, str], list[ScannedFile]] = {}
    for file in plan.files:
        known.setdefault((replace_values(file.file.dataset, values), file.sha256), []).append(file)
    old = []
    for source in base.sources:
        found = known.get((source.dataset, source.sha256))
        if not found:
            raise OutputError(
                f"append: {redact_url(source.path)}, which the data set was made of, has changed or is not among the "
                "data paths; name it, too (it is only compared), or choose another output_dir"
            )
        old.append(found.pop(0))
    places = {id(file) for file in old}
    return tuple(old), tuple(file for file in plan.files if id(file) not in places)


def _is_same_recipe(plan: Plan, old: Sequence[ScannedFile], increments: Sequence[Increment]) -> bool:
    """Whether the recipe of a plan makes of the old files what the data set has: all fingerprints are the same."""
    start = 0
    for increment in increments:
        files = tuple(old[start : start + increment.sources])
        start += increment.sources
        options = replace(
            cast(PreprocessConfig, plan.recipe.options),
            num_dataset_shards=increment.train_shards,
            num_eval_dataset_shards=increment.validation_shards,
        )
        recipe = replace(plan.recipe, options=options)
        if plan_fingerprint(recipe, files, plan.identity) != increment.fingerprint:
            return False
    return start == len(old)


def _difference(plan: Plan, base: Manifest, where: str) -> str:
    present = {**to_public_data(plan.config), "template_date": plan.config.template_date}
    names = [
        key
        for key, value in base.config.items()
        if key in present and key not in _MAY_DIFFER and json.dumps(value) != json.dumps(present[key], default=str)
    ]
    shown = ", ".join(names) or "the data sets, handlers or tokenizer"
    return (
        f"append: the config does not make the rows of the data set in {where} ({shown} "
        f"differ{'s' if len(names) == 1 else ''}); use the config that it was made with, or choose another output_dir"
    )


def _counts_of(base: Manifest) -> tuple[int, int]:
    counts = tuple(int(base.config.get(key) or 1) for key in _SHARD_KEYS)
    return counts[0], counts[1]


def _increment(plan: Plan, fingerprint: str, sources: int, counts: tuple[int, int]) -> Increment:
    return Increment(fingerprint, sources, *counts)
