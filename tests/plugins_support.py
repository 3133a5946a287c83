"""Installed packages with sftkit plugins, made up for a test, and commands that find them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FORKING = """
import json, os, sys
from sftkit.cli.app import main
import sftkit.preprocessing.build

for line in sys.stdin:
    folder, arguments, printed = json.loads(line)
    child = os.fork()
    if not child:
        sys.path.insert(0, folder)
        sys.argv = ["sftkit", *arguments]
        os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        main()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def install_plugin(
    folder: Path,
    source: str,
    entry_points: Mapping[str, Mapping[str, str]],
    *,
    name: str = "toys",
    version: str = "1.0",
) -> Path:
    """Write a package as pip would install it: a module and its metadata.

    Args:
        folder: stands for `site-packages`; several packages may share it.
        source: the module.
        entry_points: group -> name -> attribute of the module: `{"sftkit.handlers": {"shout": "Shout"}}`.
        name: of the module and of the package.
        version: of the package.

    Returns:
        The folder, to be searched by `run_sftkit`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = []
    for group, points in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {name}:{attribute}" for key, attribute in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run_sftkit(folder: Path, *arguments: object, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run `python -m sftkit` where the packages in a folder are installed."""
    search = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "sftkit", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": search, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def forked_commands(place: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Start a process that imports the package once; yields a function that runs a command in a fork of it.

    The function takes what `run_sftkit` takes, and returns the exit code and what was printed to stderr. It is for
    commands that end before they start workers.

    Args:
        place: a folder for what commands print.
    """
    with subprocess.Popen(
        [sys.executable, "-c", FORKING],
        env={**os.environ, "COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to_process, from_process = process.stdin, process.stdout

        def run(folder: Path, *arguments: object) -> tuple[int, str]:
            printed = place / "stderr"
            to_process.write(json.dumps([str(folder), [*map(str, arguments)], str(printed)]) + "\n")
            to_process.flush()
            code = int(from_process.readline())
            return code, printed.read_text(encoding="utf-8")

        yield run
