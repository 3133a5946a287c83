"""Log lines on the terminal: those of libraries stay out, and equal warnings are counted."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reliability.material import copy_tokenizer, sftkit
from sftkit.cli.console.output import finish_logging, start_logging
from sftkit.core.startup.transformers_import import library_log_level
from support import write_jsonl


def test_equal_warnings_are_written_once_and_then_with_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("warning")
    log = logging.getLogger("sftkit.anything")
    for count in (1, 2, 3):
        log.warning("the same")
        log.warning("number %d", count)
        log.error("a failure")
    assert capsys.readouterr().err == (
        "WARNING: the same\nWARNING: number 1\nERROR: a failure\n"
        "WARNING: number 2\nERROR: a failure\nWARNING: number 3\nERROR: a failure\n"
    )
    finish_logging()
    assert capsys.readouterr().err == "WARNING: the same (3 times)\n"
    finish_logging()
    assert capsys.readouterr().err == ""


def test_bad_rows_of_a_preview_are_grouped_by_reason(tmp_path: Path) -> None:
    rows = [{"input": "q", "output": None if row in (2, 4, 5, 8, 9) else "a"} for row in range(1, 10)]
    path = write_jsonl(tmp_path / "pairs.jsonl", [*rows, {"input": 1, "output": "a"}, {"input": 1, "output": "b"}])
    done = sftkit("inspect-shards", "--training_data_path", path, "--model_name_or_path", "sample:model", "--rows", "9")
    assert done.code == 0
    assert [line for line in done.err.splitlines() if "pairs.jsonl:" in line] == [
        f"WARNING: {path}:2: column 'output' is null where text should be (and 4 more rows)",
        f"WARNING: {path}:10: column 'input' must be text, not int (and 1 more row)",
    ]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", "debug"), ("info", "error"), ("warning", "error"), ("passive", "error"), ("critical", "critical")],
)
def test_the_level_of_libraries(level: str, expected: str) -> None:
    assert library_log_level(level) == expected


# `clean_up_tokenization_spaces` makes transformers log a line of 400 characters each time a tokenizer is loaded.
@pytest.mark.parametrize(("level", "is_shown"), [("warning", False), ("debug", True)])
def test_log_lines_of_transformers_are_shown_with_debug_lines_only(tmp_path: Path, level: str, is_shown: bool) -> None:
    folder = tmp_path / "tokenizer"
    copy_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "clean_up_tokenization_spaces": True}))
    path = write_jsonl(tmp_path / "pairs.jsonl", [{"input": "q", "output": "a"}])
    command = [sys.executable, "-m", "sftkit", "preprocess", "--training_data_path", str(path), "--log_level", level]
    command += ["--tokenizer_name_or_path", str(folder), "--output_dir", str(tmp_path / "out")]
    environment = {key: value for key, value in os.environ.items() if key != "TRANSFORMERS_VERBOSITY"}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert ("[transformers]" in done.stderr) == is_shown, done.stderr
    assert is_shown or done.stderr == ""
