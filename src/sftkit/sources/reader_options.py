"""The reader options of a data set: which formats they apply to, and their part of unit keys."""

from __future__ import annotations

import codecs
from collections.abc import Collection
from typing import Any

from sftkit.config.schema.data_config import ReaderConfig
from sftkit.errors import SourceError
from sftkit.sources.source_file import SourceFile

_CSV = ("csv", "tsv")
_JSON = ("json", "jsonl", "json_array")
_APPLIES_TO: dict[str, Collection[str]] = {"delimiter": _CSV, "encoding": (*_CSV, *_JSON), "json_field": _JSON}
_UTF8 = ("utf-8", "utf-8-sig")


def check_applicable(file: SourceFile) -> None:
    """Check that the reader options apply to the format of a file.

    Raises:
        SourceError: One of them does not.
    """
    for key, formats in _APPLIES_TO.items():
        if getattr(file.reader, key) is not None and file.format not in formats:
            kinds = "CSV" if formats is _CSV else "JSON" if formats is _JSON else "CSV and JSON"
            raise SourceError(f"{file.path}: reader.{key} is only for {kinds}, not for {file.format}; leave it out")


def foreign_encoding(reader: ReaderConfig) -> str | None:
    """Return the encoding that must be converted to UTF-8; None for UTF-8."""
    name = None if reader.encoding is None else codecs.lookup(reader.encoding).name
    return None if name in _UTF8 else name


def reader_identity(reader: ReaderConfig) -> list[Any]:
    """Return what rows depend on, for a unit key; [] without options."""
    identity = [reader.delimiter, foreign_encoding(reader), reader.json_field]
    return identity if any(value is not None for value in identity) else []
