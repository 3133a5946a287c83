"""The formats of shards by name, and those that a run writes."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import sftkit.shards.formats
from sftkit.core.plugins import Registry, find_built_in, subclass_problem
from sftkit.errors import ConfigError, DataError
from sftkit.shards.writing.shard_format import FormatOptions, ShardFormat
from sftkit.shards.writing.shard_layout import ShardLayout

_log = logging.getLogger(__name__)

PARQUET = "parquet"
"""The only format whose files are in the directory of the data set itself."""

PADDED_FORMATS = ("megatron", "nemo")
"""Those in which `pad_seq_to_multiple` pads sequences."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _problem_of(extension: Any) -> str | None:
    problem = subclass_problem(extension, ShardFormat)
    if problem is None and not _NAME.fullmatch(extension.registered_as):
        return "must have `registered_as`, the name of its folder, of lower-case letters, digits and underscores"
    return problem


OUTPUT_FORMATS: Registry[type[ShardFormat]] = Registry(
    "output_formats",
    find_built_in(sftkit.shards.formats, ShardFormat),
    _problem_of,
)


def check_output_formats(names: Sequence[str]) -> None:
    """Check the formats that a config names.

    Raises:
        ConfigError: there is none, or a plugin cannot be used.
    """
    if not names:
        raise ConfigError("output_format: names no format; leave it out to write parquet")
    for name in names:
        _ = OUTPUT_FORMATS[name]


def make_formats(names: Sequence[str], layout: ShardLayout, options: FormatOptions) -> dict[str, ShardFormat]:
    """Make the formats of a run, by name.

    A column that one of the formats cannot hold must be in another one; a warning says where it is not.

    Raises:
        ConfigError: a plugin cannot be used.
        DataError: a format cannot hold the rows, or none of them can hold a column.
    """
    formats = {name: OUTPUT_FORMATS[name](layout, options) for name in names}
    for name, each in formats.items():
        problem = each.problem()
        if problem is not None:
            raise DataError(f"output_format={name}: {problem}")
    missing = {name: tuple(each.columns_left_out()) for name, each in formats.items()}
    for column in layout.schema.names:
        without = [name for name in names if column in missing[name]]
        if len(without) == len(names):
            raise DataError(
                f"output_format={','.join(without)}: cannot hold the column {column!r}, which would be lost; leave the "
                "column out, or add a format that holds it, as in output_format=[parquet, "
                f"{', '.join(without)}]"
            )
        if without:
            _log.warning("output_format=%s: has no column %r; the other formats have it", ",".join(without), column)
    return formats
