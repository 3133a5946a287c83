"""Installed packages with sftkit plugins, made up for a test, and commands that find them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


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
