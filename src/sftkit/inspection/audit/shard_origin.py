"""Finds how shards were made, and from that what correct rows look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.audit.expectations.row_origin import common_origin, row_origin, trains_other_roles
from sftkit.config.commands import InspectConfig
from sftkit.config.fields import to_plain_data
from sftkit.errors import ConfigError
from sftkit.handlers.registry import produced_rows, recorded_handlers
from sftkit.inspection.view.decoding import open_tokenizer
from sftkit.shards.manifest import Manifest
from sftkit.tokenization.loading.special_tokens import stop_tokens
from sftkit.tokenization.loading.tokenizer_identity import chat_template_sha256
from sftkit.tokenizer_match import recorded_template, template_options

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ShardOrigin:
    """What shards were made with, as far as it is known."""

    tokenizer: PreTrainedTokenizerBase | None
    """The tokenizer, with the chat template that made the rows; None when it is unavailable."""
    row_origin: RowOrigin
    """How the rows were made."""
    manifest: Manifest | None
    notes: tuple[str, ...]
    """Warnings for the reader; one of them explains why there is no tokenizer."""

    def learn_expectations(self) -> Expectations:
        """Return what correct rows look like; takes about 0.1 s if there is a tokenizer."""
        if self.tokenizer is None:
            return Expectations(origin=self.row_origin)
        stops = stop_tokens(self.tokenizer, str(self.tokenizer.name_or_path))
        return learn_expectations(self.tokenizer, self.row_origin, stops)

    def template_notes(self) -> list[str]:
        """Return a warning if the tokenizer's chat template is not the one that made the rows."""
        recorded = self.manifest.tokenizer if self.manifest is not None else None
        if self.tokenizer is None or recorded is None:
            return []
        if recorded.chat_template_sha256 == chat_template_sha256(self.tokenizer):
            return []
        return ["the chat template differs from the one that made the shards: rows are checked against this one"]


def find_origin(config: InspectConfig, manifest: Manifest | None) -> ShardOrigin:
    """Find how shards were made, from their manifest, or from the data config of a preview.

    Raises:
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    made_by: Mapping[str, Any] = manifest.config if manifest is not None else {}
    if manifest is None:
        made_by = to_plain_data(config)
    template, notes = _template_of(manifest) if manifest is not None else (None, [])
    tokenizer, more = open_tokenizer(config, manifest, template)
    return ShardOrigin(tokenizer, _row_origin(made_by), manifest, (*notes, *more))


def _row_origin(config: Mapping[str, Any]) -> RowOrigin:
    """Tell how a run with this config (as a manifest holds it) makes rows; little is known if it has no data sets."""
    if not config.get("datasets"):
        return RowOrigin(other_roles_trained=trains_other_roles(config))
    produced = [produced_rows(recorded_handlers(dataset)) for dataset in config.get("datasets") or ()]
    return common_origin([row_origin(config, kind, ends_with_stop_token=ends) for kind, ends in produced])


def _template_of(manifest: Manifest) -> tuple[str | None, list[str]]:
    """Return the chat template that the config in a manifest sets, if any, or a warning that it cannot be read."""
    try:
        return recorded_template(manifest), []
    except ConfigError:
        place = template_options(manifest).chat_template_path or "chat_template_base64"
        return None, [f"{place}: the chat template that made the shards cannot be read; set chat_template_path"]
