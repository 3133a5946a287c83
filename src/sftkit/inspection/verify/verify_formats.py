"""Checks the files of a data set in formats other than Parquet against its manifest: size and sha256."""

from __future__ import annotations

from collections.abc import Iterator

from sftkit.core.progress import Progress, progress_stage
from sftkit.inspection.verify.outcome import CheckOutcome, Difference, format_value
from sftkit.shards.manifest import FormatFile, Manifest
from sftkit.storage.dataset_files import is_format_file
from sftkit.storage.files import file_size, sha256_of_file
from sftkit.storage.paths import AnyPath


def verify_formats(root: AnyPath, manifest: Manifest, progress: Progress) -> CheckOutcome:
    """Hash the files of all formats but Parquet.

    Args:
        root: the directory of the manifest.
        manifest: what to check against.
        progress: receives bytes.
    """
    if not manifest.formats:
        return CheckOutcome()
    verified: list[str] = []
    differences: list[Difference] = []
    total = sum(file.bytes for file in manifest.format_files)
    with progress_stage(progress, "verifying other formats", total):
        for name, files in manifest.formats.items():
            found = [each for file in files for each in _differences(root, file)]
            progress.advance(sum(file.bytes for file in files))
            differences += found
            if not found:
                size = format_value(sum(file.bytes for file in files))
                what = "file" if len(files) == 1 else "files"
                verified.append(f"{format_value(len(files))} {what} of {name} ({size} bytes): sha256")
    return CheckOutcome(tuple(verified), tuple(differences))


def _differences(root: AnyPath, file: FormatFile) -> Iterator[Difference]:
    path = root / file.file
    if not is_format_file(file.file):
        yield Difference(file.file, "is listed in the manifest, but is not the name of a shard in its directory")
    elif file_size(path) < 0:
        yield Difference(file.file, "is missing")
    elif file_size(path) != file.bytes:
        yield Difference(
            file.file, f"{format_value(file_size(path))} bytes, the manifest says {format_value(file.bytes)}"
        )
    elif sha256_of_file(path) != file.sha256:
        yield Difference(file.file, "its content changed")
