"""The keys of work units: a key is a hash of everything that decides what the rows of a unit become.

Staged units are stored under their keys, so that a later run reuses them exactly when it would make the same rows.

A key covers

- the bytes of the unit: their sha256 if the unit is a range of bytes, so that fixing a line, or appending lines,
  changes only the units that hold them; otherwise the sha256 of the source file and the unit's range in it; and the
  format (for formats of other packages, also their version and source file) and compression;
- the recipe of a row: the renamed, retained and removed columns of the data set; its handlers, by what they do (other
  names for the same handler or argument make no difference; for user functions, the sha256 of their module, of all that
  it imports of the user's own, and of the files that these open when they are imported; for handlers of other packages,
  their version and source file); the options that change rows; the tokenizer's fingerprint and chat template and the
  model's stop tokens; the evaluation questions of `decontaminate`; `ROW_SEMANTICS`; and the versions of the libraries
  that rows depend on.

A key does not cover the path of the file, the offset of a range of bytes, the name of the data set, or anything that
happens after rows are staged: seed, sampling, loss weight of the data set, split, shuffling, packing, shards. Nor
does it cover engines and their verification, the number of workers, or limits on bad rows, because they change no row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import Any

from sftkit.config.fields import default_of, keys_where, to_plain_data
from sftkit.config.render_validation import rendering_of
from sftkit.config.schema.data_config import DatasetConfig
from sftkit.config.schema.option_values import JOINT, ONCE
from sftkit.config.schema.shared_options import DataOptions
from sftkit.core.row_kinds import RowKind
from sftkit.core.token_kinds import TOKEN_KINDS
from sftkit.decontamination.question_index import QuestionIndex
from sftkit.handlers.registry import ConfiguredHandler, build_handlers
from sftkit.sources.format_registry import FORMATS
from sftkit.sources.reader_options import reader_identity
from sftkit.sources.source_file import Range
from sftkit.sources.work_units import ScannedFile, WorkUnit
from sftkit.tokenization.masking.train_on import TRAIN_ON

ROW_SEMANTICS = 5
"""Increment this whenever a code change produces different rows from the same input."""

TOKENIZER_LIMITS = "limits"
"""The part of a tokenizer's identity that only truncation, user functions and plugins depend on."""

_REFERENCES = ("jinja2", "tokenizers", "transformers")

_CHECK_TOOLS, _BOUNDARY, _RENDER = "check_tools", "boundary", "render"
_YOUNG_OPTIONS = (
    *(TOKEN_KINDS, "tool_calls", "train_on_stop", "mask_pattern", "pattern_weights", "range_edges"),
    *("roles_to_train", "empty_reasoning", "max_samples_per_row"),
)
"""Options that are in a key only if they are not at their defaults: they are younger than data sets without them, which
stay as they are."""

ROW_OPTIONS = tuple(
    key
    for key in keys_where(DataOptions, lambda info: info.changes_rows)
    if key not in ("overflow", _CHECK_TOOLS, _BOUNDARY, _RENDER, *_YOUNG_OPTIONS)
)
"""Options that change rows and are in every key. `overflow` is one of them only if there is a `max_seq_length`, and
`check_tools` is treated as a young option. `boundary` and how conversations are rendered are in the keys of
conversations unless they are `joint` and `once`, as before there were such keys."""


def unit_keys(
    files: Sequence[ScannedFile],
    units: Sequence[WorkUnit],
    datasets: Sequence[DatasetConfig],
    options: DataOptions,
    tokenizer: Mapping[str, Any],
    questions: QuestionIndex | None = None,
) -> tuple[str, ...]:
    """Return the key of every unit, in order.

    Args:
        files: the source files.
        units: their units.
        datasets: the data sets that the files belong to.
        options: of the run.
        tokenizer: everything about the tokenizer that rows depend on, as JSON can hold it.
        questions: the evaluation questions that rows must not overlap with.
    """
    versions = {name: version(name) for name in _REFERENCES}
    recipes = {dataset.name: [versions, recipe_key(dataset, options, tokenizer, questions)] for dataset in datasets}
    formats = {name: _format_identity(name) for name in {file.file.format for file in files}}
    hashes = {(file.file.dataset, file.file.path): file.sha256 for file in files}

    def key(unit: WorkUnit) -> str:
        parts = [_bytes(hashes[each.file.dataset, each.file.path], each.part) for each in unit.parts]
        file = unit.file
        read = [formats[file.format], file.compression, *(parts[0] if len(parts) == 1 else [parts])]
        return _sha256([recipes[file.dataset], *read, *reader_identity(file.reader)])

    return tuple(map(key, units))


def _bytes(sha256: str, part: Range) -> list[Any]:
    """Identify the bytes of a unit wherever they are; at the start of a file they may have a byte order mark."""
    limit = [] if part.last_number is None else [{"rows": part.last_number - part.first_number + 1}]
    if part.sha256 is not None:
        return [part.sha256, part.start == 0, *limit]
    return [sha256, part.start, part.stop, part.skip, part.rows, *limit]


def recipe_key(
    dataset: DatasetConfig, options: DataOptions, tokenizer: Mapping[str, Any], questions: QuestionIndex | None = None
) -> str:
    """Hash everything that decides what rows of a data set become: the part of a unit key that is not their bytes."""
    handlers = build_handlers(dataset, 0)
    sees_limits = any(each.sees_tokenizer_limits() for each in handlers)
    makes_conversations = any(each.handler.produces() is RowKind.CONVERSATIONS for each in handlers)
    rendering = rendering_of(options) if makes_conversations else ONCE
    train_on_plugin = TRAIN_ON.identity(options.train_on)
    defaults = {field.name: default_of(field) for field in fields(DataOptions)}
    return _sha256(
        {
            "row_semantics": ROW_SEMANTICS,
            "rename_columns": to_plain_data(dataset.rename_columns),
            "retain_columns": sorted(dataset.retain_columns),
            "remove_columns": sorted(dataset.remove_columns),
            "handlers": [_handler_identity(each) for each in handlers],
            "options": {key: to_plain_data(getattr(options, key)) for key in ROW_OPTIONS},
            "overflow": options.overflow if options.max_seq_length is not None else None,
            "tokenizer": {key: value for key, value in tokenizer.items() if key != TOKENIZER_LIMITS or sees_limits},
            **{
                key: to_plain_data(value) for key in _YOUNG_OPTIONS if (value := getattr(options, key)) != defaults[key]
            },
            **({_BOUNDARY: options.boundary} if options.boundary != JOINT and makes_conversations else {}),
            **({"rendering": rendering} if rendering != ONCE else {}),
            **({_CHECK_TOOLS: [options.check_tools, version("jsonschema-rs")]} if options.check_tools != "off" else {}),
            **({} if questions is None else {"decontaminate": questions.digest}),
            **({} if train_on_plugin is None else {"train_on_plugin": train_on_plugin}),
        }
    )


def _format_identity(name: str) -> str | list[str]:
    plugin = FORMATS.identity(name)
    return name if plugin is None else [name, *plugin]


def _handler_identity(configured: ConfiguredHandler) -> list[Any]:
    identity = [configured.name, configured.handler.identity(), sorted(configured.remove_columns)]
    return identity if configured.plugin is None else [*identity, list(configured.plugin)]


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
