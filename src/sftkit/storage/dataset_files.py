"""The names of the files of a data set."""

from __future__ import annotations

from sftkit.errors import SourceError
from sftkit.storage.files import file_size
from sftkit.storage.paths import AnyPath

MANIFEST_NAME = "manifest.json"
QUARANTINE_NAME = "quarantine.jsonl"
CARD_NAME = "README.md"
STAGING_NAME = ".staging"
"""The folder for everything that is not part of the data set."""
JOURNAL_NAME = "publishing.json"
"""A file in that folder that exists while shards are moved into place."""


def require_complete_dataset(directory: AnyPath) -> None:
    """Check that a directory does not hold a data set that is only partly written.

    Raises:
        SourceError: `preprocess` is writing it, or was killed while writing it.
    """
    if file_size(directory / STAGING_NAME / JOURNAL_NAME) >= 0 and file_size(directory / MANIFEST_NAME) < 0:
        raise SourceError(f"{directory}: preprocess has not finished writing this data set; rerun the command, or wait")
