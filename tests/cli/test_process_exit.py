"""Processes of a launch end before the interpreter is finalized, with everything written and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
from sftkit.cli.process_exit import exit_before_finalization

class Finalized:
    def __del__(self):
        print("finalized")

kept = Finalized()
with exit_before_finalization():
    atexit.register(print, "called at exit")
    print("written")
    {end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("pass", 0), ("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('failed')", 1), ("raise ValueError('failed')", 1)],
)
def test_the_functions_of_atexit_are_called_and_nothing_is_finalized(end: str, code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM.format(end=end)], capture_output=True, text=True, check=False)

    assert (ended.stdout, ended.returncode) == ("written\ncalled at exit\n", code)
    assert ("failed" in ended.stderr) == ("failed" in end)


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["train", "--no_such_key", "1"], 2)])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_command_has_the_same_exit_code_in_a_launch(processes: str, arguments: list[str], code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "sftkit", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "WORLD_SIZE": processes, "RANK": "0"},
    )

    assert ended.returncode == code
    assert ended.stdout if code == 0 else "no_such_key" in ended.stderr
