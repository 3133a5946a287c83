"""The file of a page: where it may be, and how large."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sftkit.config.commands import InspectConfig
from sftkit.errors import OutputError, UsageError
from sftkit.storage.files import file_size, write_text
from sftkit.storage.paths import AnyPath, parse_path
from sftkit.storage.retry import error_reason

if TYPE_CHECKING:
    from sftkit.inspection.compare.comparison import Comparison
    from sftkit.inspection.report import Report

MAX_BYTES = 5_000_000
"""No page is larger."""

MOST_ROWS = 500
"""No page shows more."""

_SUFFIXES = (".html", ".htm")


class PageError(OutputError):
    """A page that cannot be written."""

    def __init__(self, message: str, found: Report | Comparison) -> None:
        """Keep what the page was to show, which may have taken long.

        Args:
            message: why it cannot be written.
            found: the result.
        """
        super().__init__(message)
        self.found = found


def check_page_path(config: InspectConfig) -> None:
    """Check where a page is to be written, before anything is read.

    Raises:
        UsageError: `report` is no HTML file, `report_rows` is out of range, or another option excludes them.
        OutputError: its folder does not exist, or may not be written to.
    """
    assert config.report is not None
    if config.verify:
        raise UsageError("report and verify exclude each other: verify prints what differs from the manifest")
    if not 0 <= config.report_rows <= MOST_ROWS:
        raise UsageError(f"report_rows must be between 0 and {MOST_ROWS}, not {config.report_rows}")
    path = parse_path(config.report, config.storage_options)
    if not path.name.lower().endswith(_SUFFIXES):
        raise UsageError(f"report={config.report}: must be the name of an HTML file, such as report.html")
    if isinstance(path, Path) and path.is_dir():
        raise OutputError(f"{path}: is a directory; name a file, such as {path / 'report.html'}")
    if isinstance(path, Path) and not path.parent.is_dir():
        raise OutputError(f"{path}: there is no directory {path.parent}; create it first")
    if isinstance(path, Path) and not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: cannot be written: no permission to write to {path.parent}")


def save_page(config: InspectConfig, page: str, found: Report | Comparison) -> int:
    """Write the HTML of a page to the file that `config.report` names, and return its size in bytes.

    Args:
        config: names the file.
        page: the HTML.
        found: what the page shows.

    Raises:
        PageError: it cannot be written.
    """
    assert config.report is not None
    path: AnyPath = parse_path(config.report, config.storage_options)
    try:
        write_text(path, page)
    except OSError as error:
        raise PageError(f"{path}: cannot be written: {error_reason(error)}", found) from None
    return file_size(path)
