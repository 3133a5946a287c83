"""The splits of a data set, and how names of files and folders tell them, as in `datasets.data_files`."""

from __future__ import annotations

import re

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
SPLITS = (TRAIN, VALIDATION)
"""The splits of shards."""

SPLIT_KEYWORDS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("validation", "valid", "dev", "val"),
    TEST: ("test", "testing", "eval", "evaluation"),
}
_SEPARATOR = "[-._ 0-9]"
_IN_FILE_NAME = {
    split: re.compile(rf"(?:^|{_SEPARATOR})(?:{'|'.join(words)}){_SEPARATOR}")
    for split, words in SPLIT_KEYWORDS.items()
}
_IN_FOLDER_NAME = {
    split: re.compile(rf"(?:^|{_SEPARATOR})(?:{'|'.join(words)})(?:{_SEPARATOR}|$)")
    for split, words in SPLIT_KEYWORDS.items()
}


def splits_from_path(path: str) -> frozenset[str]:
    """Return the splits that a relative path names: those that its folders name, otherwise those of the file name.

    Unlike `datasets`, upper and lower case are the same.

    Example:
        >>> sorted(splits_from_path("data/gsm8k_test.jsonl")), sorted(splits_from_path("latest.jsonl"))
        (['test'], [])
    """
    *folders, name = path.lower().split("/")
    found = {split for split, word in _IN_FOLDER_NAME.items() if any(word.search(folder) for folder in folders)}
    return frozenset(found or {split for split, word in _IN_FILE_NAME.items() if word.search(name)})


def split_of_keyword(word: str) -> str | None:
    """Return the split that a word stands for; None if it is not one of the usual words."""
    return next((split for split, words in SPLIT_KEYWORDS.items() if word.lower() in words), None)


def is_in_split(path: str, split: str) -> bool:
    """Whether a folder or file name of a relative path names exactly this split.

    Example:
        >>> is_in_split("data/train_sft-00000-of-00003.parquet", "train_sft"), is_in_split("sft.jsonl", "train_sft")
        (True, False)
    """
    *folders, name = path.split("/")
    return split in folders or bool(re.search(rf"(?:^|{_SEPARATOR}){re.escape(split)}{_SEPARATOR}", name))
