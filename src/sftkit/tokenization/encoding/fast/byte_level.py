"""The characters that stand for bytes in byte-level vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _byte_characters() -> tuple[str, ...]:
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


BYTE_CHARACTERS = _byte_characters()
"""The character for each byte, shape (256,), as in GPT-2 (openai/gpt-2, `src/encoder.py`, `bytes_to_unicode`)."""

BYTE_OF_CHARACTER: Mapping[str, int] = MappingProxyType({c: byte for byte, c in enumerate(BYTE_CHARACTERS)})
"""The inverse of `BYTE_CHARACTERS`."""
