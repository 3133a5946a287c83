"""Decides which columns the shards of a run have, from the staged units and the config."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from sftkit.config.schema.option_values import SFTKIT
from sftkit.core.rows import ATTENTION_MASK, INPUT_IDS, LABELS, PADDING, SEQ_LENGTHS
from sftkit.core.weights.loss_weight_column import LOSS_WEIGHTS
from sftkit.errors import DataError
from sftkit.ordering.packing import pack_length_of
from sftkit.preprocessing.plan.plan import Plan
from sftkit.shards.manifest import Manifest
from sftkit.shards.pack_padding import PackPadding
from sftkit.shards.readers.parquet_file import open_parquet
from sftkit.shards.retained_columns import unify_schemas
from sftkit.shards.staging.staged_unit import StagedUnit
from sftkit.shards.trainer_columns import TRAINER_COLUMNS
from sftkit.shards.writing.shard_layout import ShardLayout
from sftkit.storage.paths import AnyPath

_log = logging.getLogger(__name__)


def shard_columns_of(staged: Sequence[StagedUnit], *, is_packed: bool = False) -> ShardLayout:
    """Describe the shards: the staged units with their rows, and the columns that all units have.

    Loss weights are a column if any unit has them.

    Raises:
        DataError: some data sets became tokens and others text.
    """
    filled = [unit for unit in staged if unit.rows]
    kinds = {unit.text_column for unit in filled}
    if len(kinds) > 1:
        texts = ", ".join(sorted(kind for kind in kinds if kind))
        raise DataError(
            f"some data sets become tokens and others text ({texts}); use handlers that tokenize in all of `datasets`, "
            "or in none"
        )
    shared = set.intersection(*(set(unit.token_columns) - {LOSS_WEIGHTS} for unit in filled))
    weighted = frozenset(index for index, unit in enumerate(staged) if LOSS_WEIGHTS in unit.token_columns)
    if weighted:
        shared.add(LOSS_WEIGHTS)
    if is_packed and ATTENTION_MASK in shared:
        _log.warning("packs have no attention_mask; %s tells where sequences begin", SEQ_LENGTHS)
        shared -= {ATTENTION_MASK}
    order = [name for name in (INPUT_IDS, LABELS) if name in shared]
    return ShardLayout(
        unit_paths=tuple(unit.path for unit in staged),
        unit_rows=tuple(unit.rows for unit in staged),
        token_columns=(*order, *sorted(shared - set(order))),
        text_column=next(iter(kinds)),
        retained=unify_schemas([unit.retained for unit in filled]),
        is_packed=is_packed,
        unit_loss_weights=(1.0,) * len(staged) if weighted else (),
        weighted_units=weighted,
    )


def with_sources(plan: Plan, staged: Sequence[StagedUnit], layout: ShardLayout) -> ShardLayout:
    """Add what the config says: loss weights of data sets, padding, and the column `source` if it asks for one.

    Raises:
        DataError: rows of text would need a loss weight, or a retained column has the name of one of these columns.
    """
    numbers = {dataset.name: number for number, dataset in enumerate(plan.recipe.datasets)}
    sources = tuple(numbers[plan.units[unit.number].file.dataset] for unit in staged)
    weights = [1.0 if each.loss_weight is None else each.loss_weight for each in plan.recipe.datasets]
    if any(weight != 1 for weight in weights):
        if layout.text_column is not None:
            raise DataError(
                f"rows are text ({layout.text_column!r}), which cannot have a loss_weight; set response_template, or "
                "set train_on=all to train on every token"
            )
        columns = layout.token_columns
        if LOSS_WEIGHTS not in columns:
            columns = (*columns[:2], *sorted((*columns[2:], LOSS_WEIGHTS)))
        factors = tuple(weights[source] for source in sources)
        layout = replace(layout, token_columns=columns, unit_loss_weights=factors)
    if LOSS_WEIGHTS in layout.token_columns:
        _check_not_retained(layout, LOSS_WEIGHTS, "the loss weights of the tokens")
    layout = replace(layout, padding=_padding_of(plan))
    if layout.padding is not None:
        _check_not_retained(layout, PADDING, "the padding of packs")
    return replace(layout, unit_sources=sources) if plan.config.source_column else layout


def with_trainer(plan: Plan, layout: ShardLayout) -> ShardLayout:
    """Add the columns of another trainer if the config asks for them (`parquet_columns`).

    Raises:
        DataError: its columns cannot hold the rows.
    """
    trainer = plan.config.parquet_columns
    if trainer == SFTKIT:
        return layout
    columns = TRAINER_COLUMNS[trainer]
    if layout.text_column is not None or LABELS not in layout.token_columns:
        what = f"rows are text ({layout.text_column!r})" if layout.text_column is not None else "rows have no labels"
        raise DataError(f"{what}, and parquet_columns={trainer} is for tokens with labels; leave it out")
    if LOSS_WEIGHTS in layout.token_columns:
        raise DataError(
            f"rows have {LOSS_WEIGHTS}, which parquet_columns={trainer} would lose, because only `sftkit train` reads "
            f"them; set parquet_columns={SFTKIT}, or leave weights other than 0 and 1 out of messages"
        )
    if columns.is_strict and len(layout.retained):
        names = ", ".join(layout.retained.names)
        raise DataError(
            f"parquet_columns={trainer} gives every column to the model, so retained columns ({names}) cannot be in "
            f"the shards; leave retain_columns out, or set parquet_columns={SFTKIT}"
        )
    for name in columns.added(is_packed=layout.is_packed):
        _check_not_retained(layout, name, f"what the trainer reads (parquet_columns={trainer})")
    if layout.is_packed and columns.pack_multiple > 1:
        multiple = math.lcm(columns.pack_multiple, plan.config.pad_pack_to_multiple_of)
        length = pack_length_of(plan.config) or 1
        layout = replace(layout, padding=PackPadding(-(-length // multiple) * multiple, _padding_token(plan)))
    return replace(layout, trainer=columns)


def _check_not_retained(layout: ShardLayout, name: str, meaning: str) -> None:
    """Raise `DataError` if a retained column has the name of another column of the shards."""
    if name in layout.retained.names:
        raise DataError(
            f"column {name!r} cannot be in the shards, where it would mean {meaning}; rename it with rename_columns"
        )


def check_same_columns(base: Manifest, layout: ShardLayout, directory: AnyPath) -> None:
    """Check that new shards have the columns of those of a data set.

    Raises:
        DataError: they do not; it names the first column that differs.
    """
    with open_parquet(directory / base.shards[0].file) as file:
        old = file.schema_arrow
    new = _as_read(layout.parquet_schema)
    fields = dict(zip(old.names, old.types, strict=True)), dict(zip(new.names, new.types, strict=True))
    for name in dict.fromkeys([*old.names, *new.names]):
        first, second = (str(each.get(name, "missing")) for each in fields)
        if first != second:
            raise DataError(
                f"append: the column {name!r} is {first} in the shards of {directory} and {second} in the new ones; "
                "change the new files, or set overwrite=true instead to make the data set again"
            )


def _as_read(schema: pa.Schema) -> pa.Schema:
    """The schema that a Parquet file with some schema has when it is read."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    return pq.read_schema(pa.BufferReader(sink.getvalue()))


def _padding_of(plan: Plan) -> PackPadding | None:
    """How packs are padded if the config asks for it."""
    multiple = plan.config.pad_pack_to_multiple_of
    return None if multiple == 1 else PackPadding(multiple, _padding_token(plan))


def _padding_token(plan: Plan) -> int:
    """The pad token, or else the eos token, which is as good where there is no loss."""
    ids = () if plan.tokenizer is None else (plan.tokenizer.pad_token_id, plan.tokenizer.eos_token_id)
    return next((token for token in ids if token is not None), 0)
