"""What a staged unit is named by: everything that decides what its rows become, and nothing else.

In a key are

- the bytes: the sha256 of the source file, its format and compression, the range of it that is the unit's, and the
  number of the first row there (rows carry their numbers);
- the recipe of a row: the data set's renamed, retained and removed columns and its handlers (by their meaning: other
  names for the same, and arguments that change nothing, make no difference; of functions of the user's own also the
  sha256 of the file that defines them, though not of what that imports), the options that change rows, the
  tokenizer's fingerprint and chat template, the model's stop tokens, and `ROW_SEMANTICS`.

Not in a key are the file's path, the data set's name, and all that happens to rows once they are staged: seed,
sampling, split, shuffling, packing, shards. Nor are the engines and their verification, the number of workers, and
limits on bad rows: they change no row. A key is a sha256 in hexadecimal.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sftkit.config.fields import plain
from sftkit.config.schema import DataOptions, DatasetConfig
from sftkit.handlers.registry import build_chain
from sftkit.handlers.user import import_function
from sftkit.sources.units import ScannedFile, Unit

ROW_SEMANTICS = 2
"""Raised whenever the same input would give other rows than before."""

ROW_OPTIONS = (
    "response_template",
    "instruction_template",
    "dataset_text_field",
    "max_seq_length",
    "train_on",
    "reasoning",
    "chat_template_kwargs",
    "special_tokens_in_content",
)
"""Options that change rows, besides `overflow` where there is a `max_seq_length`."""


def unit_keys(
    files: Sequence[ScannedFile], datasets: Sequence[DatasetConfig], options: DataOptions, tokenizer: Any
) -> tuple[str, ...]:
    """The key of every unit of some files, in order.

    tokenizer: what tells tokenizers apart, as JSON can hold it.
    """
    recipes = {dataset.name: recipe_key(dataset, options, tokenizer) for dataset in datasets}
    return tuple(
        _sha256([recipes[file.file.dataset], file.sha256, *_range(unit)]) for file in files for unit in file.units
    )


def _range(unit: Unit) -> list[Any]:
    part = unit.part
    return [unit.file.format, unit.file.compression, part.start, part.stop, part.skip, part.rows, part.first_number]


def recipe_key(dataset: DatasetConfig, options: DataOptions, tokenizer: Any) -> str:
    """What is made of the rows of a data set, as a name: the part of its units' keys that is not their bytes."""
    handlers = [
        [link.name, plain(link.handler), sorted(link.remove_columns), _source_of(link.name)]
        for link in build_chain(dataset, 0)
    ]
    return _sha256(
        {
            "row_semantics": ROW_SEMANTICS,
            "rename_columns": plain(dataset.rename_columns),
            "retain_columns": sorted(dataset.retain_columns),
            "remove_columns": sorted(dataset.remove_columns),
            "handlers": handlers,
            "options": {key: plain(getattr(options, key)) for key in ROW_OPTIONS},
            "overflow": options.overflow if options.max_seq_length is not None else None,
            "tokenizer": tokenizer,
        }
    )


def _source_of(name: str) -> list[str]:
    """sha256 of the files that a function of the user's own is in: where it is named, and where it is defined."""
    if ":" not in name:
        return []
    function = import_function(name)
    files = {getattr(sys.modules[name.partition(":")[0]], "__file__", None)}
    with suppress(TypeError):  # not a function written in Python
        files.add(inspect.getsourcefile(inspect.unwrap(function)))
    paths = sorted(file for file in files if file is not None)
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths if Path(path).is_file()]


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
