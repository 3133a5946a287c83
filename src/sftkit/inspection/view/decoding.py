"""Finds the text that each token of a row adds, without splitting characters that several tokens encode."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sftkit.config.commands import InspectConfig
from sftkit.core.rows import Ids, Ragged
from sftkit.core.startup.transformers_import import import_transformers
from sftkit.errors import TokenizerError
from sftkit.shards.manifest import Manifest
from sftkit.tokenization.encoding.fast.byte_level import BYTE_OF_CHARACTER
from sftkit.tokenization.loading.tokenizer_identity import fingerprint
from sftkit.tokenization.loading.tokenizer_loading import (
    TokenizerSpec,
    load_tokenizer,
    read_chat_template,
    tokenizer_spec,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "�"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_UNKNOWN_ID = 2**31 - 1  # decodes to nothing, unlike negative ids, which tokenizers rejects


@dataclass(frozen=True)
class TokenText:
    """What one token adds to the text."""

    text: str | None
    """None for an id that is not in the vocabulary."""
    special: bool


class TokenDecoder:
    """Decodes token ids one by one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str | bytes | None] = {}

    @cached_property
    def _special(self) -> frozenset[int]:
        added = self._tokenizer.added_tokens_decoder
        return frozenset(
            [*self._tokenizer.all_special_ids, *(value for value, token in added.items() if token.special)]
        )

    @cached_property
    def _anchor(self) -> list[int]:
        """Ids of an ordinary text to decode tokens after, as the first token of a text may lose its space."""
        return list(self._tokenizer("a", add_special_tokens=False)["input_ids"])

    def texts(self, rows: Ragged) -> Iterator[str]:
        """Yield the text of each row, including special tokens."""
        values = np.where(rows.values < 0, _UNKNOWN_ID, rows.values).astype(np.int32)
        decodable = Ragged(values, rows.offsets)
        return (self._decode(decodable[row].tolist()) for row in range(len(decodable)))

    def token_texts(self, ids: Ids) -> list[TokenText]:
        """Return what each token of a row adds; concatenated, this is the text of the row.

        A character that several tokens encode belongs to the last of them, and the others add "". Bytes that are not
        valid UTF-8 become U+FFFD.

        Args:
            ids: token ids of one row, shape (tokens,).
        """
        self._learn(np.unique(ids).tolist())
        values = ids.tolist()
        parts: list[str | bytes | None] = [self._known[value] for value in values]
        if values and isinstance(parts[0], str):
            parts[0] = self._decode(values[:1])
        texts = join_bytes(parts)
        return [TokenText(text, value in self._special) for value, text in zip(values, texts, strict=True)]

    def _learn(self, ids: Sequence[int]) -> None:
        """Find what new tokens decode to: text, or bytes that are only part of a character."""
        anchor = self._decode(self._anchor)
        for value in ids:
            if value in self._known:
                continue
            surface = self._surface(value)
            if surface is None:
                self._known[value] = None
                continue
            text = self._decode([*self._anchor, value])
            text = text.removeprefix(anchor) if text.startswith(anchor) else self._decode([value])
            self._known[value] = _bytes_of(surface) or text if _REPLACEMENT in text else text

    def _surface(self, value: int) -> str | None:
        """Return the token as written in the vocabulary, None when the vocabulary has no such id."""
        if value < 0:
            return None
        token = self._tokenizer.convert_ids_to_tokens([value])[0]
        return token if isinstance(token, str) else None

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def join_bytes(parts: Sequence[str | bytes | None]) -> list[str | None]:
    """Decode runs of bytes as UTF-8; a character goes to the part that completes it.

    Example:
        >>> join_bytes([b"\\xc3", b"\\xa9", "!", None])
        ['', 'é', '!', None]
    """
    texts: list[str | None] = []
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        if isinstance(part, bytes):
            texts.append(utf8.decode(part))
            continue
        unfinished = utf8.decode(b"", final=True)
        utf8.reset()
        if unfinished:
            texts[-1] = f"{texts[-1]}{unfinished}"
        texts.append(part)
    unfinished = utf8.decode(b"", final=True)
    if unfinished:
        texts[-1] = f"{texts[-1]}{unfinished}"
    return texts


def open_tokenizer(
    config: InspectConfig, manifest: Manifest | None, chat_template: str | None
) -> tuple[PreTrainedTokenizerBase | None, list[str]]:
    """Load the tokenizer that the config names, or else the one that made the shards.

    Args:
        config: may name a tokenizer and a chat template.
        manifest: names the tokenizer that made the shards.
        chat_template: the template that made the shards, if it was not the tokenizer's own; the config's takes
            precedence.

    Returns:
        The tokenizer, and warnings for the reader. It is None, with a warning that says why, when none is named or the
        one that made the shards cannot be loaded any more.

    Raises:
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    recorded = manifest.tokenizer if manifest is not None else None
    added = recorded.added_special_tokens if recorded is not None else ()
    adds_missing = recorded is not None and recorded.adds_missing_tokens
    named = tokenizer_spec(config)
    if named is None and recorded is None:
        return None, ["no manifest names the tokenizer that made these ids: set tokenizer_name_or_path"]
    import_transformers()
    if named is not None:
        tokenizer = load_tokenizer(
            replace(
                named,
                added_special_tokens=named.added_special_tokens or added,
                adds_missing_tokens=named.adds_missing_tokens or adds_missing,
                chat_template=named.chat_template if named.chat_template is not None else chat_template,
            )
        )
    else:
        assert recorded is not None
        configured = read_chat_template(config.dataprocessor)
        template = configured if configured is not None else chat_template
        try:
            spec = TokenizerSpec(recorded.name, template, added, config.trust_remote_code, adds_missing)
            tokenizer = load_tokenizer(spec)
        except TokenizerError as error:
            return None, [f"{error}; set tokenizer_name_or_path to its new location"]
    notes = []
    if recorded is not None and fingerprint(tokenizer) != recorded.fingerprint:
        notes.append(
            f"the tokenizer differs from the one that made the shards ({recorded.name}, fingerprint "
            f"{recorded.fingerprint[:12]}): the text below may differ from what was tokenized"
        )
    return tokenizer, notes


def _bytes_of(surface: str) -> bytes | None:
    """Return the bytes of a vocabulary entry, written as `<0xF0>` or in the byte-level alphabet; None if in neither."""
    match = _BYTE_TOKEN.fullmatch(surface)
    if match is not None:
        return bytes([int(match[1], 16)])
    try:
        return bytes(BYTE_OF_CHARACTER[character] for character in surface)
    except KeyError:
        return None
