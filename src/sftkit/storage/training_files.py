"""The files by which the output directory of `train` and its checkpoints are known."""

from __future__ import annotations

import json
from pathlib import Path

LOG_NAME = "training_logs.jsonl"
"""The log events of a run, in its output directory from the moment it begins."""
EVALUATION_NAME = "eval_results.json"
"""The metrics of an evaluation without training."""
SEAL_NAME = "sftkit_checkpoint.json"
"""A file in a checkpoint that is complete."""
UNFINISHED_NAME = "sftkit_unfinished"
"""A file that is in a checkpoint from before its first file is written until it is sealed."""

_MAX_LINE = 1 << 20  # bytes


def is_training_output(folder: Path) -> bool:
    """Return whether `train` writes, or has written, to a directory: its output directory or a checkpoint."""
    return any((folder / name).is_file() for name in (SEAL_NAME, UNFINISHED_NAME)) or _is_log(folder / LOG_NAME)


def _is_log(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        line = stream.readline(_MAX_LINE)
    try:
        event = json.loads(line) if line else {"step": 0, "epoch": 0}
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and list(event)[:2] == ["step", "epoch"]
