"""Token ids -> the text that each of them adds, without tearing characters apart."""

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
from sftkit.core.transformers_import import import_transformers
from sftkit.errors import TokenizerError
from sftkit.shards.manifest import Manifest
from sftkit.tokenization.encoding.byte_level import BYTE_OF_CHARACTER
from sftkit.tokenization.tokenizer_loading import (
    TokenizerSpec,
    fingerprint,
    load_tokenizer,
    read_chat_template,
    tokenizer_spec,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "�"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BEYOND_ANY_VOCABULARY = 2**31 - 1  # decodes to nothing; tokenizers refuses negative ids


@dataclass(frozen=True)
class TokenText:
    """What one token adds to the text. text: None for an id that the tokenizer does not have."""

    text: str | None
    special: bool


class TokenDecoder:
    """A tokenizer, read backwards."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str | bytes | None] = {}

    @cached_property
    def _special(self) -> frozenset[int]:
        added = self._tokenizer.added_tokens_decoder
        return frozenset(
            [*self._tokenizer.all_special_ids, *(value for value, token in added.items() if token.special)]
        )

    @cached_property
    def _anchor(self) -> list[int]:
        """An ordinary token to decode others behind: what stands first in a text may lose its leading space."""
        return list(self._tokenizer("a", add_special_tokens=False)["input_ids"])

    def texts(self, rows: Ragged) -> Iterator[str]:
        """The whole text of each row, special tokens included, one by one."""
        known = np.where(rows.values < 0, _BEYOND_ANY_VOCABULARY, rows.values).astype(np.int32)
        safe = Ragged(known, rows.offsets)
        return (self._decode(safe[row].tolist()) for row in range(len(safe)))

    def pieces(self, ids: Ids) -> list[TokenText]:
        """What each token of a row adds; together they are the text.

        A character that several tokens spell out belongs to the last of them, the others add "". Bytes that spell no
        character become U+FFFD.

        Args:
            ids: token ids of one row, shape (tokens,).
        """
        self._learn(np.unique(ids).tolist())
        values = ids.tolist()
        parts: list[str | bytes | None] = [self._pieces[value] for value in values]
        if values and isinstance(parts[0], str):
            parts[0] = self._decode(values[:1])
        texts = join_bytes(parts)
        return [TokenText(text, value in self._special) for value, text in zip(values, texts, strict=True)]

    def _learn(self, ids: Sequence[int]) -> None:
        """Find what tokens that were not met before stand for: text, or bytes that are no text of their own."""
        anchor = self._decode(self._anchor)
        for value in ids:
            if value in self._pieces:
                continue
            surface = self._surface(value)
            if surface is None:
                self._pieces[value] = None
                continue
            text = self._decode([*self._anchor, value])
            text = text.removeprefix(anchor) if text.startswith(anchor) else self._decode([value])
            self._pieces[value] = _bytes_of(surface) or text if _REPLACEMENT in text else text

    def _surface(self, value: int) -> str | None:
        """The token as it stands in the vocabulary, None where the vocabulary has no such id."""
        if value < 0:
            return None
        token = self._tokenizer.convert_ids_to_tokens([value])[0]
        return token if isinstance(token, str) else None

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def join_bytes(parts: Sequence[str | bytes | None]) -> list[str | None]:
    """Text of each part, where runs of bytes spell UTF-8 together: a character goes to the part that completes it."""
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
    """The tokenizer for some shards, and what the reader should know about it.

    It is the one that the config names, else the one that made the shards. That one may be gone: then there is none,
    and the reason is a note.

    Args:
        config: names a tokenizer and a chat template, or neither.
        manifest: knows the tokenizer that made the shards.
        chat_template: the one that made the shards, where it was not the tokenizer's own; the config's wins.

    Raises:
        TokenizerError, ConfigError: the config names a tokenizer or a template that cannot be loaded.
    """
    made_with = manifest.tokenizer if manifest is not None else None
    added = made_with.added_special_tokens if made_with is not None else ()
    named = tokenizer_spec(config)
    if named is None and made_with is None:
        return None, ["no manifest tells which tokenizer made these ids: name it with tokenizer_name_or_path"]
    import_transformers()
    if named is not None:
        tokenizer = load_tokenizer(
            replace(
                named,
                added_special_tokens=named.added_special_tokens or added,
                chat_template=named.chat_template if named.chat_template is not None else chat_template,
            )
        )
    else:
        assert made_with is not None
        given = read_chat_template(config.dataprocessor)
        template = given if given is not None else chat_template
        try:
            tokenizer = load_tokenizer(TokenizerSpec(made_with.name, template, added, config.trust_remote_code))
        except TokenizerError as error:
            return None, [f"{error}; name another place of it with tokenizer_name_or_path"]
    notes = []
    if made_with is not None and fingerprint(tokenizer) != made_with.fingerprint:
        notes.append(
            f"the tokenizer differs from the one that made the shards ({made_with.name}, fingerprint "
            f"{made_with.fingerprint[:12]}): the text below may not be what was tokenized"
        )
    return tokenizer, notes


def _bytes_of(surface: str) -> bytes | None:
    """The bytes that a token of the vocabulary stands for: `<0xF0>`, or byte-level spelling; None for neither."""
    match = _BYTE_TOKEN.fullmatch(surface)
    if match is not None:
        return bytes([int(match[1], 16)])
    try:
        return bytes(BYTE_OF_CHARACTER[character] for character in surface)
    except KeyError:
        return None
