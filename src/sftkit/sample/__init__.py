"""The bundled sample: data, a tokenizer and a tiny model's config, reached by paths that begin with `sample:`."""

from __future__ import annotations

from pathlib import Path

SAMPLE_SCHEME = "sample:"


def sample_path(location: str) -> str | Path:
    """`sample:NAME` -> where that file of the bundled sample lies; anything else as it is."""
    if not location.startswith(SAMPLE_SCHEME):
        return location
    return Path(__file__).parent / location.removeprefix(SAMPLE_SCHEME)
