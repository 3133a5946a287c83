"""The files of a data set and of the runs that write it, and how they differ from files of others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import date

from sftkit.errors import SourceError
from sftkit.storage.files import file_size, read_bytes
from sftkit.storage.paths import AnyPath
from sftkit.storage.streams import open_binary

MANIFEST_NAME = "manifest.json"
QUARANTINE_NAME = "quarantine.jsonl"
DROPPED_NAME = "dropped.jsonl"
ROW_LIST_NAMES = (QUARANTINE_NAME, DROPPED_NAME)
"""The lists of rows that were quarantined and dropped."""
CARD_NAME = "README.md"
STAGING_NAME = ".staging"
"""The folder for everything that is not part of the data set."""
JOURNAL_NAME = "publishing.json"
"""A file in that folder that exists while shards are moved into place: a JSON list of their names in the data set."""

ROW_LIST_KEYS = ("path", "row", "reason", "content")
"""The keys of a line of these lists."""

_SHARD = re.compile(r"\w+-\d{5,}-of-\d{5,}\.parquet")
_FORMAT_FILE = re.compile(r"[a-z][a-z0-9_]*/(?:\w+/)?(?:\w+-\d{5,}-of-\d{5,}[\w.]*|index\.json|packed_metadata\.json)")
_UNIT_FILE = re.compile(r"unit-([0-9a-f]{64})(\.bad|\.dropped)?(\.account)?\.arrow")
_TEMPLATE_DATE = re.compile(r"template-date-[0-9a-f]{32}")
_MAX_LINE = 1 << 20  # bytes; the content of a row is cut long before


def is_shard_name(name: object) -> bool:
    """Return whether a value is the plain file name of a shard.

    Example:
        >>> is_shard_name("train-00000-of-00003.parquet"), is_shard_name("../train-00000-of-00003.parquet")
        (True, False)
    """
    return isinstance(name, str) and _SHARD.fullmatch(name) is not None


def is_format_file(name: object) -> bool:
    """Return whether a value is the path of a file that a run writes in a format other than Parquet.

    Such a path is relative to the data set, and leads to a folder in it.

    Example:
        >>> is_format_file("mds/train/index.json"), is_format_file("mds/../../index.json")
        (True, False)
    """
    return isinstance(name, str) and _FORMAT_FILE.fullmatch(name) is not None


def unit_key_in(name: str) -> str | None:
    """Return the key of the staged unit that a file name belongs to, None for other names.

    Example:
        >>> unit_key_in("unit-tests.arrow")
    """
    found = _UNIT_FILE.fullmatch(name)
    return None if found is None else found[1]


def is_unit_file(name: str) -> bool:
    """Return whether a file name is that of one of the files of a staged unit."""
    return unit_key_in(name) is not None


def template_date_name(tokenizer: str) -> str:
    """Return the name of the file beside staged units that holds the day that a chat template is given."""
    return f"template-date-{tokenizer}"


def template_date_in(place: AnyPath) -> str | None:
    """Return the day (YYYY-MM-DD) in such a file; None for other files, and if there is none.

    Raises:
        OSError: it cannot be read.
    """
    if not _TEMPLATE_DATE.fullmatch(place.name):
        return None
    try:
        day = read_bytes(place).decode().removesuffix("\n")
        return day if date.fromisoformat(day).isoformat() == day else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def names_in_journal(staging: AnyPath) -> list[str] | None:
    """Return the names of the files in the journal of a `.staging` folder; None if it has none, or another file."""
    try:
        names = json.loads(read_bytes(staging / JOURNAL_NAME))
    except (OSError, ValueError, RecursionError):
        return None
    return names_of_shards(names) if isinstance(names, list) else None


def names_of_shards(names: Iterable[object]) -> list[str]:
    """Return those of some untrusted values that are names of files of shards, in any format."""
    return [str(name) for name in names if is_shard_name(name) or is_format_file(name)]


def is_row_list(place: AnyPath) -> bool:
    """Return whether a file has the lines of a list of removed rows, judged by its first one.

    Raises:
        OSError: it cannot be read.
    """
    with open_binary(place) as stream:
        line = stream.readline(_MAX_LINE)
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and tuple(entry) == ROW_LIST_KEYS


def require_complete_dataset(directory: AnyPath) -> None:
    """Check that a directory does not hold a data set that is only partly written.

    Raises:
        SourceError: `preprocess` is writing it, or was killed while writing it.
    """
    if file_size(directory / STAGING_NAME / JOURNAL_NAME) >= 0 and file_size(directory / MANIFEST_NAME) < 0:
        raise SourceError(f"{directory}: preprocess has not finished writing this data set; rerun the command, or wait")
