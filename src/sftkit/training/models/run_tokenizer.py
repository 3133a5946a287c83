"""Load the tokenizer of a run, and check that shards, tokenizer and model match."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sftkit.config.commands import TrainConfig
from sftkit.errors import ConfigError, TrainingError
from sftkit.shards.footers import check_footers
from sftkit.shards.manifest import Manifest
from sftkit.shards.reading import ShardSet
from sftkit.storage.adapter_files import open_adapter
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer, tokenizer_spec
from sftkit.tokenizer_match import TokenizerMismatch, find_mismatches, recorded_template
from sftkit.training.distributed import warn_on_main_process
from sftkit.training.models.vocabulary_check import check_stop_tokens, check_vocabulary, read_model_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunTokenizer:
    """The tokenizer of a run, which is saved with the model."""

    tokenizer: PreTrainedTokenizerBase

    known_tokens: int
    """Its length before special tokens were added for this run; those of an adapter are known."""

    @property
    def pad_token_id(self) -> int:
        """The id that fills up a batch; without a pad token, that of eos (it is masked, so any id would work)."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def load_run_tokenizer(config: TrainConfig, shards: ShardSet, others: Collection[ShardSet] = ()) -> RunTokenizer:
    """Load the tokenizer of a run, and check that shards, tokenizer and model match.

    Special tokens and a chat template that were given when the shards were made, but not for this run, are taken from
    the manifest, so that the model is saved with the tokenizer that made its data. Only the config of the model is
    read.

    Args:
        config: the run.
        shards: its data.
        others: more data sets, which are only evaluated.

    Raises:
        DataError: shards are missing, truncated or exchanged, or hold an id that the model does not have.
        TrainingError: no tokenizer is named; or, unless `allow_mismatch` is set, the tokenizer is not the one that made
            the shards, or is larger than the model's embedding.
        TokenizerError: the tokenizer cannot be loaded.
    """
    footers = [footer for each in (shards, *others) for footer in check_footers(each)]
    spec = tokenizer_spec(config)
    if spec is None:
        raise TrainingError("model_name_or_path is missing; set it to the model to train")
    if shards.manifest is not None:
        spec = _as_recorded(spec, shards.manifest)
    tokenizer = load_tokenizer(spec)
    known = len(tokenizer)
    if spec.added_special_tokens or spec.adds_missing_tokens:
        known = len(load_tokenizer(replace(spec, added_special_tokens=(), adds_missing_tokens=False)))
    for each in (shards, *others):
        _check_origin(config, each, tokenizer, spec)
    model = read_model_vocabulary(config)
    adapters = [open_adapter(name) for name in config.adapter_name_or_path]
    rows = max((each.embedding_rows() for each in adapters), default=0)
    if model.vocabulary_size is not None and rows > model.vocabulary_size:
        model, known = replace(model, vocabulary_size=rows), max(known, min(rows, len(tokenizer)))
    known = max([known, *(each.trained_tokens() for each in adapters)])
    check_vocabulary(model, tokenizer, spec, footers, allow_mismatch=config.allow_mismatch)
    check_stop_tokens(model, tokenizer, shards)
    return RunTokenizer(tokenizer, known)


def _check_origin(
    config: TrainConfig, shards: ShardSet, tokenizer: PreTrainedTokenizerBase, spec: TokenizerSpec
) -> None:
    """Refuse a tokenizer or chat template that is not the one that made the shards, and show what differs."""
    made_with = shards.manifest.tokenizer if shards.manifest is not None else None
    if made_with is None:
        return
    found = find_mismatches(made_with, tokenizer, spec)
    if found and set(made_with.added_special_tokens) < set(spec.added_special_tokens):
        # Tokens added for this run do not change ids of the shards: compare the tokenizer without them.
        before = replace(spec, added_special_tokens=made_with.added_special_tokens)
        found = find_mismatches(made_with, load_tokenizer(before), before)
    if not found:
        return
    clauses = "; ".join(each.clause for each in found)
    text = f"{shards.root} was made with another tokenizer or chat template than {spec.name}: {clauses}"
    if not config.allow_mismatch:
        remedy = "use the tokenizer that made them, or make the shards again; set allow_mismatch=true to train anyway"
        raise TrainingError(_with_details(f"{text} ({remedy})", found))
    warn_on_main_process(_log, _with_details(text, found))


def _with_details(text: str, found: tuple[TokenizerMismatch, ...]) -> str:
    return "\n  ".join([text, *(line for each in found for line in each.details)])


def _as_recorded(spec: TokenizerSpec, manifest: Manifest) -> TokenizerSpec:
    if manifest.tokenizer is not None and not spec.added_special_tokens:
        spec = replace(spec, added_special_tokens=manifest.tokenizer.added_special_tokens)
    if manifest.tokenizer is not None and manifest.tokenizer.adds_missing_tokens:
        spec = replace(spec, adds_missing_tokens=True)
    if spec.chat_template is None:
        # If its file is gone, the comparison that follows reports any mismatch.
        with suppress(ConfigError):
            spec = replace(spec, chat_template=recorded_template(manifest))
    return spec
