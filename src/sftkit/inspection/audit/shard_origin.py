"""What right rows of some shards look like: the norms of the audit, from their tokenizer and the run that made them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkit.audit.expectations.expected import Expectations, RowOrigin
from sftkit.audit.expectations.learn import learn_expectations
from sftkit.audit.expectations.row_origin import common_origin, row_origin
from sftkit.config.commands import InspectConfig
from sftkit.config.fields import to_plain_data
from sftkit.handlers.registry import produced_rows, recorded_handlers
from sftkit.inspection.view.decoding import open_tokenizer
from sftkit.shards.manifest import Manifest
from sftkit.tokenization.special_tokens import stop_tokens
from sftkit.tokenization.tokenizer_loading import chat_template_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEMPLATE_KEYS = ("chat_template", "chat_template_path", "chat_template_base64")


@dataclass(frozen=True)
class ShardOrigin:
    """What rows were made with, as far as it can be had.

    tokenizer: with the chat template that made the rows; None where there is none, and then `notes` says why. making:
    how the run made them. made_by: the manifest with which they came. notes: what the reader should know.
    """

    tokenizer: PreTrainedTokenizerBase | None
    making: RowOrigin
    made_by: Manifest | None
    notes: tuple[str, ...]

    def norms(self) -> Expectations:
        """What right rows look like; takes some 0.1 s where there is a tokenizer."""
        if self.tokenizer is None:
            return Expectations(origin=self.making)
        return learn_expectations(
            self.tokenizer, self.making, stop_tokens(self.tokenizer, str(self.tokenizer.name_or_path))
        )

    def differing_template(self) -> list[str]:
        """A note, where the tokenizer's chat template is not the one that made the rows."""
        made_with = self.made_by.tokenizer if self.made_by is not None else None
        if self.tokenizer is None or made_with is None:
            return []
        if made_with.chat_template_sha256 == chat_template_sha256(self.tokenizer):
            return []
        return ["the chat template differs from the one that made the shards: rows are measured by this one"]


def find_origin(config: InspectConfig, manifest: Manifest | None) -> ShardOrigin:
    """Find what made some rows: the manifest's run, or the data config of a preview.

    Raises:
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    made_by: Mapping[str, Any] = manifest.config if manifest is not None else {}
    if manifest is None and config.datasets:
        made_by = to_plain_data(config)
    template, notes = recorded_template(manifest) if manifest is not None else (None, [])
    tokenizer, more = open_tokenizer(config, manifest, template)
    return ShardOrigin(tokenizer, _row_origin(made_by), manifest, (*notes, *more))


def _row_origin(config: Mapping[str, Any]) -> RowOrigin:
    """Tell how a run with this config (as a manifest holds it) makes rows."""
    produced = [produced_rows(recorded_handlers(dataset)) for dataset in config.get("datasets") or ()]
    return common_origin([row_origin(config, kind, ends_with_stop_token=ends) for kind, ends in produced])


def recorded_template(manifest: Manifest) -> tuple[str | None, list[str]]:
    """The chat template that a manifest's config gave, None where it gave none, or it is gone, as a note then says."""
    processor = manifest.config.get("dataprocessor") or {}
    made_with = manifest.tokenizer
    if any(processor.get(key) is not None for key in _TEMPLATE_KEYS) and made_with and made_with.chat_template:
        return made_with.chat_template, []  # whatever has become of the file it came from
    if processor.get("chat_template") is not None:
        return str(processor["chat_template"]), []
    if processor.get("chat_template_base64") is not None:
        return base64.b64decode(processor["chat_template_base64"]).decode("utf-8", "replace"), []
    path = processor.get("chat_template_path")
    if path is None:
        return None, []
    try:
        return Path(path).read_text(encoding="utf-8"), []
    except (OSError, UnicodeDecodeError):
        return None, [f"{path}: the chat template that made the shards cannot be read; give chat_template_path"]
