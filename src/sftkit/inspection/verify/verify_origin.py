"""What made a data set, against what is there now: its sources, its tokenizer and chat template, the libraries."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sftkit.config.commands import InspectConfig
from sftkit.config.schema import ProcessorConfig
from sftkit.core.progress import Progress, progress_stage
from sftkit.errors import ConfigError
from sftkit.inspection.audit.shard_origin import recorded_template
from sftkit.inspection.verify.outcome import CheckOutcome, Difference, format_value
from sftkit.inspection.view.decoding import open_tokenizer
from sftkit.shards.manifest import Manifest, SourceInfo, TokenizerInfo
from sftkit.storage.files import file_size, sha256_of_file
from sftkit.storage.paths import is_url
from sftkit.tokenization.tokenizer_files import tokenizer_file_hashes
from sftkit.tokenization.tokenizer_loading import TokenizerSpec, read_chat_template
from sftkit.tokenizer_match import changed_files, find_mismatches

_AT_ONCE = 4  # files
_NAMED = 20


def verify_sources(manifest: Manifest, progress: Progress) -> CheckOutcome:
    """Sources that can be reached, by size and sha256. What changed is a note: shards may outlive their sources."""
    local = {source.path: source for source in manifest.sources if not is_url(source.path)}
    with progress_stage(progress, "verifying sources", len(local)), ThreadPoolExecutor(_AT_ONCE) as pool:
        states = []
        for state in pool.map(_state, local.values()):
            states.append(state)
            progress.advance(1)
    same = sum(state is None for state in states)
    elsewhere = len({source.path for source in manifest.sources}) - len(local)
    changed = [f"{path}: {state}" for path, state in zip(local, states, strict=True) if state is not None]
    notes = [f"source {text} since the shards were made" for text in changed[:_NAMED]]
    if len(changed) > _NAMED:
        notes.append(f"... and {format_value(len(changed) - _NAMED)} more sources")
    if elsewhere:
        notes.append(f"sources that are no local files were not looked at: {format_value(elsewhere)}")
    right = (f"{format_value(same)} of {format_value(len(local) + elsewhere)} sources: unchanged",) if same else ()
    return CheckOutcome(right, (), tuple(notes))


def verify_tokenizer(config: InspectConfig, manifest: Manifest) -> CheckOutcome:
    """The tokenizer and chat template that the config names, or else those that the manifest does.

    Raises:
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    made_with = manifest.tokenizer
    if made_with is None:
        return CheckOutcome(notes=("the shards are text: there is no tokenizer to verify",))
    template, notes = _template_now(manifest)
    tokenizer, why = open_tokenizer(config, manifest, template)
    if tokenizer is None:
        return CheckOutcome(notes=(*notes, *why))
    name = config.tokenizer_name_or_path or config.model_name_or_path or made_with.name
    added = config.add_special_tokens or made_with.added_special_tokens
    spec = TokenizerSpec(name, None, added, config.trust_remote_code)
    found = find_mismatches(made_with, tokenizer, spec)
    if found:
        return CheckOutcome(
            (), tuple(Difference(f"tokenizer {name}", each.clause, each.details) for each in found), tuple(notes)
        )
    right = f"tokenizer {name}: fingerprint{', chat template' if made_with.chat_template_sha256 else ''}"
    files, more = _files(made_with, name)
    return CheckOutcome((f"{right}{files}",), (), (*notes, *more))


def verify_versions(manifest: Manifest) -> CheckOutcome:
    """The versions that made the shards against those installed; the same rows are to be expected from others too."""
    installed = {name: _version(name) for name in manifest.versions}
    other = [
        f"{name} {said} (here: {installed[name] or 'not installed'})"
        for name, said in manifest.versions.items()
        if installed[name] != said
    ]
    if other:
        return CheckOutcome(notes=(f"made with other versions than are installed: {', '.join(other)}",))
    return CheckOutcome((f"versions of {', '.join(manifest.versions)}: as installed",) if manifest.versions else ())


def _state(source: SourceInfo) -> str | None:
    """What became of a source, None when it is as it was."""
    path = Path(source.path)
    size = file_size(path)
    if size < 0:
        return "gone"
    if size != source.bytes:
        return f"changed ({format_value(size)} bytes, {format_value(source.bytes)} then)"
    try:
        return None if sha256_of_file(path) == source.sha256 else "changed (same size, another sha256)"
    except OSError as error:
        return f"not readable ({error.strerror or error})"


def _template_now(manifest: Manifest) -> tuple[str | None, Sequence[str]]:
    """The chat template that the config of the shards names, as it is now."""
    section = manifest.config.get("dataprocessor") or {}
    processor = ProcessorConfig(
        chat_template=section.get("chat_template"),
        chat_template_path=section.get("chat_template_path"),
        chat_template_base64=section.get("chat_template_base64"),
    )
    try:
        return read_chat_template(processor), ()
    except ConfigError as error:
        return recorded_template(manifest)[0], (f"{error}: the manifest's own copy of it was taken",)


def _files(made_with: TokenizerInfo, name: str) -> tuple[str, list[str]]:
    """How many files of a tokenizer are as they were, and those that are not although it makes the same tokens."""
    if not made_with.files:
        return "", []
    files = tokenizer_file_hashes(name)
    changed = changed_files(made_with, files)
    if changed:
        names = ", ".join(changed)
        return "", [f"tokenizer {name}: other files than made the shards ({names}), and the same tokens all the same"]
    return f", {format_value(len(files))} files", []


def _version(package: str) -> str | None:
    if package == "python":
        return platform.python_version()
    try:
        return version(package)
    except PackageNotFoundError:
        return None
