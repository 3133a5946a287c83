"""The names that files of a data set have: those who write them and those who read them know the same."""

from __future__ import annotations

from sftkit.errors import SourceError
from sftkit.storage.files import size_of
from sftkit.storage.paths import AnyPath

MANIFEST_NAME = "manifest.json"
QUARANTINE_NAME = "quarantine.jsonl"
CARD_NAME = "README.md"
STAGING_NAME = ".staging"
"""The folder of all that is no part of a data set."""
JOURNAL_NAME = "publishing.json"
"""What is there, in that folder, while shards are moved to their names."""


def check_finished(directory: AnyPath) -> None:
    """Raise `SourceError` where `preprocess` is making a data set: a part of it would be taken for all of it."""
    if size_of(directory / STAGING_NAME / JOURNAL_NAME) >= 0 and size_of(directory / MANIFEST_NAME) < 0:
        raise SourceError(
            f"{directory}: preprocess has not finished writing this data set; say its command again, or wait for it"
        )
