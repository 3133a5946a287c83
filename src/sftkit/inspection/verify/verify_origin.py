"""Checks whether what made a data set is unchanged: its sources, tokenizer, chat template and libraries."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sftkit.config.commands import InspectConfig
from sftkit.core.progress import Progress, progress_stage
from sftkit.errors import ConfigError
from sftkit.inspection.verify.outcome import CheckOutcome, Difference, format_value
from sftkit.inspection.view.decoding import open_tokenizer
from sftkit.shards.manifest import Manifest, TokenizerInfo
from sftkit.shards.source_info import SourceInfo
from sftkit.storage.files import file_size, sha256_of_file
from sftkit.storage.paths import is_url
from sftkit.tokenization.loading.tokenizer_files import tokenizer_file_hashes
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, read_chat_template
from sftkit.tokenizer_match import changed_files, find_mismatches, template_options

_THREADS = 4
_MAX_LISTED = 20


def verify_sources(manifest: Manifest, progress: Progress) -> CheckOutcome:
    """Compare the size and sha256 of local sources. Changes are notes only, since shards may outlive their sources."""
    local = {source.path: source for source in manifest.sources if not is_url(source.path)}
    with progress_stage(progress, "verifying sources", len(local)), ThreadPoolExecutor(_THREADS) as pool:
        changes = []
        for change in pool.map(_change, local.values()):
            changes.append(change)
            progress.advance(1)
    unchanged = sum(change is None for change in changes)
    remote = len({source.path for source in manifest.sources}) - len(local)
    changed = [f"{path}: {change}" for path, change in zip(local, changes, strict=True) if change is not None]
    notes = [f"source {text} since the shards were made" for text in changed[:_MAX_LISTED]]
    if len(changed) > _MAX_LISTED:
        notes.append(f"... and {format_value(len(changed) - _MAX_LISTED)} more sources")
    if remote:
        notes.append(f"sources that are not local files were not checked: {format_value(remote)}")
    if not unchanged:
        return CheckOutcome(notes=tuple(notes))
    count = f"{format_value(unchanged)} of {format_value(len(local) + remote)}"
    return CheckOutcome((f"{count} sources: unchanged",), (), tuple(notes))


def verify_tokenizer(config: InspectConfig, manifest: Manifest) -> CheckOutcome:
    """Compare the tokenizer and chat template that the config names, or else the manifest's, with the recorded ones.

    Raises:
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    recorded = manifest.tokenizer
    if recorded is None:
        return CheckOutcome(notes=("the shards are text: there is no tokenizer to verify",))
    template, notes = _current_template(manifest)
    tokenizer, reasons = open_tokenizer(config, manifest, template)
    if tokenizer is None:
        return CheckOutcome(notes=(*notes, *reasons))
    name = config.tokenizer_name_or_path or config.model_name_or_path or recorded.name
    added = config.add_special_tokens or recorded.added_special_tokens
    spec = TokenizerSpec(name, None, added, config.trust_remote_code, recorded.adds_missing_tokens)
    mismatches = find_mismatches(recorded, tokenizer, spec)
    if mismatches:
        place = f"tokenizer {name}"
        differences = tuple(Difference(place, mismatch.clause, mismatch.details) for mismatch in mismatches)
        return CheckOutcome((), differences, tuple(notes))
    template_part = ", chat template" if recorded.chat_template_sha256 else ""
    files_part, more = _compare_files(recorded, name)
    return CheckOutcome((f"tokenizer {name}: fingerprint{template_part}{files_part}",), (), (*notes, *more))


def verify_versions(manifest: Manifest) -> CheckOutcome:
    """Compare the installed versions with those that made the shards. Differences are notes only."""
    installed = {name: _version(name) for name in manifest.versions}
    other = [
        f"{name} {used} (here: {installed[name] or 'not installed'})"
        for name, used in manifest.versions.items()
        if installed[name] != used
    ]
    if other:
        return CheckOutcome(notes=(f"made with other versions than those installed: {', '.join(other)}",))
    return CheckOutcome((f"versions of {', '.join(manifest.versions)}: unchanged",) if manifest.versions else ())


def _change(source: SourceInfo) -> str | None:
    """Return how a source changed, None when it did not."""
    path = Path(source.path)
    size = file_size(path)
    if size < 0:
        return "gone"
    if size != source.bytes:
        return f"changed (now {format_value(size)} bytes, was {format_value(source.bytes)})"
    try:
        return None if sha256_of_file(path) == source.sha256 else "changed (same size, other sha256)"
    except OSError as error:
        return f"not readable ({error.strerror or error})"


def _current_template(manifest: Manifest) -> tuple[str | None, Sequence[str]]:
    """Return the chat template that the config of the shards names, as it is now, and notes."""
    try:
        return read_chat_template(template_options(manifest)), ()
    except ConfigError as error:
        copy = manifest.tokenizer.chat_template if manifest.tokenizer is not None else None
        return copy, (f"{error}; the copy in the manifest was used instead" if copy is not None else str(error),)


def _compare_files(recorded: TokenizerInfo, name: str) -> tuple[str, list[str]]:
    """Compare the files of an equivalent tokenizer: a clause when all are unchanged, and else a note."""
    if not recorded.files:
        return "", []
    files = tokenizer_file_hashes(name)
    changed = changed_files(recorded, files)
    if changed:
        names = ", ".join(changed)
        return "", [f"tokenizer {name}: files changed ({names}), but it makes the same tokens"]
    return f", {format_value(len(files))} files", []


def _version(package: str) -> str | None:
    if package == "python":
        return platform.python_version()
    try:
        return version(package)
    except PackageNotFoundError:
        return None
