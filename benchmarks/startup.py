"""Time of small runs: help, an error in the config, ten rows."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

from .corpora import conversations
from .processes import SFTKIT, Sftkit, timed

_TIMES = 5
_CONFIG_ERROR = 1  # exit code of sftkit


def help_seconds() -> float:
    """`sftkit --help`."""
    return _median(lambda: timed([*SFTKIT, "--help"]))


def config_error_seconds(work: Path) -> float:
    """`sftkit preprocess` with a data config that has a misspelled key."""
    config = work / "misspelt.json"
    config.write_text(json.dumps({"datasets": [{"name": "chats", "data_pahts": ["chats.jsonl"]}]}), encoding="utf-8")
    command = [*SFTKIT, "preprocess", "--data_config_path", str(config), "--output_dir", str(work / "never")]
    return _median(lambda: timed([*command, "--model_name_or_path", "sample:model"], exit_code=_CONFIG_ERROR))


def ten_rows_seconds(sftkit: Sftkit, work: Path) -> float:
    """A whole run on ten conversations, with the default number of workers."""
    corpus, output = conversations(work, 10), work / "shards-ten-rows"
    return _median(lambda: timed([*SFTKIT, *sftkit.arguments(corpus, None, output)]))


def _median(run: Callable[[], tuple[float, str]]) -> float:
    run()  # bring the files into the page cache
    return statistics.median(run()[0] for _ in range(_TIMES))
