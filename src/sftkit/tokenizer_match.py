"""Whether a tokenizer is the one that a manifest names, and what sets it apart if it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkit.errors import TokenizerError
from sftkit.shards.manifest import TokenizerInfo
from sftkit.tokenization.tokenizer_difference import template_difference, template_text, tokenizer_difference
from sftkit.tokenization.tokenizer_files import tokenizer_file_hashes
from sftkit.tokenization.tokenizer_loading import TokenizerSpec, chat_template_sha256, fingerprint, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizerMismatch:
    """One thing that differs: a clause for an error message, and lines that show it."""

    clause: str
    details: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join([self.clause, *self.details])


def find_mismatches(
    made_with: TokenizerInfo, tokenizer: PreTrainedTokenizerBase, spec: TokenizerSpec
) -> tuple[TokenizerMismatch, ...]:
    """What sets a tokenizer apart from the one that made some shards; () when it gives the same ids from the same rows.

    Where the two differ, and the one that made the shards is still where it was, it is loaded to show where.

    Args:
        made_with: what the manifest says.
        tokenizer: the one here, with its chat template and special tokens in place.
        spec: what it was loaded from.
    """
    found = []
    ids_differ = fingerprint(tokenizer) != made_with.fingerprint
    templates_differ = chat_template_sha256(tokenizer) != made_with.chat_template_sha256
    original = _original(made_with, spec) if ids_differ or templates_differ else None
    if ids_differ:
        found.append(_of_ids(made_with, tokenizer, spec, original))
    if templates_differ:
        found.append(_of_templates(made_with, tokenizer, original))
    return tuple(found)


def changed_files(made_with: TokenizerInfo, files: Mapping[str, str]) -> list[str]:
    """Names of the files that the shards' tokenizer was loaded from and that are others here, or gone, or new."""
    return sorted(name for name in {*made_with.files, *files} if made_with.files.get(name) != files.get(name))


def _of_ids(
    made_with: TokenizerInfo,
    tokenizer: PreTrainedTokenizerBase,
    spec: TokenizerSpec,
    original: PreTrainedTokenizerBase | None,
) -> TokenizerMismatch:
    pairs = [
        ("vocabulary", f"{made_with.vocabulary_size} tokens", f"{len(tokenizer)} tokens"),
        ("eos token", repr(made_with.eos_token), repr(tokenizer.eos_token)),
        ("added special tokens", str(list(made_with.added_special_tokens)), str(list(spec.added_special_tokens))),
    ]
    clauses = [f"{what} {theirs} there, {ours} here" for what, theirs, ours in pairs if theirs != ours]
    clauses = clauses or ["same size, but they do not tokenize alike (their fingerprints differ)"]
    if original is not None and fingerprint(original) == made_with.fingerprint:
        details = tokenizer_difference(original, tokenizer)
    else:
        names = changed_files(made_with, tokenizer_file_hashes(spec.name)) if made_with.files else []
        details = [f"files that differ: {', '.join(names)}"] if names else []
    return TokenizerMismatch(f"(made with {made_with.name}) {'; '.join(clauses)}", tuple(details))


def _of_templates(
    made_with: TokenizerInfo, tokenizer: PreTrainedTokenizerBase, original: PreTrainedTokenizerBase | None
) -> TokenizerMismatch:
    theirs, ours = made_with.chat_template, template_text(tokenizer)
    if theirs is None and original is not None and chat_template_sha256(original) == made_with.chat_template_sha256:
        theirs = template_text(original)
    here = chat_template_sha256(tokenizer)
    clause = f"chat template {_short(made_with.chat_template_sha256)} there, {_short(here)} here"
    if theirs is None or ours is None:
        return TokenizerMismatch(clause, ())
    return TokenizerMismatch(clause, ("- there, + here", *template_difference(theirs, ours)))


def _original(made_with: TokenizerInfo, spec: TokenizerSpec) -> PreTrainedTokenizerBase | None:
    """The tokenizer at the place that the manifest names, None where nothing is found there."""
    if not tokenizer_file_hashes(made_with.name):
        return None
    try:
        return load_tokenizer(
            TokenizerSpec(made_with.name, None, made_with.added_special_tokens, spec.trust_remote_code)
        )
    except TokenizerError:
        return None


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"{sha256[:12]}..."
