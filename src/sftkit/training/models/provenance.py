"""Whether shards and model belong together: the tokenizer and the chat template that made the shards."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sftkit.config.schema import ProcessorConfig, TrainConfig
from sftkit.errors import ConfigError, TrainingError
from sftkit.shards.manifest import Manifest, TokenizerInfo
from sftkit.shards.reading import ShardSet
from sftkit.tokenization.loading import (
    TokenizerSpec,
    chat_template_sha256,
    fingerprint,
    load_tokenizer,
    read_chat_template,
    tokenizer_spec,
)
from sftkit.training.distributed import warn_once

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_TEMPLATE_KEYS = ("chat_template", "chat_template_path", "chat_template_base64")


@dataclass(frozen=True)
class RunTokenizer:
    """The tokenizer of a run, to be saved with the model.

    known_tokens: its length before special tokens were added to it for this run.
    """

    tokenizer: PreTrainedTokenizerBase
    known_tokens: int

    @property
    def pad_token_id(self) -> int:
        """The id that fills up a batch; where there is no pad token, eos (it is masked, so any id would do)."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def run_tokenizer(config: TrainConfig, shards: ShardSet) -> RunTokenizer:
    """Load the tokenizer of a run and compare it with the one that made the shards.

    Special tokens and a chat template that were given when the shards were made, and are not given now, are taken
    from the manifest: what is saved with the model is what its data was made with.

    Raises:
        TrainingError: they differ (and `allow_mismatch` is off), or no tokenizer is named.
        TokenizerError: the tokenizer cannot be loaded.
    """
    spec = tokenizer_spec(config)
    if spec is None:
        raise TrainingError("model_name_or_path is missing: it names the model to train")
    if shards.manifest is not None:
        spec = _as_recorded(spec, shards.manifest)
    tokenizer = load_tokenizer(spec)
    known = len(tokenizer)
    if spec.added_special_tokens:
        known = len(load_tokenizer(replace(spec, added_special_tokens=())))
    if shards.manifest is not None and shards.manifest.tokenizer is not None:
        made_with = shards.manifest.tokenizer
        differences = _differences(made_with, tokenizer, spec)
        if differences and set(made_with.added_special_tokens) < set(spec.added_special_tokens):
            # Tokens that are added now change no id of the shards: what counts is the tokenizer without them.
            before = replace(spec, added_special_tokens=made_with.added_special_tokens)
            differences = _differences(made_with, load_tokenizer(before), before)
        if differences:
            text = f"{shards.root} was made with another tokenizer than {spec.name}: {'; '.join(differences)}"
            if not config.allow_mismatch:
                raise TrainingError(f"{text} (allow_mismatch=true trains all the same)")
            warn_once(_log, text)
    return RunTokenizer(tokenizer, known)


def _as_recorded(spec: TokenizerSpec, manifest: Manifest) -> TokenizerSpec:
    if manifest.tokenizer is not None and not spec.added_special_tokens:
        spec = replace(spec, added_special_tokens=manifest.tokenizer.added_special_tokens)
    if spec.chat_template is None:
        spec = replace(spec, chat_template=_recorded_template(manifest.config))
    return spec


def _recorded_template(config: Mapping[str, Any]) -> str | None:
    """The chat template that the config of the shards gave, None where it gave none or it is no longer there."""
    section = config.get("dataprocessor")
    if not isinstance(section, Mapping):
        return None
    given = {key: str(section[key]) for key in _TEMPLATE_KEYS if section.get(key) is not None}
    try:
        return read_chat_template(
            ProcessorConfig(
                chat_template=given.get("chat_template"),
                chat_template_path=given.get("chat_template_path"),
                chat_template_base64=given.get("chat_template_base64"),
            )
        )
    except ConfigError:
        return None  # a template file that has gone; the comparison that follows says what that means


def _differences(made_with: TokenizerInfo, tokenizer: PreTrainedTokenizerBase, spec: TokenizerSpec) -> list[str]:
    """What sets the shards' tokenizer apart from this one, in words; [] when they are the same."""
    found: list[str] = []
    if fingerprint(tokenizer) != made_with.fingerprint:
        pairs = [
            ("vocabulary", f"{made_with.vocabulary_size} tokens", f"{len(tokenizer)} tokens"),
            ("eos token", repr(made_with.eos_token), repr(tokenizer.eos_token)),
            ("added special tokens", str(list(made_with.added_special_tokens)), str(list(spec.added_special_tokens))),
        ]
        found += [f"{what} {theirs} there, {ours} here" for what, theirs, ours in pairs if theirs != ours]
        if not found:
            found.append("same size, but they do not tokenize alike (their fingerprints differ)")
        found[0] = f"(made with {made_with.name}) {found[0]}"
    if chat_template_sha256(tokenizer) != made_with.chat_template_sha256:
        theirs, ours = made_with.chat_template_sha256, chat_template_sha256(tokenizer)
        found.append(f"chat template {_short(theirs)} there, {_short(ours)} here")
    return found


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"{sha256[:12]}..."
