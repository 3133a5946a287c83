"""Orders staged rows: finds out which can be used and how large they are, and has `ordering` split and mix them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sftkit.config.mix_validation import keys_about_tokens
from sftkit.config.schema.data_config import TOKENS, TRAINED_TOKENS
from sftkit.config.schema.mix_choices import amount_of
from sftkit.config.schema.option_values import FMS, SPLIT_TURNS
from sftkit.config.schema.order_choice import read_row_order
from sftkit.core.rows import Offsets
from sftkit.core.splits import TRAIN, VALIDATION
from sftkit.errors import DataError
from sftkit.execution.runner import Runner
from sftkit.ordering.mixing import mix_rows
from sftkit.ordering.packing import keeps_rows_whole, pack_length_of
from sftkit.ordering.split_sizes import split_of
from sftkit.ordering.splitting import Indices, MixSource
from sftkit.preprocessing.conversation_rows import conversations_of
from sftkit.preprocessing.curriculum import check_numbers, read_numbers
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.staging.staged_unit import StagedUnit


@dataclass(frozen=True)
class OrderedRows:
    """The staged rows of each split in order, as indices into the rows of all units."""

    splits: Mapping[str, Indices]
    candidates: Indices
    """The rows that splitting gave to training, each once."""
    stage_ends: tuple[int, ...]
    """Where the stages of the train split end; () without stages."""
    wanted: Mapping[str, float]
    """Name of a data set -> its share of the train split as the config asks for it; empty without a mix."""


def order_rows(plan: Plan, staged: Sequence[StagedUnit], runner: Runner) -> OrderedRows:
    """Decide which staged rows go to which split, in which order.

    Args:
        plan: the plan.
        staged: the staged units, in the order of the rows.
        runner: reads the column that rows are sorted by, if there is one.

    Raises:
        DataError: a split of a data set has no rows; the mix counts tokens of rows that are text; or a row
            has no number to sort it by.
    """
    processor = plan.config.dataprocessor
    usable = usable_rows(staged)
    needs_tokens = keys_about_tokens(plan.recipe.datasets, processor)
    if needs_tokens and any(unit.text_column is not None for unit in staged if unit.rows):
        raise DataError(
            f"{needs_tokens[0]} counts tokens, and the rows are text, which has none yet; use handlers that tokenize, "
            "or count rows (mix_by: rows, max_rows, total_rows)"
        )
    sizes = {measure: each[usable] for measure, each in row_sizes(plan, staged).items()}
    order = read_row_order(processor.order)
    column = order.column if order is not None else ""
    numbers = read_numbers(staged, column, runner) if column else None
    sources = _mix_sources(plan, staged, usable)
    mixed = mix_rows(sources, processor, sizes, numbers[usable] if numbers is not None else None)
    if numbers is not None:
        check_numbers(plan, staged, column, numbers, usable[mixed.candidates])
    splits = {TRAIN: usable[mixed.train], VALIDATION: usable[mixed.validation]}
    return OrderedRows(splits, usable[mixed.candidates], mixed.stage_ends, mixed.wanted)


def usable_rows(staged: Sequence[StagedUnit]) -> Indices:
    """Return the rows that no step after staging removed, as indices into all staged rows, ascending."""
    bases = np.cumsum([0, *(unit.rows for unit in staged)])
    removed = [base + unit.rows_removed_later for base, unit in zip(bases[:-1].tolist(), staged, strict=True)]
    return np.delete(np.arange(bases[-1]), np.concatenate([np.zeros(0, np.int64), *removed]))


def row_sizes(plan: Plan, staged: Sequence[StagedUnit]) -> dict[str, Offsets]:
    """Return tokens and trained tokens of each staged row, as they are written: measure -> shape (rows,)."""
    tokens = np.concatenate([unit.sizes for unit in staged]).astype(np.int64)
    trained = np.concatenate([unit.trained for unit in staged]).astype(np.int64)
    length = pack_length_of(plan.config)
    if length is not None and keeps_rows_whole(plan.config.packing):
        np.minimum(tokens, length, out=tokens)
    base = 0
    for unit in staged:
        if unit.overflow_cuts is not None:
            trained[base + unit.overflow_cuts.rows] -= unit.overflow_cuts.trained_tokens
        base += unit.rows
    return {TOKENS: tokens, TRAINED_TOKENS: trained}


def _mix_sources(plan: Plan, staged: Sequence[StagedUnit], usable: Indices) -> list[MixSource]:
    """Describe the data sets for mixing."""
    numbers = {dataset.name: number for number, dataset in enumerate(plan.recipe.datasets)}
    dataset_of = np.array([numbers[plan.units[unit.number].file.dataset] for unit in staged])
    unit_of = np.searchsorted(np.cumsum([unit.rows for unit in staged]), usable, side="right")
    counts = np.bincount(dataset_of[unit_of], minlength=len(numbers)).tolist()
    as_fms = plan.config.compat == FMS
    conversations = conversations_of(staged) if plan.config.overflow != SPLIT_TURNS else None
    sources, filled = [], {file.file.dataset for file in plan.files}
    for number, (dataset, rows) in enumerate(zip(plan.recipe.datasets, counts, strict=True)):
        if dataset.name not in filled:  # of an addition to a data set
            continue
        own = None
        if conversations is not None and rows:
            own = np.unique(conversations[usable[dataset_of[unit_of] == number]], return_inverse=True)[1]
        split_units = rows if own is None else int(own[-1]) + 1
        split, amount = split_of(dataset, split_units), amount_of(dataset)
        sources.append(MixSource(dataset.name, rows, dataset.sampling, split, dataset.shuffle, as_fms, amount, own))
    return sources
