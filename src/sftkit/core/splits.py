"""The two splits, and their usual names in file names."""

from __future__ import annotations

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)

_VALIDATION_NAMES = frozenset({"validation", "valid", "val", "eval", "evaluation", "test", "dev"})
_TRAIN_NAMES = frozenset({"train", "training"})


def split_from_path(name: str) -> str | None:
    """The split that a relative path names, decided by its last part that names one; None if there is none.

    Example:
        >>> split_from_path("data/val-0001.parquet"), split_from_path("rows.parquet")
        ('validation', None)
    """
    for part in reversed(name.lower().split("/")):
        words = part.replace("_", "-").replace(".", "-").split("-")
        if _VALIDATION_NAMES & {words[0]}:
            return VALIDATION
        if _TRAIN_NAMES & {words[0]}:
            return TRAIN
    return None
