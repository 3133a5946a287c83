"""What a staged unit is named by: everything that decides what its rows become, and nothing else.

In a key are

- the bytes: their sha256 where the range is one of bytes, so that a line that is mended, or lines that are added at
  the end, change only the units that they are in; else the sha256 of the source file and the unit's range of it;
  besides, format and compression;
- the recipe of a row: the data set's renamed, retained and removed columns and its handlers (by their meaning: other
  names for the same, and arguments that change nothing, make no difference; of functions of the user's own also the
  sha256 of the file that defines them, though not of what that imports), the options that change rows (with the
  package, version and sha256 of the file of a `train_on` plugin), the
  tokenizer's fingerprint and chat template, the model's stop tokens, `ROW_SEMANTICS`, and the versions of the
  libraries that rows follow.

Not in a key are the file's path, where in it a range of bytes begins, the data set's name, and all that happens to
rows once they are staged: seed, sampling, split, shuffling, packing, shards. Nor are the engines and their
verification, the number of workers, and limits on bad rows: they change no row. A key is a sha256 in hexadecimal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from sftkit.config.fields import keys_where, to_plain_data
from sftkit.config.schema import DataOptions, DatasetConfig
from sftkit.handlers.registry import ConfiguredHandler, build_handlers
from sftkit.sources.source_file import Range
from sftkit.sources.work_units import ScannedFile
from sftkit.tokenization.masking.train_on import TRAIN_ON

ROW_SEMANTICS = 2
"""Raised whenever the same input would give other rows than before."""

TOKENIZER_LIMITS = "limits"
"""Which of the things that tell tokenizers apart only truncation sees, and functions of the user's own."""

_REFERENCES = ("jinja2", "tokenizers", "transformers")

ROW_OPTIONS = tuple(key for key in keys_where(DataOptions, lambda info: info.changes_rows) if key != "overflow")
"""Options that change rows. `overflow` is one of them only if there is a `max_seq_length`."""


def unit_keys(
    files: Sequence[ScannedFile],
    datasets: Sequence[DatasetConfig],
    options: DataOptions,
    tokenizer: Mapping[str, Any],
) -> tuple[str, ...]:
    """The key of every unit of some files, in order.

    tokenizer: what tells tokenizers apart, as JSON can hold it.
    """
    versions = {name: version(name) for name in _REFERENCES}
    recipes = {dataset.name: [versions, recipe_key(dataset, options, tokenizer)] for dataset in datasets}
    return tuple(
        _sha256([recipes[file.file.dataset], file.file.format, file.file.compression, *_bytes(file, unit.part)])
        for file in files
        for unit in file.units
    )


def _bytes(file: ScannedFile, part: Range) -> list[Any]:
    """What tells apart the bytes of a range, wherever they stand; at the beginning of a file they may hold its mark."""
    if part.sha256 is not None:
        return [part.sha256, part.start == 0]
    return [file.sha256, part.start, part.stop, part.skip, part.rows]


def recipe_key(dataset: DatasetConfig, options: DataOptions, tokenizer: Mapping[str, Any]) -> str:
    """Hash everything that decides what rows of a data set become: the part of a unit key that is not their bytes."""
    handlers = build_handlers(dataset, 0)
    sees_limits = any(each.sees_tokenizer_limits() for each in handlers)
    train_on_plugin = TRAIN_ON.identity(options.train_on)
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
            **({} if train_on_plugin is None else {"train_on_plugin": train_on_plugin}),
        }
    )


def _handler_identity(configured: ConfiguredHandler) -> list[Any]:
    identity = [configured.name, configured.handler.identity(), sorted(configured.remove_columns)]
    return identity if configured.plugin is None else [*identity, list(configured.plugin)]


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
