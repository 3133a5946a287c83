"""The names that files of a data set have: those who write them and those who read them know the same."""

from __future__ import annotations

from sftkit.errors import SourceError
from sftkit.storage.files import file_size
from sftkit.storage.paths import AnyPath

MANIFEST_NAME = "manifest.json"
QUARANTINE_NAME = "quarantine.jsonl"
CARD_NAME = "README.md"
STAGING_NAME = ".staging"
"""The folder of all that is no part of a data set."""
JOURNAL_NAME = "publishing.json"
"""What is there, in that folder, while shards are moved to their names."""


def require_complete_dataset(directory: AnyPath) -> None:
    """Raise `SourceError` where `preprocess` is making a data set: a part of it would be taken for all of it."""
    if file_size(directory / STAGING_NAME / JOURNAL_NAME) >= 0 and file_size(directory / MANIFEST_NAME) < 0:
        raise SourceError(
            f"{directory}: preprocess has not finished writing this data set; say its command again, or wait for it"
        )
