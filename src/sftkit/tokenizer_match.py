"""Compares a tokenizer with the one that a manifest records, and finds the chat template that it records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkit.config.schema.data_config import ProcessorConfig
from sftkit.errors import TokenizerError
from sftkit.shards.manifest import Manifest, TokenizerInfo
from sftkit.tokenization.loading.tokenizer_difference import template_difference, template_text, tokenizer_difference
from sftkit.tokenization.loading.tokenizer_files import tokenizer_file_hashes
from sftkit.tokenization.loading.tokenizer_identity import chat_template_sha256, fingerprint
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer, read_chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizerMismatch:
    """One difference between two tokenizers."""

    clause: str
    """What differs, for an error message."""
    details: tuple[str, ...]
    """Lines that show the difference."""

    def __str__(self) -> str:
        return "\n  ".join([self.clause, *self.details])


def find_mismatches(
    recorded: TokenizerInfo, tokenizer: PreTrainedTokenizerBase, spec: TokenizerSpec
) -> tuple[TokenizerMismatch, ...]:
    """Find how a tokenizer differs from the one that made some shards.

    To show where they differ, the tokenizer that made the shards is loaded, if it is still available. In messages it is
    the one "there", and the other one is "here".

    Args:
        recorded: the tokenizer in the manifest.
        tokenizer: the tokenizer to compare, with its chat template and added special tokens.
        spec: what it was loaded from.

    Returns:
        () when both give the same ids for the same rows.
    """
    mismatches = []
    ids_differ = fingerprint(tokenizer) != recorded.fingerprint
    templates_differ = chat_template_sha256(tokenizer) != recorded.chat_template_sha256
    original = _load_recorded(recorded, spec) if ids_differ or templates_differ else None
    if ids_differ:
        mismatches.append(_compare_ids(recorded, tokenizer, spec, original))
    if templates_differ:
        mismatches.append(_compare_templates(recorded, tokenizer, original))
    return tuple(mismatches)


def template_options(manifest: Manifest) -> ProcessorConfig:
    """Return the keys of the config in a manifest that set a chat template; the others have their defaults."""
    section = manifest.config.get("dataprocessor")
    keys = section if isinstance(section, dict) else {}
    given = {key: str(value) for key, value in keys.items() if value is not None}
    return ProcessorConfig(
        chat_template=given.get("chat_template"),
        chat_template_path=given.get("chat_template_path"),
        chat_template_base64=given.get("chat_template_base64"),
    )


def recorded_template(manifest: Manifest) -> str | None:
    """Return the chat template that the config in a manifest sets; None if it sets none.

    Raises:
        ConfigError: it cannot be read any more, and the manifest has no copy of it.
    """
    options = template_options(manifest)
    if options != ProcessorConfig() and manifest.tokenizer is not None and manifest.tokenizer.chat_template is not None:
        return manifest.tokenizer.chat_template  # the file it came from may have changed
    return read_chat_template(options)


def changed_files(recorded: TokenizerInfo, files: Mapping[str, str]) -> list[str]:
    """Return the names of a tokenizer's files that differ from the recorded ones, are missing or are new.

    Args:
        recorded: the tokenizer in the manifest.
        files: name -> sha256 of the files to compare.
    """
    return sorted(name for name in {*recorded.files, *files} if recorded.files.get(name) != files.get(name))


def _compare_ids(
    recorded: TokenizerInfo,
    tokenizer: PreTrainedTokenizerBase,
    spec: TokenizerSpec,
    original: PreTrainedTokenizerBase | None,
) -> TokenizerMismatch:
    pairs = [
        ("vocabulary", f"{recorded.vocabulary_size} tokens", f"{len(tokenizer)} tokens"),
        ("eos token", repr(recorded.eos_token), repr(tokenizer.eos_token)),
        ("added special tokens", str(list(recorded.added_special_tokens)), str(list(spec.added_special_tokens))),
    ]
    clauses = [f"{what} {theirs} there, {ours} here" for what, theirs, ours in pairs if theirs != ours]
    clauses = clauses or ["same size, but they tokenize differently (their fingerprints differ)"]
    if original is not None and fingerprint(original) == recorded.fingerprint:
        details = tokenizer_difference(original, tokenizer)
    else:
        names = changed_files(recorded, tokenizer_file_hashes(spec.name)) if recorded.files else []
        details = [f"files that differ: {', '.join(names)}"] if names else []
    return TokenizerMismatch(f"(made with {recorded.name}) {'; '.join(clauses)}", tuple(details))


def _compare_templates(
    recorded: TokenizerInfo, tokenizer: PreTrainedTokenizerBase, original: PreTrainedTokenizerBase | None
) -> TokenizerMismatch:
    theirs, ours = recorded.chat_template, template_text(tokenizer)
    if theirs is None and original is not None and chat_template_sha256(original) == recorded.chat_template_sha256:
        theirs = template_text(original)
    here = chat_template_sha256(tokenizer)
    clause = f"chat template {_short(recorded.chat_template_sha256)} there, {_short(here)} here"
    if theirs is None or ours is None:
        return TokenizerMismatch(clause, ())
    return TokenizerMismatch(clause, ("- there, + here", *template_difference(theirs, ours)))


def _load_recorded(recorded: TokenizerInfo, spec: TokenizerSpec) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer that the manifest names, None when it is not available any more."""
    if not tokenizer_file_hashes(recorded.name):
        return None
    try:
        return load_tokenizer(
            TokenizerSpec(
                recorded.name, None, recorded.added_special_tokens, spec.trust_remote_code, recorded.adds_missing_tokens
            )
        )
    except TokenizerError:
        return None


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"{sha256[:12]}..."
