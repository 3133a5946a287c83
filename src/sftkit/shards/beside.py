"""What stands beside the shards of a data set: the rows that could not be used, and the card."""

from __future__ import annotations

import json
from collections.abc import Collection

from sftkit.naming import CARD_NAME, QUARANTINE_NAME
from sftkit.rows import BadRow
from sftkit.shards.card import dataset_card
from sftkit.shards.manifest import Manifest
from sftkit.storage.files import remove, replacing, sha256_of_file, write_text
from sftkit.storage.paths import AnyPath


def write_quarantine(target: AnyPath, bad: Collection[tuple[str, BadRow]]) -> None:
    """Write quarantined rows, (path, row) each, one JSON object a line; no file where there are none."""
    remove(target)
    if not bad:
        return
    with replacing(target) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        for path, row in bad:
            entry = {"path": path, "row": row.number, "reason": row.reason, "content": row.content}
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def write_beside(folder: AnyPath, manifest: Manifest, bad: Collection[tuple[str, BadRow]]) -> dict[str, str]:
    """Write what stands beside the shards; sha256 by name."""
    write_quarantine(folder / QUARANTINE_NAME, bad)
    write_text(folder / CARD_NAME, dataset_card(manifest))
    found = {CARD_NAME: sha256_of_file(folder / CARD_NAME), QUARANTINE_NAME: quarantine_sha256(folder)}
    return {name: sha256 for name, sha256 in found.items() if sha256 is not None}


def quarantine_sha256(folder: AnyPath) -> str | None:
    """sha256 of the quarantine of a data set, None where it has none."""
    try:
        return sha256_of_file(folder / QUARANTINE_NAME)
    except (FileNotFoundError, IsADirectoryError):
        return None
