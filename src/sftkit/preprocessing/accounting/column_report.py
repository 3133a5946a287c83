"""Columns that nothing uses: which are reported, and which are an error because a part of each row would be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.option_values import FMS
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.accounting.unused_columns import add_counts, describe_unused
from sftkit.core.row_kinds import RowKind
from sftkit.core.rows import INPUT_IDS
from sftkit.errors import DataError
from sftkit.preprocessing.pipeline.column_use import ColumnSample, is_significant
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.staging.staged_unit import StagedUnit

_CONVERSATIONS = (RowKind.CONVERSATIONS, RowKind.RENDERED)
_ONLY_IN_CONVERSATIONS = frozenset({"tools", "functions", "documents"})
"""Columns that only a chat template renders. Data configs whose handlers make no conversations do without them."""

_FEW, _FEW_OF, _TENTH = 3, 1000, 10


def reported_columns(plan: Plan, dataset: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of unused columns without those that the config ignores.

    Args:
        plan: the plan of the run.
        dataset: name of the data set.
        counts: columns -> rows in which they are filled.
    """
    [config] = [each for each in plan.recipe.datasets if each.name == dataset]
    ignored = _ignored(config, plan.config)
    return {name: rows for name, rows in counts.items() if name not in ignored}


def check_sample(config: DatasetConfig, options: DataOptions, sample: ColumnSample) -> None:
    """Check that no significant column of the first rows of a data set is unused.

    Raises:
        DataError: one is filled in more than a few rows, and most of them have its text nowhere else.
    """
    lost = {
        name: rows
        for name, rows in sample.unused.items()
        if is_significant(name, sample.columns) and rows > sample.repeated.get(name, 0)
    }
    _raise_if_lost(config, options, sample, lost, sample.rows, of_sample=True)


def check_staged(plan: Plan, staged: Sequence[StagedUnit]) -> None:
    """Check the same for columns that no row of the sample had, once all rows are tokenized.

    Raises:
        DataError: as `check_sample`.
    """
    for config in plan.recipe.datasets:
        units = [unit for unit in staged if plan.units[unit.number].file.dataset == config.name]
        sample = plan.samples[config.name]
        unused = add_counts(unit.unused_columns for unit in units)
        seen = {*sample.unused, *sample.repeated}
        lost = {name: rows for name, rows in unused.items() if is_significant(name) and name not in seen}
        _raise_if_lost(config, plan.config, sample, lost, sum(unit.rows_read for unit in units), of_sample=False)


def _raise_if_lost(
    config: DatasetConfig,
    options: DataOptions,
    sample: ColumnSample,
    counts: Mapping[str, int],
    rows: int,
    *,
    of_sample: bool,
) -> None:
    if options.compat == FMS or INPUT_IDS in sample.columns:  # rows that come with their tokens are complete
        return
    ignored = _ignored(config, options)
    if options.datasets and sample.kind not in _CONVERSATIONS:
        ignored |= _ONLY_IN_CONVERSATIONS
    lost = {name: filled for name, filled in counts.items() if name not in ignored and _is_more_than_few(filled, rows)}
    if not lost:
        return
    shown = ", ".join(
        f"{name!r} ({describe_unused(filled, rows, of_sample=of_sample)})" for name, filled in lost.items()
    )
    which, them = ("columns", "them") if len(lost) > 1 else ("column", "it")
    raise DataError(
        f"dataset {config.name!r} ({config.data_paths[0]}): no handler and no chat template uses the {which} {shown}, "
        f"so the model would never see {them}; use {them} in a handler, or set ignore_columns={','.join(lost)} to "
        f"go on without {them}"
    )


def _is_more_than_few(filled: int, rows: int) -> bool:
    return filled > max(_FEW, rows // _FEW_OF) or filled * _TENTH >= rows


def _ignored(config: DatasetConfig, options: DataOptions) -> frozenset[str]:
    return frozenset({*config.ignore_columns, *options.ignore_columns})
