"""Validation of the keys that say what a row of the shards is: packs, and the columns of other trainers."""

from __future__ import annotations

from collections.abc import Iterator

from sftkit.config.commands import PreprocessConfig
from sftkit.config.schema.option_values import AXOLOTL, LLAMAFACTORY, NO_PACKING, SFTKIT
from sftkit.config.schema.shared_options import DataOptions

_STRICT = (AXOLOTL, LLAMAFACTORY)
"""Trainers that pass every column of a row to the model."""


def packing_problems(config: DataOptions) -> Iterator[str]:
    """Yield what is wrong with the keys of packs."""
    if config.packing == NO_PACKING and config.pack_length is not None:
        yield "pack_length is given without packing; set packing=bfd or packing=wrapped"
    if config.packing == NO_PACKING and config.pack_window is not None:
        yield "pack_window is given without packing; set packing=bfd"
    for key in ("pad_pack_to_multiple_of", "pack_count_multiple_of"):
        if config.packing == NO_PACKING and getattr(config, key) != 1:
            yield f"{key} is given without packing; set packing=bfd"
    if config.packing != NO_PACKING and config.pack_length is None and config.max_seq_length is None:
        yield f"packing={config.packing} needs a length; set pack_length or max_seq_length"
    length, multiple = config.pack_length or config.max_seq_length or 0, config.pad_pack_to_multiple_of
    if config.packing != NO_PACKING and length % multiple:
        yield (
            f"a full pack of {length} tokens is no multiple of pad_pack_to_multiple_of={multiple}; set "
            f"pack_length={-(-length // multiple) * multiple}"
        )


def parquet_column_problems(config: PreprocessConfig) -> Iterator[str]:
    """Yield what would be lost or in the way with the columns of another trainer."""
    trainer = config.parquet_columns
    if trainer == SFTKIT:
        return
    if "parquet" not in config.output_format:
        yield f"parquet_columns={trainer} is given without output_format=parquet; leave it out, or add parquet"
    for index, dataset in enumerate(config.datasets):
        if dataset.loss_weight not in (None, 1):
            yield (
                f"datasets[{index}].loss_weight would be lost: only `sftkit train` reads it; leave it out, or set "
                f"parquet_columns={SFTKIT}"
            )
        if dataset.retain_columns and trainer in _STRICT:
            yield (
                f"datasets[{index}].retain_columns cannot be used with parquet_columns={trainer}, which gives every "
                f"column to the model; leave it out, or set parquet_columns={SFTKIT}"
            )
    for key in ("source_column", "token_kinds"):
        if getattr(config, key) and trainer in _STRICT:
            yield (
                f"{key} cannot be used with parquet_columns={trainer}, which gives every column to the model; leave it "
                f"out, or set parquet_columns={SFTKIT}"
            )
