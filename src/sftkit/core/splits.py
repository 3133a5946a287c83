"""The two splits, and how the field names them in files."""

from __future__ import annotations

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)

_VALIDATION_NAMES = frozenset({"validation", "valid", "val", "eval", "evaluation", "test", "dev"})
_TRAIN_NAMES = frozenset({"train", "training"})


def split_from_path(name: str) -> str | None:
    """The split that a relative path names in its last telling part ("data/val-0001.parquet" -> "validation")."""
    for part in reversed(name.lower().split("/")):
        words = part.replace("_", "-").replace(".", "-").split("-")
        if _VALIDATION_NAMES & {words[0]}:
            return VALIDATION
        if _TRAIN_NAMES & {words[0]}:
            return TRAIN
    return None
