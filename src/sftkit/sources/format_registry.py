"""The registry of formats: by file name ending, and by the name a data config's `builder` gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from sftkit.sources.decompression import COMPRESSIONS
from sftkit.sources.formats.csv import Delimited
from sftkit.sources.formats.json_array import JsonArray
from sftkit.sources.formats.jsonl import JsonLines
from sftkit.sources.formats.parquet_arrow import Arrow, Parquet
from sftkit.sources.source_file import SourceFormat

JSON = "json"
JSON_ARRAY = "json_array"

FORMATS: Mapping[str, SourceFormat] = MappingProxyType(
    {
        "jsonl": JsonLines(),
        JSON_ARRAY: JsonArray(),
        "parquet": Parquet(),
        "arrow": Arrow(),
        "csv": Delimited(","),
        "tsv": Delimited("\t"),
    }
)

_ENDINGS = MappingProxyType(
    {
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".json": JSON,  # an array or lines: the first character tells
        ".parquet": "parquet",
        ".arrow": "arrow",
        ".feather": "arrow",
        ".csv": "csv",
        ".tsv": "tsv",
    }
)

BUILDERS = MappingProxyType({"json": JSON, "jsonl": "jsonl", "parquet": "parquet", "arrow": "arrow", "csv": "csv"})


def format_from_name(name: str) -> tuple[str | None, str | None]:
    """(format, compression) that a file name stands for; None for what it does not tell."""
    path = PurePosixPath(name)
    compression = COMPRESSIONS.get(path.suffix.lower())
    ending = PurePosixPath(path.stem).suffix if compression else path.suffix
    return _ENDINGS.get(ending.lower()), compression


def known_extensions() -> str:
    """The endings of data files, for messages."""
    return ", ".join([*_ENDINGS, *(f"each also {ending}" for ending in list(COMPRESSIONS)[:1])])
